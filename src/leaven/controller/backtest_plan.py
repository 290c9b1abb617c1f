"""When do a back-test's models end, and which windows are they asked about?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np

from leaven.errors import BadDefinition
from leaven.events.source import ExampleSource
from leaven.loop import Loop

_DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Plan:
    """When models end and windows begin."""

    ends: tuple[datetime, ...]  # of training data, ascending
    newest: datetime  # beginning of the newest window
    window: timedelta
    youngest: timedelta
    oldest: timedelta

    def windows_after(self, until: datetime) -> list[datetime]:
        """Beginnings of the windows that a model of this end is asked about, ascending."""
        count = int((self.newest - until - self.youngest) / self.window)
        starts = (self.newest - each * self.window for each in range(count, -1, -1))
        return [at for at in starts if until + self.youngest <= at <= until + self.oldest]


def planned(
    loop: Loop, source: ExampleSource, ages_days: Sequence[float], window: timedelta, models: int, end: datetime
) -> Plan:
    """Return when models end and windows begin; arguments and errors are those of `back_test`."""
    first = source.first()
    if first is None:
        raise BadDefinition("freshness", "there are no examples", "Import history: leaven events import.")
    youngest, oldest = timedelta(days=ages_days[0]), timedelta(days=ages_days[-1])
    newest = end - loop.label.window - window
    room = newest - youngest - first - _reach(loop, newest, first)
    # Windows that models of several ages answer must span three blocks of half of the oldest age, to say how sure.
    need = oldest * 7 / 4
    if room < need:
        days = math.ceil((end - first + need - room) / _DAY)
        raise BadDefinition(
            "freshness", f"{(end - first).days} days of examples are too few for models of {ages_days[-1]:g} days",
            f"{days} days are needed: bring more, or ask for younger --ages.",
        )  # fmt: skip
    apart = _apart(room, window, oldest, models, ages_days)
    count = min(models, int(room / apart) + 1)
    last = newest - youngest
    return Plan(tuple(last - i * apart for i in reversed(range(count))), newest, window, youngest, oldest)


def _apart(room: timedelta, window: timedelta, oldest: timedelta, models: int, ages_days: Sequence[float]) -> timedelta:
    """How far the ends of two neighbouring models lie apart."""
    unit = min(window, timedelta(days=float(np.diff(ages_days).min())))
    units = min(math.ceil(room / max(1, models - 1) / unit), int(oldest / 4 / unit))
    # Models that are whole windows apart would meet few ages; those that are weeks apart all end on one weekday.
    while units > 1 and (math.gcd(units, round(window / unit)) > 1 or not (units * unit) % (7 * _DAY)):
        units -= 1
    return max(1, units) * unit


def _reach(loop: Loop, until: datetime, first: datetime) -> timedelta:
    """How far back the loop's data goes; data that takes all there is may do with a third of it."""
    parts = loop.data.parts(until=until, first=first)
    start = min((part.span.start for part in parts), default=first)
    return (until - first) / 3 if start <= first else until - start
