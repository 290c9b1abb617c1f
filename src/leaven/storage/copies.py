"""Which files of a bucket are here already, and which of them can go?

The files that are copied never change under their names, so a copy is as good as the file. A copy that was not used
for a day goes: rows that were erased in the bucket do not live on here. What was used within the last hour is never
taken away, since somebody may be reading it; so a query may for that time need more room than the copies are allowed.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock

IN_USE_SECONDS = 3_600.0
UNUSED_SECONDS = 86_400.0
_TRIM_SECONDS = 60.0  # between two looks at what can go
_AT_ONCE = 8  # files that are fetched side by side

Fetch = Callable[[str, Path], None]  # put the file of this name at this path


@dataclass(slots=True)
class Copies:
    """Local copies of files that never change, in a folder that processes may share; safe to use from threads.

    Args:
        folder: Where the copies are.
        megabytes: How much room they may take, but for what is in use.
        wall: Tells real time in seconds.
    """

    folder: Path
    megabytes: int
    wall: Callable[[], float] = time.time
    _trimmed: float = 0.0
    _turn: Lock = field(default_factory=Lock)

    def paths(self, names: Mapping[str, int], fetch: Fetch) -> list[Path]:
        """Return the paths of copies of these files, given their sizes; `fetch` gets those that are not here."""
        paths = [self.folder / name for name in names]
        missing = [name for name, path in zip(names, paths, strict=True) if not self._use(path, names[name])]
        if missing:
            with ThreadPoolExecutor(min(_AT_ONCE, len(missing))) as pool:
                list(pool.map(lambda name: self._get(name, fetch), missing))
        self._trim_when_due()
        return paths

    def forget(self, name: str) -> None:
        """Drop a copy, if it is here."""
        (self.folder / name).unlink(missing_ok=True)

    def _use(self, path: Path, size: int) -> bool:
        """Whether a whole copy is here; it counts as used now."""
        try:
            if path.stat().st_size != size:  # a power cut may have left less of it
                return False
            os.utime(path, (self.wall(),) * 2)
        except FileNotFoundError:
            return False
        return True

    def _get(self, name: str, fetch: Fetch) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        being_written = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
        try:
            fetch(name, being_written)
            os.utime(being_written, (self.wall(),) * 2)
            being_written.replace(path)
        finally:
            being_written.unlink(missing_ok=True)

    def _trim_when_due(self) -> None:
        with self._turn:
            if abs(self.wall() - self._trimmed) < _TRIM_SECONDS:
                return
            self._trimmed = self.wall()
        self.trim()

    def trim(self) -> None:
        """Remove what was not used for a day, and then the longest unused while there is too much."""
        kept: list[tuple[float, int, Path]] = []  # when last used, bytes
        for path in self.folder.rglob("*"):
            with suppress(FileNotFoundError):
                if path.is_file():
                    stat = path.stat()
                    kept.append((stat.st_mtime, stat.st_size, path))
        now, room = self.wall(), self.megabytes * 2**20 - sum(size for _, size, _ in kept)
        for used, size, path in sorted(kept):
            unused = now - used
            if unused > UNUSED_SECONDS or (room < 0 and unused > IN_USE_SECONDS):
                path.unlink(missing_ok=True)
                room += size
