"""Does a backup come back as it was written, and is one that was not seen as such?"""

from __future__ import annotations

import io
import tarfile
from hashlib import sha256
from pathlib import Path

import pytest

from leaven.backup import archive
from leaven.backup.errors import BackupDamaged, NoBackup

KINDS = ("kept.tar", "kept.tar.gz", "kept.tar.zst", "kept")
MEMBERS = {"first": b"", "a/b/c": b"abc" * 1_000_000, "wal/x/0000000001.open": bytes(range(256))}


def write(place: Path, members: dict[str, bytes] = MEMBERS) -> dict[str, str]:
    with archive.writing(place, at=0) as target:
        return {name: target.add(name, len(content), io.BytesIO(content)) for name, content in members.items()}


def read(place: Path) -> dict[str, bytes]:
    with archive.members(place) as found:
        return {name: content.read(size) for name, size, content in found}


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_read_is_what_was_written(tmp_path: Path, kind: str):
    digests = write(tmp_path / kind)
    assert read(tmp_path / kind) == MEMBERS
    assert digests == {name: sha256(content).hexdigest() for name, content in MEMBERS.items()}
    assert [path.name for path in tmp_path.iterdir()] == [kind]


@pytest.mark.parametrize("kind", KINDS)
def test_only_its_owner_can_read_it(tmp_path: Path, kind: str):
    write(tmp_path / kind)
    assert (tmp_path / kind).stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("kind", KINDS)
def test_what_fails_in_the_middle_leaves_nothing(tmp_path: Path, kind: str):
    with pytest.raises(OSError, match=r"missing|unexpected end"), archive.writing(tmp_path / kind, at=0) as target:
        target.add("short", 10, io.BytesIO(b"three"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", KINDS[:3])
def test_one_that_was_cut_off_is_not_read_as_whole(tmp_path: Path, kind: str):
    write(tmp_path / kind)
    content = (tmp_path / kind).read_bytes()
    for share in (0.1, 0.5, 0.9):
        (tmp_path / "cut").write_bytes(content[: int(len(content) * share)])
        with pytest.raises((BackupDamaged, NoBackup)):
            assert read(tmp_path / "cut") == MEMBERS


def test_what_is_no_archive_is_said_to_be_none(tmp_path: Path):
    (tmp_path / "letter.tar.gz").write_bytes(b"Dear Sir or Madam, " * 100)
    with pytest.raises(NoBackup, match="it is no backup"), archive.members(tmp_path / "letter.tar.gz") as found:
        list(found)
    with pytest.raises(NoBackup, match="there is nothing"), archive.members(tmp_path / "nothing") as found:
        list(found)


def test_a_link_in_it_is_not_followed(tmp_path: Path):
    with tarfile.open(tmp_path / "linked.tar", "w") as tar:
        link = tarfile.TarInfo("lake")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc"
        tar.addfile(link)
    with pytest.raises(BackupDamaged, match="'lake' is no file"):
        read(tmp_path / "linked.tar")


@pytest.mark.parametrize("name", ["/etc/passwd", "../x", "a/../../x", "a//b", "", "./a", "a\\b"])
def test_a_name_that_points_elsewhere_is_refused(name: str):
    with pytest.raises(BackupDamaged, match="no plain name"):
        archive.check_name(Path("kept"), name)
