"""Are a version's files what was registered, always?"""

from __future__ import annotations

import mmap
import os
import pickle
import subprocess
import sys
import zipfile
from hashlib import sha256
from io import BytesIO
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leaven.registry import artifacts
from leaven.registry.artifacts import ArtifactDamaged, ArtifactMissing, ArtifactRefused, ArtifactStore, packed, unpacked

FILES = {"model.ubj": bytes(range(256)) * 40, "manifest.json": b'{"format": "xgboost"}', "deep/a.bin": b""}
_names = st.text("abcxyz0.9_- é", min_size=1, max_size=12).filter(lambda name: name.strip(".") == name)


def kept(store: ArtifactStore, data: bytes) -> str:
    """Put any bytes where the artifact of their digest belongs."""
    digest = sha256(data).hexdigest()
    store.path(digest).parent.mkdir(parents=True, exist_ok=True)
    store.path(digest).write_bytes(data)
    return digest


def zipped(*entries: tuple[str, bytes], how: int = zipfile.ZIP_STORED) -> bytes:
    out = BytesIO()
    with zipfile.ZipFile(out, "w", how) as archive:
        for name, content in entries:
            archive.writestr(name, content)
    return out.getvalue()


def test_files_come_back_whole_and_equal_files_are_kept_once(tmp_path: Path):
    store = ArtifactStore(tmp_path / "a" / "b")
    digest = store.put(FILES)
    assert store.put(dict(reversed(FILES.items()))) == digest
    assert store.get(digest) == FILES
    assert store.path(digest) == tmp_path / "a" / "b" / digest[:2] / f"{digest}.zip"
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [store.path(digest)]


@given(files=st.dictionaries(_names, st.binary(max_size=200), min_size=1, max_size=5))
def test_any_files_pack_and_unpack(files):
    data = packed(files)
    assert unpacked(data) == files
    assert packed(dict(sorted(files.items(), reverse=True))) == data


def test_the_digest_is_the_same_in_another_process_on_another_day(tmp_path: Path):
    script = (
        "import sys, pathlib; from leaven.registry.artifacts import ArtifactStore;"
        "print(ArtifactStore(pathlib.Path(sys.argv[1])).put({'b': b'2', 'a': b'1'}))"
    )
    there = subprocess.run(
        [sys.executable, "-c", script, tmp_path],
        capture_output=True, text=True, check=True, env=os.environ | {"TZ": "Asia/Tokyo", "PYTHONHASHSEED": "5"},
    )  # fmt: skip
    assert there.stdout.strip() == sha256(packed({"a": b"1", "b": b"2"})).hexdigest()


def test_one_changed_bit_anywhere_is_noticed_and_putting_again_mends_it(tmp_path: Path):
    store = ArtifactStore(tmp_path)
    digest = store.put({"model": b"weights" * 9})
    whole = store.path(digest).read_bytes()
    for place in range(0, len(whole), 3):
        store.path(digest).write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(ArtifactDamaged, match="its content has another digest"):
            store.get(digest)
    for cut in (0, 1, len(whole) - 1):
        store.path(digest).write_bytes(whole[:cut])
        with pytest.raises(ArtifactDamaged):
            store.get(digest)
    assert store.put({"model": b"weights" * 9}) == digest
    assert store.get(digest) == {"model": b"weights" * 9}


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"no zip file at all", "not a zip"),
        (zipped(("bomb", b"\0" * 10_000_000), how=zipfile.ZIP_DEFLATED), "it is compressed"),
        (zipped(("../escape", b"x")), "plain relative path"),
        (zipped(("/absolute", b"x")), "plain relative path"),
        (zipped(("a\\b", b"x")), "backslash"),
        (zipped(), "there are no files"),
    ],
)
def test_bytes_that_no_store_wrote_are_refused_though_their_digest_fits(tmp_path: Path, data: bytes, why: str):
    store = ArtifactStore(tmp_path)
    with pytest.raises(ArtifactDamaged, match=why):
        store.get(kept(store, data))


def test_members_that_share_their_bytes_are_refused():
    content = b"\0" * 50_000
    data = zipped(*((f"f{place}", content if place == 0 else b"") for place in range(3)))
    # Let the directory entries of the empty members claim the first one's bytes.
    with zipfile.ZipFile(BytesIO(data)) as archive:
        at, first = archive.start_dir, archive.infolist()[0]
    entry = data[at : at + 46 + 2]
    forged = data[:at] + b"".join(entry[:46] + f"f{place}".encode() for place in range(3)) + data[at + 3 * len(entry) :]
    assert first.filename == "f0"
    with pytest.raises(ArtifactRefused, match="overlap"):
        unpacked(forged)


def test_bounds_and_names_are_checked_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    store = ArtifactStore(tmp_path)
    for name in ("", "..", "a/../b", "/a", "a//b", "a/", "x\0y", "C:evil", "a\nb"):
        with pytest.raises(ArtifactRefused):
            store.put({name: b"x"})
    with pytest.raises(ArtifactRefused, match="there are no files"):
        store.put({})
    with pytest.raises(ArtifactRefused, match="more than 1000"):
        store.put({str(place): b"" for place in range(1001)})
    monkeypatch.setattr(artifacts, "MAX_BYTES", 10)
    with pytest.raises(ArtifactRefused, match="11 bytes"):
        store.put({"a": b"x" * 11})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("digest", ["f" * 64, "../../etc/passwd", "", "F" * 64])
def test_what_is_not_there_is_missing_whatever_it_is_called(tmp_path: Path, digest: str):
    with pytest.raises(ArtifactMissing, match="no artifact"):
        ArtifactStore(tmp_path).get(digest)


@pytest.mark.parametrize(
    "error", [ArtifactMissing("d", "f"), ArtifactDamaged("d", "p", "w"), ArtifactRefused("n", "w")]
)
def test_errors_survive_the_way_between_processes(error: Exception):
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_reading_artifacts_loads_no_database_library():
    script = (
        "import sys, leaven.registry.artifacts;"
        "sys.exit(bool({'sqlalchemy', 'alembic', 'duckdb', 'deltalake', 'sklearn'} & set(sys.modules)))"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_what_is_read_is_the_mapped_file_itself(tmp_path: Path):
    """No copy per process: the pages belong to the file, and cannot be written."""
    store = ArtifactStore(tmp_path)
    content = os.urandom(3 * 2**20)
    digest = store.put({"model": content, "small": b"x"})
    files = store.get(digest)
    view = files["model"]
    assert view.readonly
    assert isinstance(view.obj, mmap.mmap)
    assert view == content
    store.path(digest).unlink()  # what is mapped stays
    assert sha256(view).digest() == sha256(content).digest()


def test_a_directory_that_points_elsewhere_is_refused():
    data = packed({"a": b"1234", "b": b"5678"})
    with zipfile.ZipFile(BytesIO(data)) as archive:
        at = archive.start_dir
    for place, value in ((42, 7), (42, 2**31), (26 - at, 60_000)):  # offset of the header; length of the name in it
        size = 4 if place == 42 else 2
        forged = data[: at + place] + value.to_bytes(size, "little") + data[at + place + size :]
        with pytest.raises((ArtifactRefused, zipfile.BadZipFile)):
            unpacked(forged)
