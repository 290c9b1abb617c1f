"""Who reads from the lake on this machine, and since when?

A file in a folder for each read that is under way, locked for as long as it lasts: a process that was killed holds no
lock. Files of the lake that left it after the oldest of these reads began are not removed.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_NEWBORN_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Readers:
    """The reads that are under way, of every process that shares `folder`."""

    folder: Path
    wall: Callable[[], float] = time.time  # tells real time in seconds

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Read in here: from before a version is looked up until its files are no longer needed."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self.folder / f"{os.getpid()}-{secrets.token_hex(6)}"
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_SH)
            yield
        finally:
            path.unlink(missing_ok=True)
            os.close(handle)

    def oldest(self) -> float | None:
        """Return when the oldest read that is under way began, in seconds since the epoch; None if there is none."""
        if not self.folder.is_dir():
            return None
        began = [self._began(path) for path in self.folder.iterdir()]
        return min((moment for moment in began if moment is not None), default=None)

    def _began(self, path: Path) -> float | None:
        try:
            handle = os.open(path, os.O_RDONLY)
        except FileNotFoundError:
            return None  # it has just ended
        try:
            moment = os.fstat(handle).st_mtime
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return moment
        else:
            # Nobody holds it: its process was killed, or has only just made it and is about to lock it.
            if self.wall() - moment < _NEWBORN_SECONDS:
                return moment
            path.unlink(missing_ok=True)
            return None
        finally:
            os.close(handle)
