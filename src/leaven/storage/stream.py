"""Into which file do groups of frames go, and how does a writer come back after an error of the disk?

A writer has one folder and at most one open segment in it. After any error nothing more is written to that segment:
it is sealed as it is (what was acknowledged is in it) and `recover` proves that the disk takes and keeps bytes again
before a successor is begun. A folder that was removed or replaced under a living writer (a disk mounted anew) is not
written to again either: whoever finds its lock free takes the writer for dead. A new one is made.
"""

from __future__ import annotations

import errno
import time
from pathlib import Path

from leaven.storage.segment import SegmentFile
from leaven.storage.writers import WriterFolder

SYNC_SECONDS = 1.0  # that what nobody waits for may lie unsynced


class SegmentStream:
    """Where one writer writes; used by one thread alone, but for `set_pending`."""

    def __init__(self, wal: Path, writer: str, *, synced: bool, seal_seconds: float, seal_bytes: int) -> None:
        """Name a stream; nothing is written to before `recover` has succeeded."""
        self._wal, self._writer, self._synced = wal, writer, synced
        self._seal_seconds, self._seal_bytes = seal_seconds, seal_bytes
        self._folder: WriterFolder | None = None
        self._folders = 0
        self._segment: SegmentFile | None = None
        self._number = 0
        self._synced_at = 0.0

    @property
    def begun(self) -> bool:
        """Whether a segment is open, or waits to be sealed."""
        return self._segment is not None

    def set_pending(self, oldest: int) -> None:
        """Say which moment the oldest event has that is in no sealed segment; 0 for none."""
        if self._folder is not None:
            self._folder.set_pending(oldest)

    def write(self, frames: bytes) -> None:
        """Append frames to the open segment, or to a new one: they survive the end of this process.

        Raises:
            OSError: none of them can be relied on; `recover` before the next.
        """
        if self._segment is None:
            if self._folder is None or not self._folder.stands():
                raise OSError(errno.ESTALE, "the folder was removed or replaced under its living writer", self._where())
            self._number += 1
            self._segment = SegmentFile(self._folder.path, self._number, synced=self._synced)
            self._synced_at = time.monotonic()
        self._segment.write(frames)

    def sync(self) -> None:
        """Make everything written survive a power cut.

        Raises:
            OSError: nobody knows what of it does; `recover` before the next.
        """
        if self._segment is not None:
            self._segment.sync()
            self._synced_at = time.monotonic()

    def seal(self, oldest: int) -> None:
        """Hand the open segment on, with the moment of its oldest event.

        Raises:
            OSError: it has not got its name yet; `recover` tries again, and nothing is written before.
        """
        if self._segment is not None:
            self._segment.seal(oldest)
            self._segment = None

    def recover(self, oldest: int) -> None:
        """Seal what was given up, and prove that the disk can be written to.

        Raises:
            OSError: it cannot.
        """
        if self._folder is not None and not self._folder.stands():
            self.close()
        if self._folder is None:
            self._folders += 1
            name = self._writer if self._folders == 1 else f"{self._writer}-{self._folders}"
            try:
                self._folder = WriterFolder(self._wal, name, synced=self._synced)
            except OSError:
                self._folders -= 1
                raise
        self.seal(oldest)
        self._folder.probe()

    def seal_at(self) -> float:
        """When the open segment is due to be sealed; never, where there is none."""
        if self._segment is None:
            return float("inf")
        return 0.0 if self._segment.size >= self._seal_bytes else self._segment.born + self._seal_seconds

    def sync_at(self) -> float:
        """When what was written is due to be synced; never, where everything is."""
        if self._segment is None or not self._segment.unsynced:
            return float("inf")
        return self._synced_at + SYNC_SECONDS

    def close(self) -> None:
        """Give the folder's lock back: from now on this writer counts as dead, and what is open as finished."""
        if self._segment is not None:
            self._segment.abandon()
            self._segment = None
        if self._folder is not None:
            self._folder.close()
            self._folder = None

    def _where(self) -> str:
        return str(self._wal / self._writer)
