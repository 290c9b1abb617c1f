"""Are artifacts in a bucket what was registered, and is one that was used before there when the bucket is not?"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from leaven.registry.artifacts import ArtifactDamaged, ArtifactMissing, ArtifactStore
from leaven.registry.remote_artifacts import UNUSED_SECONDS, artifacts_at
from leaven.storage.bucket import BucketUnavailable
from leaven.storage.place import place_at
from tests.contracts.conftest import bucket, s3_server

__all__ = ["bucket", "s3_server"]

FILES = {"model.ubj": bytes(range(256)) * 40, "manifest.json": b"{}"}


def content(store: ArtifactStore, digest: str) -> dict[str, bytes]:
    return {name: bytes(data) for name, data in store.get(digest).items()}


def test_what_one_machine_puts_another_gets_and_the_digest_is_that_of_a_folder(bucket: str, tmp_path: Path):
    one, two = (artifacts_at(f"{bucket}/models", copies=tmp_path / name) for name in ("one", "two"))
    digest = one.put(FILES)
    assert digest == one.put(FILES) == ArtifactStore(tmp_path / "folder").put(FILES)
    assert content(two, digest) == content(one, digest) == FILES
    with pytest.raises(ArtifactMissing, match="s3://"):
        two.get("0" * 64)


def test_a_folder_is_a_store_as_before(tmp_path: Path):
    assert type(artifacts_at(str(tmp_path), copies=tmp_path / "copies")) is ArtifactStore


def test_with_the_bucket_away_what_was_used_is_still_read(bucket: str, tmp_path: Path, monkeypatch):
    digest = artifacts_at(bucket, copies=tmp_path / "one").put(FILES)
    assert content(artifacts_at(bucket, copies=tmp_path / "two"), digest) == FILES
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    assert content(artifacts_at(bucket, copies=tmp_path / "two"), digest) == FILES
    with pytest.raises(BucketUnavailable):
        artifacts_at(bucket, copies=tmp_path / "three").get(digest)
    with pytest.raises(BucketUnavailable):
        artifacts_at(bucket, copies=tmp_path / "two").put({"another": b"one"})


def test_a_damaged_copy_is_made_anew_and_a_damaged_object_is_refused(bucket: str, tmp_path: Path):
    store = artifacts_at(bucket, copies=tmp_path)
    digest = store.put(FILES)
    store.path(digest).write_bytes(b"something else")
    assert content(store, digest) == FILES
    place = place_at(bucket, setting="test", scratch=tmp_path / "scratch", megabytes=1)
    place.write(f"{digest[:2]}/{digest}.zip", b"exchanged")
    assert content(store, digest) == FILES  # the copy is as good as ever
    store.path(digest).unlink()
    with pytest.raises(ArtifactDamaged, match=rf"at {bucket}/.*another digest"):
        store.get(digest)
    assert not store.path(digest).exists()
    store.put(FILES)  # and is mended by the same files
    assert content(artifacts_at(bucket, copies=tmp_path / "new"), digest) == FILES


def test_copies_that_nobody_used_for_a_month_go(bucket: str, tmp_path: Path):
    store = artifacts_at(bucket, copies=tmp_path / "copies")
    old, new = store.put(FILES), artifacts_at(bucket, copies=tmp_path / "other").put({"new": b"1"})
    long_ago = store.path(old).stat().st_mtime - UNUSED_SECONDS - 60
    os.utime(store.path(old), (long_ago, long_ago))
    store.get(new)
    assert not store.path(old).exists()
    assert content(store, old) == FILES
