"""Which processes write to this log, which of them live, and up to when can everything be read?

A log is a folder with one folder per writing process in it:

    <wal>/<writer>/lock                 locked by the writer for as long as it lives
    <wal>/<writer>/pending              eight bytes: moment of its oldest event that is in no sealed segment, 0 if none
    <wal>/<writer>/probe                there for a moment, when the disk is tried after an error
    <wal>/<writer>/0000000007.open      the segment being written
    <wal>/<writer>/0000000006.sealed    finished, waiting for the flusher, who removes it once the lake has it
    <wal>/.quarantine/                  what was found in segments and is no event, with the reason
"""

from __future__ import annotations

import fcntl
import mmap
import os
import shutil
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from leaven.duration import instant, micros
from leaven.storage.frames import HEADER, MAGIC, decode_segment, moment
from leaven.storage.place import sync_path

OPEN, SEALED = ".open", ".sealed"
QUARANTINE = ".quarantine"

_MOMENT = struct.Struct("<q")
_PROBE_BYTES = 256 * 1024


class WriterFolder:
    """The folder of one living writer; to be closed."""

    def __init__(self, wal: Path, writer: str, *, synced: bool) -> None:
        """Make the folder of `writer` and take its lock; with `synced`, the folder survives a power cut.

        Raises:
            OSError: it cannot be made; nothing is left of it where that can be helped.
        """
        wal.mkdir(parents=True, exist_ok=True)
        # It appears under its name only when it is locked: nobody must take a newborn writer for a dead one.
        being_made, self.path = wal / f".{writer}", wal / writer
        being_made.mkdir()
        self._lock = os.open(being_made / "lock", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            (being_made / "pending").write_bytes(_MOMENT.pack(0))
            with (being_made / "pending").open("r+b") as file:
                os.fsync(file.fileno())  # it has its block: a disk that fills up later cannot take it back
                self._pending = mmap.mmap(file.fileno(), _MOMENT.size)
            being_made.rename(self.path)
            if synced:
                sync_path(self.path)
                sync_path(wal)
        except OSError:
            os.close(self._lock)
            for made in (being_made, self.path):
                shutil.rmtree(made, ignore_errors=True)
            raise

    def set_pending(self, oldest: int) -> None:
        """Say which moment the oldest event has that is in no sealed segment; 0 for none.

        An aligned eight-byte store is seen whole or not at all, by every process.
        """
        self._pending[:] = _MOMENT.pack(oldest)

    def stands(self) -> bool:
        """Whether the folder is still the one that this writer holds the lock of: not removed, nor another disk's."""
        try:
            found = os.stat(self.path / "lock")
        except FileNotFoundError:
            return False
        return os.path.samestat(found, os.fstat(self._lock))

    def probe(self) -> None:
        """Write, sync and remove some bytes.

        Raises:
            OSError: the disk does not take them.
        """
        path = self.path / "probe"
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        try:
            view = memoryview(bytes(_PROBE_BYTES))
            while view:
                view = view[os.write(handle, view) :]
            os.fdatasync(handle)
        finally:
            os.close(handle)
            path.unlink()

    def close(self) -> None:
        """Give the lock back: from now on this writer counts as dead."""
        self._pending.close()
        os.close(self._lock)


@dataclass(frozen=True, slots=True)
class StoredSegment:
    """A segment as it lies in a writer's folder."""

    writer: str
    number: int
    path: Path

    def oldest(self) -> int | None:
        """Return the moment of its oldest event in microseconds; None for a segment that is gone or holds none."""
        try:
            with self.path.open("rb") as file:
                head = file.read(HEADER.size)
                if len(head) < HEADER.size or not head.startswith(MAGIC):
                    return None
                noted = int(HEADER.unpack(head)[1])
                if noted:
                    return noted
                events = decode_segment(head + file.read()).events
        except FileNotFoundError:
            return None  # the flusher was here in between: what it held can be read
        return min(map(moment, events), default=None)


@dataclass(frozen=True, slots=True)
class StoredWriter:
    """A writer's folder, seen from outside."""

    path: Path

    @property
    def id(self) -> str:
        """The writer's name, unique to one start of one process."""
        return self.path.name

    def lives(self) -> bool:
        """Whether the process still holds its lock."""
        with _try_lock(self.path) as free:
            return not free

    def pending(self) -> int:
        """Return the moment of its oldest event that is in no sealed segment; 0 if there is none."""
        try:
            content = (self.path / "pending").read_bytes()
        except FileNotFoundError:
            return 0
        return int(_MOMENT.unpack(content)[0]) if len(content) == _MOMENT.size else 0

    def segments(self, suffix: str) -> list[StoredSegment]:
        """Return its segments that are `OPEN` or `SEALED`, in the order in which they were written."""
        try:
            names = sorted(name for name in os.listdir(self.path) if name.endswith(suffix))
        except FileNotFoundError:
            return []
        return [StoredSegment(self.id, int(name.split(".")[0]), self.path / name) for name in names]

    def seal_if_dead(self) -> bool:
        """Seal what a dead writer left open; return whether it is dead.

        The end of the last segment may be torn; whoever reads it cuts that off.
        """
        with _try_lock(self.path) as free:
            if not free:
                return False
            for segment in self.segments(OPEN):
                segment.path.rename(segment.path.with_suffix(SEALED))
            return True

    def remove_if_empty(self) -> None:
        """Remove the folder of a dead writer that has no segments left."""
        if any(self.segments(SEALED)) or any(self.segments(OPEN)):
            return
        for name in ("probe", "pending", "lock"):
            (self.path / name).unlink(missing_ok=True)
        with suppress(FileNotFoundError):
            self.path.rmdir()


@dataclass(frozen=True, slots=True)
class Backlog:
    """How much the log holds that the lake does not have yet."""

    writers: int
    living: int
    segments: int
    bytes: int


def stored_writers(wal: Path) -> list[StoredWriter]:
    """Return all writers that have a folder in the log, by name."""
    if not wal.is_dir():
        return []
    return [StoredWriter(path) for path in sorted(wal.iterdir()) if path.is_dir() and not path.name.startswith(".")]


def is_logged(wal: Path, writer: str, segment: int) -> bool:
    """Return whether the log still has this segment of this writer."""
    return any((wal / writer / f"{segment:010d}{suffix}").exists() for suffix in (SEALED, OPEN))


def watermark(wal: Path, now: datetime) -> datetime:
    """Return the moment up to which every event that was logged can be read from the lake.

    A writer that has nothing unread does not hold it back, so an idle log's watermark is `now`.

    Args:
        wal: Folder of the log.
        now: The moment up to which every event has been handed to the log; see `leaven.storage.horizon`.
    """
    until = micros(now)
    for writer in stored_writers(wal):
        # Pending first: a segment that is sealed after this look is still covered by the moment read here. And open
        # before sealed: one that the flusher seals in between is then seen under its new name.
        pending, lives = writer.pending(), writer.lives()
        if pending and lives:
            until = min(until, pending - 1)
        for suffix in (SEALED,) if lives else (OPEN, SEALED):
            oldest = [segment.oldest() for segment in writer.segments(suffix)]
            until = min([until, *(at - 1 for at in oldest if at is not None)])
    return instant(until)


def backlog(wal: Path) -> Backlog:
    """Return how much the log holds that the lake does not have yet."""
    writers = stored_writers(wal)
    sizes: list[int] = []
    for segment in (each for writer in writers for suffix in (SEALED, OPEN) for each in writer.segments(suffix)):
        with suppress(FileNotFoundError):
            sizes.append(segment.path.stat().st_size)
    return Backlog(len(writers), sum(writer.lives() for writer in writers), len(sizes), sum(sizes))


@contextmanager
def _try_lock(folder: Path) -> Iterator[bool]:
    """Whether nobody holds the writer's lock; shared, so that two who look do not see each other."""
    try:
        handle = os.open(folder / "lock", os.O_RDONLY)
    except FileNotFoundError:
        yield True
        return
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        free = True
    except BlockingIOError:
        free = False
    try:
        yield free
    finally:
        os.close(handle)
