"""Does this file system do what the log and the database rely on, and what lies about on it?"""

from __future__ import annotations

import fcntl
import mmap
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from leaven.settings import Settings

_STALE_SECONDS = 3600.0


class Unfit(Exception):  # turned into a finding by the check that asked
    """A file system does not do what is needed."""

    def __init__(self, what: str, mend: str) -> None:
        super().__init__(what)
        self.mend = mend


def probe(folder: Path) -> float:
    """Try out in `folder`, on files of our own, what Leaven needs; return how long a sync of 4 KiB takes, in seconds.

    Raises:
        Unfit: it cannot be written to, or a sync, a lock, a renaming or a shared mapping does not work.
    """
    try:
        trial = Path(tempfile.mkdtemp(prefix=".doctor-", dir=folder))
    except OSError as error:
        raise Unfit(
            f"nothing can be written ({error.strerror})", "Mount it for writing, or give this user the right to write."
        ) from error
    try:
        _try_renaming(trial)
        _try_locks(trial)
        _try_mapping(trial)
        return _try_sync(trial)
    except OSError as error:
        raise Unfit(str(error), "Name a home on a local file system such as ext4 or XFS.") from error
    finally:
        for path in trial.iterdir():
            path.unlink()
        trial.rmdir()


def kind_of(path: Path) -> str:
    """Return the kind of file system that `path` is on, such as ext4; "unknown" where the system does not tell."""
    try:
        lines = Path("/proc/self/mountinfo").read_text().splitlines()
    except OSError:
        return "unknown"
    place, best, kind = path.resolve(), -1, "unknown"
    for line in lines:
        before, _, after = line.partition(" - ")
        mounted = Path(before.split()[4].encode().decode("unicode_escape"))
        if place.is_relative_to(mounted) and len(mounted.parts) >= best:
            best, kind = len(mounted.parts), after.split()[0]
    return kind


def leftovers(settings: Settings, *, now: float) -> Iterator[Path]:
    """Yield what killed processes left behind and nobody will use; `now` in seconds since the Unix epoch.

    Files that somebody may still be writing are older than an hour, and spill folders belong to a process that is gone.
    """
    home = settings.home
    for pattern in (
        "artifacts/*/.writing-*",
        "run/tables/*.[0-9]*",
        "run/parts/*.new",
        "run/backup-*",
        "wal/.quarantine/*.new",
        ".doctor-*",
        ".restoring",
    ):
        yield from (path for path in sorted(home.glob(pattern)) if _age(path, now) > _STALE_SECONDS)
    yield from (path for path in sorted(home.parent.glob(f".{home.name}.*.part")) if _age(path, now) > _STALE_SECONDS)
    if "://" not in settings.lake:
        lake = Path(settings.lake)
        tmp = (path for path in sorted(lake.glob("*/*/_delta_log/*.tmp*")) if _age(path, now) > _STALE_SECONDS)
        yield from tmp
        yield from (path for path in sorted(lake.glob(".spill/*-*")) if not _lives(path.name.split("-")[0]))
    yield from (path for path in sorted((settings.run / "lake").glob("*-*")) if not _lives(path.name.split("-")[0]))


def _try_sync(folder: Path) -> float:
    path, took = folder / "synced", []
    with path.open("wb") as file:
        for _ in range(3):
            file.write(os.urandom(4096))
            file.flush()
            began = time.perf_counter()
            os.fdatasync(file.fileno())
            took.append(time.perf_counter() - began)
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
    return sorted(took)[1]


def _try_renaming(folder: Path) -> None:
    (folder / "old").write_bytes(b"old")
    (folder / "new").write_bytes(b"new")
    (folder / "new").replace(folder / "old")
    if (folder / "old").read_bytes() != b"new" or (folder / "new").exists():
        raise Unfit("a file does not replace another one whole", "Name a home on a local file system.")


def _try_locks(folder: Path) -> None:
    path = folder / "lock"
    path.touch()
    with path.open("r+b") as one, path.open("r+b") as other:
        fcntl.flock(one, fcntl.LOCK_EX | fcntl.LOCK_NB)
        try:
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
    raise Unfit("two can hold one lock", "Name a home on a local file system, or mount it with locks.")


def _try_mapping(folder: Path) -> None:
    path = folder / "mapped"
    path.write_bytes(bytes(8))
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 8) as shared:
        shared[:8] = b"12345678"
        if path.read_bytes() != b"12345678":
            raise Unfit("what is written to a mapped file is not seen by others", "Name a home on a local file system.")


def _age(path: Path, now: float) -> float:
    with suppress(OSError):
        return now - path.lstat().st_mtime
    return 0.0


def _lives(pid: str) -> bool:
    return not pid.isdigit() or Path(f"/proc/{pid}").exists()
