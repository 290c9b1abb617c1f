"""Which processes of this installation live on this machine?

Each writes a small file and holds a lock on it for as long as it lives, so a file without a lock was left by one that
was killed, whoever has its process id by now.
"""

from __future__ import annotations

import fcntl
import os
import platform
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec

from leaven import __version__

_FOLDER = "parts"


class PartFacts(msgspec.Struct, frozen=True):
    """What a process says of itself."""

    part: str  # gateway, gateway worker, flusher, controller
    pid: int
    started_at: int  # micros of the machine's clock
    leaven: str
    python: str
    url: str | None = None  # where it answers


@dataclass(frozen=True, slots=True)
class StoredPart:
    """A file that a process wrote."""

    path: Path
    facts: PartFacts
    lives: bool


@contextmanager
def announced(run: Path, part: str, *, at: int, url: str | None = None) -> Iterator[None]:
    """Say in the folder `run`, for as long as the block runs, that this process is a `part`, started at `at`."""
    folder = run / _FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{part.replace(' ', '-')}-{os.getpid()}-{secrets.token_hex(4)}.json"
    facts = PartFacts(part, os.getpid(), at, __version__, platform.python_version(), url)
    # Locked before it has its name: nobody must take a newborn one for a dead one.
    being_made = path.with_suffix(".new")
    with being_made.open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        file.write(msgspec.json.encode(facts))
        file.flush()
        being_made.rename(path)
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def stored_parts(run: Path) -> list[StoredPart]:
    """Return what is known of processes of this machine, living or not, by part and process id."""
    found: list[StoredPart] = []
    for path in sorted((run / _FOLDER).glob("*.json")):
        try:
            with path.open("rb") as file:
                facts = msgspec.json.decode(file.read(), type=PartFacts)
                found.append(StoredPart(path, facts, not _is_free(file.fileno())))
        except FileNotFoundError:
            continue  # it has just ended
        except msgspec.MsgspecError:
            found.append(StoredPart(path, PartFacts("unknown", 0, 0, "", ""), lives=False))
    return found


def _is_free(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
