"""How many different units come within so many days?

Units come back, so their number grows ever more slowly: twice the days bring less than twice the units. What was seen
is counted; what comes after lies between two curves, one that is too low and one that is too high.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import msgspec
import numpy as np
from numpy.typing import ArrayLike

from leaven.errors import BadDefinition

MOST_DAYS = 3_650  # what is not there after ten years never comes


class UnitCurve(msgspec.Struct, frozen=True):
    """Different units by day, as seen, and as few numbers as the rest follows from."""

    seen: tuple[int, ...]  # different units up to the end of day 1, 2, …; whole days
    once: int  # units that came on a single day
    twice: int  # units that came on two days

    def low(self, day: float) -> float:
        """Return a number of units that is hardly too high: as if only units of the kind seen were left to come.

        Source:
            Chao2, and its extrapolation by Colwell et al. (2012, J. Plant Ecology 5:3), days as sampling units: with T
            days, S units, Q1 and Q2 of them seen on one and on two days, Q0 = (T - 1) / T Q1 (Q1 - 1) / (2 (Q2 + 1))
            are unseen, and S(T + t) = S + Q0 (1 - (1 - Q1 / (T Q0 + Q1)) ** t).
        """
        days, beyond = len(self.seen), day - len(self.seen)
        if beyond <= 0 or days < 2:
            return self._within(day)
        unseen = (days - 1) / days * self.once * (self.once - 1) / (2 * (self.twice + 1))
        if unseen <= 0:
            return float(self.seen[-1])
        # Never faster than on the mean day so far, which the estimate is where nobody came twice.
        grown = unseen * -math.expm1(beyond * math.log1p(-self.once / (days * unseen + self.once)))
        return min(self.seen[-1] + grown, self._in_line(day))

    def high(self, day: float) -> float:
        """Return a number of units that is hardly too low: as if the curve went on to bend as it does now.

        Source:
            Heaps' law U(d) = a d ** b, fitted to the logarithms over the second half of the days seen, through the
            last of them.
        """
        days = len(self.seen)
        if day <= days or days < 2 or self.seen[-1] == 0:
            return self._within(day)
        first = max(1, days // 2)
        x = np.log(np.arange(first, days + 1))
        y = np.log(np.maximum(self.seen[first - 1 :], 1))
        slope = float(np.dot(x - x.mean(), y - y.mean()) / np.dot(x - x.mean(), x - x.mean()))
        grown = float(self.seen[-1] * (day / days) ** min(1.0, max(0.0, slope)))
        return max(grown, self.low(day))

    def units(self, day: float) -> float:
        """Return the units to expect by the end of `day`: as seen, and after that halfway between the two curves."""
        return math.sqrt(self.low(day) * self.high(day))

    def days_until(self, units: float) -> int | None:
        """Return the first day at whose end so many units are to be expected; None if that takes over ten years."""
        return first_day(lambda day: self.units(day) >= units)

    def days_between(self, units: float) -> tuple[int | None, int | None]:
        """Return that day by the curve that is too high, and by the one that is too low."""
        return first_day(lambda day: self.high(day) >= units), first_day(lambda day: self.low(day) >= units)

    def _within(self, day: float) -> float:
        if not self.seen or day <= 0:
            return 0.0
        if len(self.seen) < 2:  # one day says nothing of who comes back
            return self._in_line(day)
        return float(self.seen[min(math.floor(day), len(self.seen)) - 1]) if day >= 1 else self.seen[0] * day

    def _in_line(self, day: float) -> float:
        return self.seen[-1] * day / len(self.seen)


def first_day(enough: Callable[[int], bool]) -> int | None:
    """Return the first day on which it is enough, once which it always is; None if that takes over ten years."""
    if not enough(MOST_DAYS):
        return None
    before, day = 0, MOST_DAYS
    while day - before > 1:
        middle = (before + day) // 2
        before, day = (before, middle) if enough(middle) else (middle, day)
    return day


def unit_curve(day: ArrayLike, unit: ArrayLike, *, days: int) -> UnitCurve:
    """Return the curve of the units that came on each day.

    Args:
        day: Whole number of the day from 0, one per visit, shape (visits,); those outside of `days` are left out.
        unit: Who came, same shape.
        days: How many days there are, 1 or more.
    """
    if days < 1:
        raise BadDefinition("days", f"{days} is no stretch", "Give 1 whole day or more.")
    when, who = np.asarray(day, dtype=np.int64), np.asarray(unit, dtype=object).astype(str)
    inside = (when >= 0) & (when < days)
    if not inside.any():
        return UnitCurve((0,) * days, 0, 0)
    _, number = np.unique(who[inside], return_inverse=True)
    visited = np.unique(number.astype(np.int64) * days + when[inside])  # each unit's day once
    person, came = np.divmod(visited, days)
    counts = np.bincount(person)
    first = came[np.flatnonzero(np.r_[True, np.diff(person) != 0])]
    seen = np.cumsum(np.bincount(first, minlength=days))
    return UnitCurve(tuple(seen.tolist()), int((counts == 1).sum()), int((counts == 2).sum()))
