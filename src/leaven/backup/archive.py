"""How is a backup written and read: as a folder, or as a tar file in one go?

The first member says what this is (`backup.json`), the last one holds the digest of every other (`manifest.json`), so
a backup that was cut off, damaged or added to is seen as such before anything is restored.
"""

from __future__ import annotations

import gzip
import io
import os
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from hashlib import sha256
from pathlib import Path, PurePosixPath
from typing import IO, Any, Protocol

import msgspec

from leaven.backup.errors import BackupDamaged, NoBackup
from leaven.errors import BadDefinition

FIRST, LAST = "backup.json", "manifest.json"
LONGEST_HEAD = 2**28  # bytes of a first or last member that are read; more is damage
SUFFIXES = (".tar.gz", ".tgz", ".tar.zst", ".tzst", ".tar")

_CHUNK = 2**20
_READING: tuple[type[Exception], ...] = (tarfile.TarError, EOFError, gzip.BadGzipFile, zlib.error)


class Digests(msgspec.Struct, frozen=True):
    """The last member: what all the others are."""

    files: dict[str, tuple[int, str]]  # name -> size in bytes, SHA-256


class Target(Protocol):
    """Where the members of a backup go, one after another."""

    def add(self, name: str, size: int, content: IO[bytes]) -> str:
        """Write `size` bytes of `content` as the member `name`; return their SHA-256."""
        ...


class Reading:
    """The bytes of a member as they pass by."""

    def __init__(self, content: IO[bytes]) -> None:
        self._content, self._digest = content, sha256()
        self.size = 0

    def read(self, size: int = -1) -> bytes:
        """Return the next bytes, at most `size`."""
        found = self._content.read(size)
        self._digest.update(found)
        self.size += len(found)
        return found

    @property
    def digest(self) -> str:
        """Of what was read so far."""
        return self._digest.hexdigest()


class _Folder:
    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def add(self, name: str, size: int, content: IO[bytes]) -> str:
        path, reading = self._folder / name, Reading(content)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            copied(reading, file, size)
            file.flush()
            os.fsync(file.fileno())
        return reading.digest


class _Tar:
    def __init__(self, tar: tarfile.TarFile, mtime: int) -> None:
        self._tar, self._mtime = tar, mtime

    def add(self, name: str, size: int, content: IO[bytes]) -> str:
        entry, reading = tarfile.TarInfo(name), Reading(content)
        entry.size, entry.mode, entry.mtime = size, 0o600, self._mtime
        self._tar.addfile(entry, reading)
        return reading.digest


@contextmanager
def writing(place: Path, *, at: int) -> Iterator[Target]:
    """Open a new backup at `place`, which appears whole at the end of the block, or not at all.

    Args:
        place: A folder, or a file whose name says how it is packed; nothing may be there yet.
        at: The moment of the backup, in seconds since the Unix epoch.
    Raises:
        BadDefinition: what would pack it is not installed.
    """
    being_made = place.with_name(f".{place.name}.{os.getpid()}.part")
    try:
        if is_folder(place):
            being_made.mkdir(mode=0o700)
            yield _Folder(being_made)
        else:
            with ExitStack() as opened:
                raw = opened.enter_context(_private(being_made))
                packed = opened.enter_context(_packing(place, raw))
                yield _Tar(opened.enter_context(tarfile.open(fileobj=packed, mode="w|")), at)
            with being_made.open("rb") as file:
                os.fsync(file.fileno())
        being_made.rename(place)
        _sync(place.parent)
    except BaseException:
        _remove(being_made)
        raise


@contextmanager
def members(place: Path) -> Iterator[Iterator[tuple[str, int, IO[bytes]]]]:
    """Open a backup and give its members in the order in which they were written: name, size, content.

    Raises:
        NoBackup: there is nothing of that kind.
        BackupDamaged: it cannot be read to its end.
    """
    if not place.exists():
        raise NoBackup(str(place), "there is nothing", "Name a file or folder that leaven backup wrote.")
    if place.is_dir():
        yield _in_folder(place)
        return
    with ExitStack() as opened:
        try:
            packed = opened.enter_context(_unpacking(place))
            tar = opened.enter_context(tarfile.open(fileobj=packed, mode="r|"))
        except _unreadable() as error:
            raise NoBackup(str(place), f"it is no backup ({error})", "Name one that leaven backup wrote.") from error
        try:
            yield _in_tar(place, tar, packed)
        except _unreadable() as error:
            raise BackupDamaged(str(place), f"it cannot be read to its end ({error})") from error


