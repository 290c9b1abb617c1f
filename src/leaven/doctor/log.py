"""Does what is logged get on into the lake?"""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from pathlib import Path

from leaven.doctor.finding import Examined, Subject
from leaven.doctor.parts import lives
from leaven.storage.writers import OPEN, QUARANTINE, SEALED, StoredWriter, backlog, stored_writers

_PATIENCE = 60.0  # seconds after which a sealed segment should have been flushed


def check_log(subject: Subject) -> Examined:
    """Look at the write-ahead log: what waits, since when, what dead writers left, what was set aside."""
    wal = subject.settings.wal
    waiting = backlog(wal)
    found = Examined(
        f"{waiting.segments} segments ({waiting.bytes / 2**20:,.1f} MiB) of {waiting.writers} writers, "
        f"{waiting.living} of them living"
    )
    flusher = lives(subject, "flusher")
    _check_waiting(subject, wal, found, flusher=flusher)
    for writer in stored_writers(wal):
        if writer.lives() or flusher:
            continue  # a flusher sees to the dead within a second
        if any(writer.segments(OPEN)):
            found.problem(
                "its process died and left a segment open",
                where=writer.path,
                mend="A flusher seals and takes it: leaven flusher.",
                act=partial(_sealed, writer),
            )
        elif not any(writer.segments(SEALED)):
            found.note(
                "its process is gone and all that it wrote is in the lake",
                where=writer.path,
                mend="Remove the folder.",
                act=partial(_removed, writer),
            )
    aside = sorted((wal / QUARANTINE).glob("*.jsonl"))
    if aside:
        found.note(
            f"{len(aside)} segments held what is no event; it was set aside, with the reason",
            where=aside[-1],
            mend="Look at it: each line is a JSON object. Remove the files when you have seen them.",
        )
    return found


def _check_waiting(subject: Subject, wal: Path, found: Examined, *, flusher: bool) -> None:
    ages: list[float] = []
    for segment in (segment for writer in stored_writers(wal) for segment in writer.segments(SEALED)):
        with suppress(FileNotFoundError):
            ages.append(subject.now / 1e6 - segment.path.stat().st_mtime)
    late = [age for age in ages if age > _PATIENCE + subject.settings.seal_seconds]
    if late:
        mend = (
            "The flusher does not keep up, or cannot: see its log."
            if flusher
            else "No flusher runs: start leaven up, or leaven flusher."
        )
        found.problem(
            f"{len(late)} sealed segments wait to be flushed, the oldest for {max(late):,.0f} s", where=wal, mend=mend
        )


def _sealed(writer: StoredWriter) -> str:
    with suppress(FileNotFoundError):  # a flusher that has just started was faster
        writer.seal_if_dead()
    return "sealed what it left; the next flusher takes it"


def _removed(writer: StoredWriter) -> str:
    if not writer.lives():
        writer.remove_if_empty()
    return "removed the folder"
