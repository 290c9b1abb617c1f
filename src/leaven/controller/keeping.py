"""Which units are to be erased now, and which days have grown too old?

Asked by the flusher, under its lease, after each of its rounds. What is decided follows from the database, the tables
and the time; killed at any moment, the next round does what is left.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta

import msgspec

from leaven.app import App
from leaven.clock import SystemClock
from leaven.controller import state
from leaven.duration import duration, instant, micros
from leaven.errors import BadDefinition
from leaven.registry import erasures
from leaven.registry.erasures import ErasureRecord
from leaven.storage.erasing import Unit, drop_days, erase_units
from leaven.storage.quarantine import take_out

ASK_MICROS = 2_000_000  # between two looks at the database
LOOK_MICROS = 3_600_000_000  # between two looks at the oldest days

_log = logging.getLogger("leaven.flusher")


@dataclass
class Keeping:
    """Erases units and drops old days, when that is due."""

    app: App
    hold: Callable[[], bool]
    wall: Callable[[], int] = field(default=SystemClock().micros)  # real time, micros
    _asked: int = 0
    _looked: int = 0

    def tend(self) -> None:
        """Do what is due; cheap where nothing is."""
        now = self.wall()
        if now >= self._asked + ASK_MICROS:
            self._asked = now
            self.erase_due()
        if now >= self._looked + LOOK_MICROS:
            self._looked = now
            self.drop_old()

    # Erasure

    def erase_due(self) -> None:
        """Erase what is due, with everything else that was asked for of the same loop; end what is done."""
        # What can be read by now is what the round will find: a round that begins after the grace is the last one.
        now, readable = self.app.clock.micros(), micros(self.app.watermark())
        with self.app.database.read() as connection:
            waiting = erasures.open_erasures(connection)
        for loop in dict.fromkeys(each.loop for each in waiting):
            mine = [each for each in waiting if each.loop == loop]
            open_ones = [each for each in mine if not _was_last(each)]
            if any(_is_due(each, now=now, readable=readable) for each in open_ones):
                self._erase(loop, open_ones, now=now, readable=readable)
            ended = [each for each in mine if _was_last(each)]
            if ended:
                self._end(loop, ended, now=now)

    def _erase(self, loop: str, asked: Sequence[ErasureRecord], *, now: int, readable: int) -> None:
        units = [Unit(each.id, each.unit, each.salt, each.feedback_mark) for each in asked if each.unit and each.salt]
        done = erase_units(self.app.lake, loop, units, at=now, hold=self.hold)
        take_out(self.app.settings.wal, [each.unit for each in units])
        rewritten = self.wall()
        with self.app.database.write() as connection:
            current = {each.id: each for each in erasures.open_erasures(connection, loop)}
            for known in asked:
                predictions, feedback = done.rows[known.id]
                again = current[known.id] != known  # it was asked for anew meanwhile
                changed = msgspec.structs.replace(
                    current[known.id], state="requested" if again else "rewritten", predictions=predictions,
                    feedback=feedback, feedback_mark=done.feedback_mark, rewritten_at=rewritten,
                    last=not again and readable >= known.grace_until,
                )  # fmt: skip
                erasures.save(connection, changed)
                _log.info("erasure %s: %d predictions, %d pieces of feedback so far", known.id, predictions, feedback)

    def _end(self, loop: str, ended: Sequence[ErasureRecord], *, now: int) -> None:
        """End erasures of which no file holds anything any more."""
        swept = self._sweep(loop, ended)
        for each in ended:
            rewritten = each.rewritten_at or 0
            if rewritten <= swept or not self.app.lake.superseded(loop, until=rewritten / 1e6):
                gone = msgspec.structs.replace(each, state="done", unit=None, salt=None, done_at=now)
                with self.app.database.write() as connection:
                    erasures.save(connection, gone)
                _log.info("erasure %s is done", each.id)

    def _sweep(self, loop: str, ended: Sequence[ErasureRecord]) -> int:
        """Delete superseded files where that helps; return the moment before which none of them is left."""
        kept = self.app.lake.hours_to_keep(self.keep_hours) * 3_600_000_000
        now = self.wall()
        if not any((each.rewritten_at or 0) <= now - kept for each in ended):
            return 0
        self.app.lake.vacuum(loop, hours=self.keep_hours)
        return now - kept

    @property
    def keep_hours(self) -> float:
        """How long superseded files are kept."""
        return duration(self.app.settings.keep_files, where="LEAVEN_KEEP_FILES") / timedelta(hours=1)

    # Retention

    def drop_old(self) -> dict[str, int]:
        """Drop the days that are older than the settings keep; return how many rows went, by loop."""
        gone: dict[str, int] = {}
        for loop in self.app.lake.loops():
            before = self._first_kept(loop)
            if before is None:
                continue
            now = self.app.clock.micros()
            rows = drop_days(self.app.lake, loop, before=before, at=now, hold=self.hold)
            if rows:
                gone[loop] = rows
                _log.info(
                    "%s: %d rows from before %s are older than LEAVEN_KEEP_DAYS and were dropped", loop, rows, before
                )
        return gone

    def _first_kept(self, loop: str) -> date | None:
        """The first day that is kept, or None where none goes now: what an open trial or refresh reads stays."""
        kept = days_kept(self.app.settings.keep_days, loop)
        if kept is None:
            return None
        first = (self.app.clock.now() - timedelta(days=kept)).date()
        with self.app.database.read() as connection:
            refresh, trial = state.active_refresh(connection, loop), state.active_trial(connection, loop)
        if refresh is not None and refresh.state != "proving":
            return None  # it ends soon, and reads its snapshot until then
        return first if trial is None else min(first, instant(trial.opened_at).date())


def _is_due(asked: ErasureRecord, *, now: int, readable: int) -> bool:
    if asked.state == "requested":
        return now >= asked.due_at
    return not asked.last and readable >= asked.grace_until


def _was_last(asked: ErasureRecord) -> bool:
    return asked.state == "rewritten" and asked.last


def days_kept(setting: str, loop: str) -> int | None:
    """Return how many days of a loop are kept, or None for all.

    The setting is a number of days, or `forever`, for every loop, and after a comma `LOOP=DAYS` for one:
    "400,clicks=30,loans=forever". Nothing at all keeps everything.

    Raises:
        BadDefinition: it is none of these.
    """
    found = "forever"
    for part in filter(None, (part.strip() for part in setting.split(","))):
        name, is_one, days = part.rpartition("=")
        if not (days == "forever" or (days.isdecimal() and int(days) > 0)) or (is_one and not name):
            raise BadDefinition("LEAVEN_KEEP_DAYS", f"{part!r} is no number of days",
                                'Write "400", or "400,clicks=30,loans=forever".')  # fmt: skip
        if not is_one:
            found = days
    for part in setting.split(","):
        name, _, days = part.strip().rpartition("=")
        if name == loop and name:
            found = days
    return None if found == "forever" else int(found)