def is_folder(place: Path) -> bool:
    """Return whether a backup of this name is a folder."""
    return not place.name.endswith(SUFFIXES)


def copied(source: Any, target: IO[bytes], size: int) -> None:
    """Copy `size` bytes.

    Raises:
        OSError: there are fewer.
    """
    left = size
    while left:
        found = source.read(min(left, _CHUNK))
        if not found:
            raise OSError(f"{left} bytes of {size} are missing")
        target.write(found)
        left -= len(found)


def check_name(place: Path, name: str) -> str:
    """Return the name of a member, if a backup can have it.

    Raises:
        BackupDamaged: it points out of the folder that it is to be restored to.
    """
    plain = PurePosixPath(name)
    if not name or plain.is_absolute() or ".." in plain.parts or str(plain) != name or "\0" in name or "\\" in name:
        raise BackupDamaged(str(place), f"its member {name!r} has no plain name")
    return name


def _in_folder(folder: Path) -> Iterator[tuple[str, int, IO[bytes]]]:
    found = sorted(path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    ranks = {folder / FIRST: 0, folder / LAST: 2}
    for path in sorted(found, key=lambda path: ranks.get(path, 1)):
        with path.open("rb") as content:
            yield path.relative_to(folder).as_posix(), path.stat().st_size, content


def _in_tar(place: Path, tar: tarfile.TarFile, packed: Any) -> Iterator[tuple[str, int, IO[bytes]]]:
    for entry in tar:
        content = tar.extractfile(entry) if entry.isreg() else None
        if content is None:
            raise BackupDamaged(str(place), f"its member {entry.name!r} is no file")
        yield entry.name, entry.size, content
    while packed.read(_CHUNK):  # to its very end, where the packer's own checksum is
        continue


@contextmanager
def _private(path: Path) -> Iterator[IO[bytes]]:
    """A new file that nobody else may read: it holds what users sent."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        yield file


@contextmanager
def _packing(place: Path, raw: IO[bytes]) -> Iterator[Any]:
    if place.name.endswith((".zst", ".tzst")):
        with _zstandard(place).ZstdCompressor(level=3, write_checksum=True).stream_writer(raw, closefd=False) as packed:
            yield packed
    elif place.name.endswith((".gz", ".tgz")):
        # Most of it is packed already; the level above costs four times the time for one part in a hundred.
        with gzip.GzipFile(fileobj=raw, mode="wb", compresslevel=1, mtime=0) as packed:
            yield packed
    else:
        yield raw


@contextmanager
def _unpacking(place: Path) -> Iterator[Any]:
    """What it is, is told by its first bytes and not by its name."""
    with place.open("rb") as raw:
        magic = raw.read(4)
        raw.seek(0)
        if magic == b"\x28\xb5\x2f\xfd":
            with _zstandard(place).ZstdDecompressor().stream_reader(raw, read_across_frames=True) as packed:
                yield io.BufferedReader(packed, _CHUNK)
        elif magic[:2] == b"\x1f\x8b":
            with gzip.GzipFile(fileobj=raw, mode="rb") as packed:
                yield packed
        else:
            yield raw


def _zstandard(place: Path) -> Any:
    try:
        import zstandard
    except ImportError as error:
        raise BadDefinition(
            str(place), "packing by zstd is not installed", 'pip install "leaven[backup]", or name it .tar.gz.'
        ) from error
    return zstandard


def _unreadable() -> tuple[type[Exception], ...]:
    try:
        import zstandard
    except ImportError:
        return _READING
    return (*_READING, zstandard.ZstdError)


def _remove(path: Path) -> None:
    if path.is_dir():
        from shutil import rmtree

        rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
