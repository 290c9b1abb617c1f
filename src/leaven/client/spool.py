"""Where does feedback wait while the gateway is away?

In a folder that several processes may share:

    <folder>/open.ndjson                what is being appended to; synced before the caller goes on
    <folder>/0000000007-120.ndjson      a finished file of 120 lines; removed once the gateway has acknowledged them
    <folder>/rejected.ndjson            what the gateway will never take, with its reason
    <folder>/lock, <folder>/delivering  locked while a file is appended to or finished; while one process delivers

A file is delivered as a whole: a crash in the middle means that reports are sent again, and since each has its id, the
gateway counts them once.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from leaven.client.errors import SpoolFailed, SpoolFull
from leaven.client.requests import SentReport
from leaven.client.spool_format import SetAside, SpoolContent, from_lines, set_aside_lines, to_lines

FILE_BYTES = 256 * 1024  # a file is finished when it has grown to this
_OPEN, _REJECTED, _SUFFIX = "open.ndjson", "rejected.ndjson", ".ndjson"


@dataclass(frozen=True, slots=True)
class FinishedFile:
    """A file of the spool that is no longer appended to."""

    path: Path
    number: int
    count: int  # lines in it


class Spool:
    """A folder of undelivered feedback; safe between threads, processes, and forks."""

    def __init__(self, folder: Path, *, limit: int) -> None:
        """Use `folder`, made if need be, for at most about `limit` bytes, rejected reports among them.

        Raises:
            SpoolFailed: the folder cannot be made or written.
        """
        self.folder, self._limit = folder, limit
        with self._disk():
            folder.mkdir(parents=True, exist_ok=True)
            for name in ("lock", "delivering"):
                os.close(os.open(folder / name, os.O_RDWR | os.O_CREAT, 0o600))

    def append(self, reports: Sequence[SentReport]) -> None:
        """Keep `reports`: when this returns, they survive the end of the process and a power cut.

        Raises:
            SpoolFull: they would exceed the limit; none of them is kept.
            SpoolFailed: the disk does not take them; none of them is kept.
        """
        lines = to_lines(reports)
        with self._disk(), self._locked():
            used = self.used()
            if used + len(lines) > self._limit:
                raise SpoolFull(str(self.folder), used, self._limit)
            size = _append(self.folder / _OPEN, lines)
            if size >= FILE_BYTES:
                self._finish()

    def waiting(self) -> bool:
        """Return whether anything is to be delivered."""
        with self._disk():
            return any(name.endswith(_SUFFIX) and name != _REJECTED for name in os.listdir(self.folder))

    def count(self) -> int:
        """Return how many reports wait to be delivered, those of other processes among them."""
        # Alone: while another thread finishes the open file, its reports would be in neither place.
        with self._disk(), self._locked():
            return sum(file.count for file in self._finished()) + _lines_in(self.folder / _OPEN)

    def used(self) -> int:
        """Return the bytes that the folder's files hold."""
        return sum(_size(self.folder / name) for name in os.listdir(self.folder))

    @contextmanager
    def delivering(self) -> Iterator[bool]:
        """Be the one who delivers; False where another thread or process does already."""
        self.folder.mkdir(parents=True, exist_ok=True)  # somebody may have taken it away meanwhile
        handle = os.open(self.folder / "delivering", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            mine = _try_lock(handle)
            try:
                yield mine
            finally:
                if mine:
                    fcntl.flock(handle, fcntl.LOCK_UN)
        finally:
            os.close(handle)

    def finish(self) -> list[FinishedFile]:
        """Finish the open file, so that it can be delivered, and return all finished ones, oldest first."""
        with self._disk(), self._locked():
            if (self.folder / _OPEN).exists():
                self._finish()
        return self._finished()

    def read(self, file: FinishedFile) -> SpoolContent:
        """Return what `file` holds."""
        with self._disk():
            return from_lines(file.path.read_bytes())

    def delivered(self, file: FinishedFile, set_aside: Sequence[SetAside]) -> None:
        """Remove `file`, of which all is delivered but what is `set_aside`; that is kept first.

        After a crash between the two, the same may be set aside once more.
        """
        with self._disk():
            if set_aside:
                _append(self.folder / _REJECTED, set_aside_lines(set_aside))
            file.path.unlink(missing_ok=True)

    def _finish(self) -> None:
        """Give the open file its number; to be called under the lock."""
        path = self.folder / _OPEN
        number = max((file.number for file in self._finished()), default=0) + 1
        path.rename(self.folder / f"{number:010d}-{_lines_in(path)}{_SUFFIX}")

    def _finished(self) -> list[FinishedFile]:
        found = []
        for name in os.listdir(self.folder):
            number, _, count = name.removesuffix(_SUFFIX).partition("-")
            if name.endswith(_SUFFIX) and number.isdigit() and count.isdigit():
                found.append(FinishedFile(self.folder / name, int(number), int(count)))
        return sorted(found, key=lambda file: file.number)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Alone among all threads and processes; held for a write and a sync at most.

        Each opens the file anew, so the lock keeps threads apart as well.
        """
        handle = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            try:
                yield
            finally:
                # Not left to close: a process that was forked meanwhile holds the same open file.
                fcntl.flock(handle, fcntl.LOCK_UN)
        finally:
            os.close(handle)

    @contextmanager
    def _disk(self) -> Iterator[None]:
        try:
            yield
        except SpoolFull:
            raise
        except OSError as error:
            raise SpoolFailed(str(self.folder), error.strerror or str(error)) from error


def _append(path: Path, lines: bytes) -> int:
    """Append whole lines and sync them; the new size. If that fails, the file is as it was."""
    new = not path.exists()
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        end = _cut_torn_line(handle)
        try:
            _write_all(handle, lines)
            os.fsync(handle)
        except OSError:
            os.ftruncate(handle, end)
            raise
    finally:
        os.close(handle)
    if new:
        _sync_folder(path.parent)
    return end + len(lines)


def _write_all(handle: int, content: bytes) -> None:
    left = memoryview(content)
    while left:
        left = left[os.write(handle, left) :]


def _cut_torn_line(handle: int) -> int:
    """Cut what a crash left of a line whose writer was never told that it is kept; the size after that."""
    size = os.fstat(handle).st_size
    if size == 0 or os.pread(handle, 1, size - 1) == b"\n":
        return size
    end = os.pread(handle, size, 0).rfind(b"\n") + 1
    os.ftruncate(handle, end)
    return end


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _try_lock(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:  # delivered since
        return 0


def _lines_in(path: Path) -> int:
    try:
        return path.read_bytes().count(b"\n")
    except FileNotFoundError:
        return 0
