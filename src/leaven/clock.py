"""What time is it, for a loop?

A process asks one clock. In production that is the machine's; where history is streamed through a running system
(`leaven demo`, the tests) it is a file that the sender moves forward, so that a week passes in seconds for every
process alike. Nothing else in Leaven reads the time.
"""

from __future__ import annotations

import mmap
import struct
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from leaven.duration import instant, micros


class Clock(Protocol):
    """Tells the present moment."""

    def now(self) -> datetime:
        """Return the present moment, aware and in UTC; never earlier than what was returned before."""
        ...

    def micros(self) -> int:
        """Return the present moment as microseconds since the Unix epoch."""
        ...


class SystemClock:
    """The machine's own clock."""

    def now(self) -> datetime:
        """Return the machine's time in UTC."""
        return datetime.now(UTC)

    def micros(self) -> int:
        """Return the machine's time as microseconds since the Unix epoch."""
        return time.time_ns() // 1000


class FileClock:
    """A clock that stands still until somebody sets it; every process that maps the same file reads the same time."""

    def __init__(self, path: Path) -> None:
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(struct.pack("<q", 0))
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), 8)  # keeps a descriptor of its own

    def now(self) -> datetime:
        """Return the time that was last set, in UTC."""
        return instant(self.micros())

    def micros(self) -> int:
        """Return the time that was last set, as microseconds since the Unix epoch."""
        return int(struct.unpack("<q", self._map[:8])[0])

    def set(self, now: datetime) -> None:
        """Move the clock to `now` for every process that reads it.

        An aligned eight-byte store is seen whole or not at all, so no reader sees half a time.
        """
        self._map[:8] = struct.pack("<q", micros(now))

    def close(self) -> None:
        """Give the file back."""
        self._map.close()


def clock_from(setting: str) -> Clock:
    """Return the clock that the setting `LEAVEN_CLOCK` names: `system`, or `file:PATH`."""
    return FileClock(Path(setting.removeprefix("file:"))) if setting.startswith("file:") else SystemClock()
