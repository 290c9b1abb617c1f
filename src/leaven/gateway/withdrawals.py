"""Which loops are out of service in this home, because somebody said so?

One small file per loop in a folder that every worker looks at, so that a word to one worker reaches all of them, and
holds after a restart.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

import msgspec


class Withdrawal(msgspec.Struct, frozen=True):
    """A loop that was taken out of service."""

    loop: str
    versions: tuple[str, ...]  # that served, or stood by, then
    at: int  # microseconds since the Unix epoch
    classes: tuple[str, ...] = ()  # of its label: feedback goes on, and may name one


class Withdrawals:
    """The folder of withdrawals; any thread or process may use it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._read: dict[str, tuple[int, Withdrawal]] = {}  # file name -> its time, what it says

    def all(self) -> dict[str, Withdrawal]:
        """Return the withdrawals that hold now, by loop. A file that cannot be read holds no loop back."""
        try:
            entries = [entry for entry in os.scandir(self._folder) if entry.name.endswith(".json")]
        except FileNotFoundError:
            return {}
        read: dict[str, tuple[int, Withdrawal]] = {}
        for entry in entries:
            try:
                changed = entry.stat().st_mtime_ns
                known = self._read.get(entry.name)
                if known is None or known[0] != changed:
                    known = (changed, msgspec.json.decode(Path(entry.path).read_bytes(), type=Withdrawal))
            except (OSError, msgspec.DecodeError):
                continue
            read[entry.name] = known
        self._read = read
        return {withdrawal.loop: withdrawal for _, withdrawal in read.values()}

    def add(self, loop: str, versions: Sequence[str], *, at: int, classes: Sequence[str] = ()) -> Withdrawal:
        """Take a loop out of service, everywhere in this home.

        Raises:
            OSError: the file cannot be written; nothing has changed.
        """
        withdrawal = Withdrawal(loop, tuple(versions), at, tuple(classes))
        path = self._path(loop)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(f".{os.getpid()}")
        temporary.write_bytes(msgspec.json.encode(withdrawal))
        temporary.replace(path)
        return withdrawal

    def remove(self, loop: str) -> None:
        """Let a loop be served again."""
        self._path(loop).unlink(missing_ok=True)

    def _path(self, loop: str) -> Path:
        return self._folder / f"{quote(loop, safe='')}.json"
