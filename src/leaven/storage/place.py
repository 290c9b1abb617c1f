"""Where are files kept, and what does it take to keep them there?

A place is a folder or a prefix of a bucket. What differs between the two is behind `Place` and nowhere else: a folder
needs syncs before its files survive a power cut, and the files of a bucket must be fetched before DuckDB reads them.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkstemp
from typing import Protocol

_MANY_FILES = 16


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file as a place lists it."""

    name: str
    bytes: int
    modified: float  # seconds since 1970


class Place(Protocol):
    """Where files are, by name; names may have slashes in them. Safe to use from several threads."""

    @property
    def uri(self) -> str:
        """What the place is called: a path or a URL."""
        ...

    @property
    def options(self) -> dict[str, str]:
        """How delta-rs is to open the place."""
        ...

    def at(self, *names: str) -> Place:
        """Return the place of that name in this one, whether there is anything in it or not."""
        ...

    def folders(self) -> list[str]:
        """Return the names of the places right in this one, sorted; those that begin with a dot are left out."""
        ...

    def files(self) -> list[StoredFile]:
        """Return the files right in this place, by name."""
        ...

    def read(self, name: str) -> bytes:
        """Return the content of a file; raises FileNotFoundError where there is none."""
        ...

    def ends(self, name: str, length: int) -> tuple[int, bytes, bytes] | None:
        """Return a file's size and its first and last `length` bytes, or None where there is none."""
        ...

    def write(self, name: str, data: bytes) -> None:
        """Keep a file, whole or not at all; when this returns it survives a power cut."""
        ...

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""
        ...

    def sync(self, names: Iterable[str], *, above: int = 0) -> None:
        """Make files that others wrote survive a power cut, and the folders they are in, up to `above` over this one.

        What is not there is passed over. `names` is not read where nothing needs to be done.
        """
        ...

    def local(self, names: Mapping[str, int]) -> list[str]:
        """Return the paths of local files with the content of these, which never changes, given their sizes."""
        ...

    def alone(self) -> AbstractContextManager[bool]:
        """Return a context in which no other process is that asked for the same; False where one is already."""
        ...

    def said(self) -> AbstractContextManager[None]:
        """Return a context that turns what a library says of this place into a `LeavenError`."""
        ...


def place_at(location: str, *, setting: str, scratch: Path, megabytes: int) -> Place:
    """Return the place that `location` names: a folder, or `s3://bucket/prefix`.

    Args:
        location: A path or a URL.
        setting: What the location was given as, for the error.
        scratch: Folder for copies of files that are elsewhere.
        megabytes: How much room these may take.
    Raises:
        BadDefinition: it is a URL of another kind, or what a bucket needs is not installed.
    """
    if "://" not in location:
        return Folder(Path(location).absolute())
    from leaven.storage.bucket import bucket_at

    return bucket_at(location, scratch=scratch, megabytes=megabytes, setting=setting)


def folder_of(location: str) -> Path | None:
    """Return the folder that `location` names, or None for a URL."""
    return None if "://" in location else Path(location).absolute()


@dataclass(frozen=True, slots=True)
class Folder:
    """A place on a local disk; implements `Place`."""

    path: Path

    def __str__(self) -> str:
        return str(self.path)

    @property
    def uri(self) -> str:
        """The path."""
        return str(self.path)

    @property
    def options(self) -> dict[str, str]:
        """Nothing is needed to open it."""
        return {}

    def at(self, *names: str) -> Folder:
        """Return the folder of that name in this one."""
        return Folder(self.path.joinpath(*names))

    def folders(self) -> list[str]:
        """Return the names of its folders."""
        return sorted(entry.name for entry in self._entries() if entry.is_dir() and not entry.name.startswith("."))

    def files(self) -> list[StoredFile]:
        """Return its files."""
        found = []
        for entry in self._entries():
            if entry.is_file():
                stat = entry.stat()
                found.append(StoredFile(entry.name, stat.st_size, stat.st_mtime))
        return sorted(found, key=lambda file: file.name)

    def _entries(self) -> list[os.DirEntry[str]]:
        try:
            with os.scandir(self.path) as entries:
                return list(entries)
        except (FileNotFoundError, NotADirectoryError):
            return []

    def read(self, name: str) -> bytes:
        """Return a file's content."""
        return (self.path / name).read_bytes()

    def ends(self, name: str, length: int) -> tuple[int, bytes, bytes] | None:
        """Return a file's size and its ends."""
        try:
            with (self.path / name).open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(0)
                head = file.read(length)
                file.seek(max(size - length, 0))
                return size, head, file.read(length)
        except FileNotFoundError:
            return None

    def write(self, name: str, data: bytes) -> None:
        """Write a file beside its name, sync it, and put it there."""
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = mkstemp(dir=path.parent, prefix=".writing-")
        try:
            with os.fdopen(handle, "wb") as out:
                out.write(data)
                out.flush()
                os.fsync(out.fileno())
            Path(temporary).chmod(0o644)
            Path(temporary).replace(path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
        _sync_all([parent for parent in path.parents if parent.is_relative_to(self.path.parent)])

    def remove(self, name: str) -> None:
        """Remove a file."""
        (self.path / name).unlink(missing_ok=True)

    def sync(self, names: Iterable[str], *, above: int = 0) -> None:
        """Sync files and folders."""
        # What is gone was compacted away by a later commit, and a clean-up removed it.
        there = [path for path in (self.path / name for name in names) if path.exists()]
        parents = {parent for path in there for parent in path.parents if parent.is_relative_to(self.path)}
        _sync_all(there)
        _sync_all([*parents, self.path, *self.path.parents[:above]])

    def local(self, names: Mapping[str, int]) -> list[str]:
        """Return the files' own paths."""
        return [str(self.path / name) for name in names]

    @contextmanager
    def alone(self) -> Iterator[bool]:
        """Hold a lock file, which the system lets go of with the process."""
        handle = os.open(self.path / ".alone", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                free = True
            except BlockingIOError:
                free = False
            yield free
        finally:
            os.close(handle)

    def said(self) -> AbstractContextManager[None]:
        """Return a context that changes nothing: what the system says of a local file is plain."""
        return nullcontext()


def _sync_all(paths: list[Path]) -> None:
    if len(paths) < _MANY_FILES:
        for path in paths:
            sync_path(path)
        return
    with ThreadPoolExecutor(_MANY_FILES) as pool:  # the disk then flushes many at once
        list(pool.map(sync_path, paths))


def sync_path(path: Path) -> None:
    """Make a file's content, or a folder's entries, survive a power cut."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
