"""How does one segment come to be, and when is it safe?"""

from __future__ import annotations

import errno
import os
import time
from contextlib import suppress
from pathlib import Path

from leaven.storage.frames import HEADER, MAGIC
from leaven.storage.place import sync_path
from leaven.storage.writers import OPEN, SEALED


class SegmentFile:
    """The segment that a writer appends to; used by the writer's one thread alone."""

    def __init__(self, folder: Path, number: int, *, synced: bool) -> None:
        """Create segment `number`; with `synced`, `sync` reaches the disk and the file's name does too.

        Raises:
            OSError: the file system refuses.
        """
        self._path = folder / f"{number:010d}{OPEN}"
        self._synced = synced
        self._handle = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        self.size = 0
        self.born = time.monotonic()
        self.unsynced = False
        try:
            self.write(HEADER.pack(MAGIC, 0))
            if synced:
                sync_path(folder)
        except OSError:
            os.close(self._handle)
            with suppress(OSError):  # best effort: what is left holds no event, and its number is not used again
                self._path.unlink()
            raise

    def write(self, frames: bytes) -> None:
        """Append `frames`: they survive the end of this process.

        Raises:
            OSError: none of them is there, or a part where even that could not be undone; the segment must be given up.
        """
        view = memoryview(frames)
        try:
            while view:
                view = view[os.write(self._handle, view) :]
        except OSError:
            self._take_back(self.size)
            raise
        self.size += len(frames)
        self.unsynced = True

    def sync(self) -> None:
        """Make everything written survive a power cut.

        Raises:
            OSError: nobody knows what was kept since the last sync; the segment must be given up.
        """
        if os.fstat(self._handle).st_nlink == 0:
            raise OSError(errno.ESTALE, "the segment was removed while it was written to", str(self._path))
        if self._synced and self.unsynced:
            os.fdatasync(self._handle)
        self.unsynced = False

    def seal(self, oldest: int) -> None:
        """Finish the segment: note the moment of its oldest event, sync, and give it its final name.

        A segment that had to be given up is sealed as well: what was acknowledged is in it, and its end is torn.

        Raises:
            OSError: it has not got its name yet; sealing can be tried again.
        """
        if self._handle >= 0:
            # A disk that is full or broken must not keep the name from changing: the note and the sync of events that
            # nobody waited for are then left out.
            with suppress(OSError):
                os.pwrite(self._handle, HEADER.pack(MAGIC, oldest), 0)
                self.unsynced = True
                self.sync()
            os.close(self._handle)
            self._handle = -1
        with suppress(FileNotFoundError):  # renamed before, by a try that then failed; or somebody removed it
            self._path.rename(self._path.with_suffix(SEALED))
        if self._synced:
            sync_path(self._path.parent)

    def abandon(self) -> None:
        """Close the file and leave it as it is."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1

    def _take_back(self, size: int) -> None:
        """Cut off what was written in part: its senders are told that it is not there."""
        with suppress(OSError):
            os.ftruncate(self._handle, size)
            os.lseek(self._handle, size, os.SEEK_SET)
