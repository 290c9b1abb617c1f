"""Does a bucket that cannot be used say so with what to do, and are copies of its files whole, fresh and bounded?"""

from __future__ import annotations

import json
import os
import pickle

import pytest

from leaven.errors import BadDefinition
from leaven.storage.bucket import BucketUnavailable
from leaven.storage.copies import IN_USE_SECONDS, UNUSED_SECONDS, Copies
from leaven.storage.flusher import Flusher, FlushIncomplete
from leaven.storage.lake import Lake
from leaven.storage.place import place_at
from tests.contracts.conftest import bucket, s3_server
from tests.storage.builders import a_label, a_prediction, commit, examples, seal, sealed

__all__ = ["bucket", "s3_server"]


@pytest.mark.parametrize(
    ("setting", "value", "said"),
    [
        ("AWS_ENDPOINT_URL", "http://127.0.0.1:1", r"did not answer .*Check AWS_ENDPOINT_URL"),
        ("AWS_ALLOW_HTTP", "false", r"plain HTTP.*Set AWS_ALLOW_HTTP=true"),
    ],
)
def test_a_store_that_does_not_answer_is_named_with_what_to_do(bucket, tmp_path, monkeypatch, setting, value, said):
    monkeypatch.setenv(setting, value)
    lake = Lake(f"{bucket}/lake", scratch=tmp_path)
    for ask in (lake.loops, lambda: lake.stats("flights"), lambda: commit(lake, a_prediction())):
        with pytest.raises(BucketUnavailable, match=rf"^{bucket}/lake.* cannot be used: .*{said}"):
            ask()


def test_a_bucket_that_does_not_exist_and_one_that_refuses_are_told_apart(bucket, tmp_path):
    nowhere = Lake("s3://no-such-bucket/lake", scratch=tmp_path)
    for ask in (nowhere.loops, lambda: commit(nowhere, a_prediction())):
        with pytest.raises(BucketUnavailable, match=r"there is no bucket 'no-such-bucket'. Create it"):
            ask()
    error = BucketUnavailable("s3://b", "it is away", "Wait.")
    assert str(pickle.loads(pickle.dumps(error))) == str(error) == "s3://b cannot be used: it is away. Wait."


def test_bad_credentials_are_said_so(tmp_path, s3_server, monkeypatch):
    """The test's server asks for none, so the answers of the real one are told here as the client words them."""
    from leaven.storage.bucket import _reason

    refused = (
        "Error performing GET https://… - Server returned non-2xx status code: 403 Forbidden: <Error><Code>%s</Code>"
    )
    for code in ("InvalidAccessKeyId", "SignatureDoesNotMatch", "AccessDenied"):
        why, mend = _reason("b", refused % code)
        assert (why, mend.startswith("Check AWS_ACCESS_KEY_ID")) == (f"the object store refused with {code}", True)
    assert (
        _reason("b", "Error performing PUT http://169.254.169.254/latest/api/token")[0] == "no credentials were given"
    )
    assert _reason("b", "status code: 403 Forbidden: no body")[0] == "the object store refused with 403 Forbidden"


def test_a_url_of_another_kind_is_refused():
    for url in ("gs://a/b", "s3://", "s3:///x", "s3://a/b?c=d"):
        with pytest.raises(BadDefinition, match=r"LEAVEN_LAKE: '.*' is neither a folder nor a bucket"):
            Lake(url)


def test_without_the_extra_it_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setitem(__import__("sys").modules, "obstore.store", None)
    with pytest.raises(BadDefinition, match=r'LEAVEN_ARTIFACTS: .*Install it: pip install "leaven\[s3\]"'):
        place_at("s3://bucket/x", setting="LEAVEN_ARTIFACTS", scratch=tmp_path, megabytes=1)


def test_a_file_is_fetched_once_and_again_where_the_copy_is_not_whole(bucket, tmp_path):
    lake = Lake(f"{bucket}/lake", scratch=tmp_path)
    for i in range(3):
        commit(lake, a_prediction(f"p{i}"))
    assert len(examples(lake)) == 3
    copies = sorted(tmp_path.rglob("*.parquet"))
    assert len(copies) == 3
    stamps = [copy.stat().st_ino for copy in copies]
    assert len(examples(lake)) == 3
    assert [copy.stat().st_ino for copy in copies] == stamps
    os.truncate(copies[1], 100)
    assert len(examples(lake)) == 3
    assert [copy.stat().st_ino == stamp for copy, stamp in zip(copies, stamps, strict=True)] == [True, False, True]


def test_copies_go_when_unused_for_a_day_or_when_there_are_too_many_but_not_while_in_use(tmp_path):
    now = 10**9
    copies = Copies(tmp_path, megabytes=3, wall=lambda: now)
    fetched = []

    def fetch(name, path):
        fetched.append(name)
        path.write_bytes(bytes(2**20))

    def use(*names):
        return copies.paths(dict.fromkeys(names, 2**20), fetch)

    use("a", "b", "c", "d")  # more than there is room for, all of it in use
    assert len(fetched) == 4
    now += IN_USE_SECONDS + 1
    use("c", "d")
    copies.trim()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b", "c", "d"]  # one of the two unused made room
    now += UNUSED_SECONDS - 10
    use("d")
    copies.trim()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c", "d"]
    use("a")
    assert fetched[4:] == ["a"]


def test_while_the_store_is_away_events_wait_in_the_log_and_come_in_once_when_it_is_back(
    bucket, tmp_path, monkeypatch, s3_server
):
    seal(tmp_path, a_prediction("p1"), a_label("p1"))
    with monkeypatch.context() as away:
        away.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
        with pytest.raises(BucketUnavailable, match="did not answer"):
            Flusher(tmp_path / "wal", Lake(f"{bucket}/lake", scratch=tmp_path / "scratch")).flush_once()
    assert len(sealed(tmp_path / "wal")) == 1
    flusher = Flusher(tmp_path / "wal", Lake(f"{bucket}/lake", scratch=tmp_path / "scratch"))
    assert flusher.flush_once() == 2
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    seal(tmp_path, a_prediction("p2"))
    fresh = Flusher(tmp_path / "wal", Lake(f"{bucket}/lake", scratch=tmp_path / "scratch"))
    fresh._repaired = True  # as one that was running when the store went away
    with pytest.raises(FlushIncomplete, match=r"flights/predictions: s3://.* cannot be used"):
        fresh.flush_once()
    assert len(sealed(tmp_path / "wal")) == 1
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server.environment["AWS_ENDPOINT_URL"])
    assert flusher.flush_once() == 1
    assert sealed(tmp_path / "wal") == []


def test_the_command_line_says_what_is_wrong_with_a_bucket_in_a_sentence(bucket, tmp_path, leaven, s3_server):
    reach = s3_server.environment
    told = leaven("events", "stats", "--json", LEAVEN_HOME=tmp_path, LEAVEN_LAKE=f"{bucket}/lake", **reach)
    assert (told.returncode, json.loads(told.stdout)["loops"]) == (0, [])
    told = leaven("events", "stats", LEAVEN_HOME=tmp_path, LEAVEN_LAKE="s3://no-such-bucket/lake", **reach)
    assert told.returncode == 3
    assert "there is no bucket 'no-such-bucket'" in told.stderr
    assert "Traceback" not in told.stderr
    told = leaven("events", "stats", LEAVEN_HOME=tmp_path, LEAVEN_LAKE="ftp://x/lake", **reach)
    assert told.returncode == 2
    assert "neither a folder nor a bucket" in told.stderr
