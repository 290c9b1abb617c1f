"""How many units does a test of this loop need, and how long do they take to come?"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import msgspec
import numpy as np

from leaven.stats.moments import Moments
from leaven.stats.size import LEAST_DAYS, Lasting, Plan, at_least, units_for_means
from leaven.stats.unit_curve import UnitCurve, first_day


class Sizing(msgspec.Struct, frozen=True):
    """A test as large as its plan asks for."""

    control: int
    arm: int
    lasts: Lasting
    sd: float  # of a unit's mean over as many days

    @property
    def total(self) -> int:
        """Units of both arms."""
        return self.control + self.arm


def size_by_log(
    losses: Mapping[int, Moments],
    curve: UnitCurve,
    plan: Plan,
    *,
    window: float = 0.0,
    share: float = 1.0,
    times: float = 1.0,
) -> Sizing:
    """Return the size of a two-arm test whose units behave as those of the log do.

    A unit's mean is the noisier the fewer days it is taken over, so a long test needs fewer units than a short one. The
    test ends on the first day on which as many have come as a test that ends on that day needs.

    Args:
        losses: Moments of the units' means, by the number of days over which they were taken; each of 2 units or more.
            In between, the variance is taken to be linear in 1 / days, as that of a person's mean is.
        curve: Of the units that come.
        plan: What must be found; `mde` is absolute.
        window: Days until a label is mature.
        share: Of the units, those that count; in (0, 1].
        times: How many times the units of a single look are needed.
    """
    days = sorted(losses, reverse=True)
    inverse, variances = [1 / each for each in days], [losses[each].variance for each in days]

    def sd(day: float) -> float:
        return math.sqrt(float(np.interp(1 / max(day, LEAST_DAYS), inverse, variances)))

    def sizes(day: float) -> tuple[int, int]:
        each = units_for_means(sd(day), plan) * times
        return math.ceil(each - 1e-9), math.ceil(each * plan.ratio - 1e-9)

    def ends(count: Callable[[float], float]) -> int | None:
        return first_day(lambda day: share * count(day) >= sum(sizes(day)))

    end = ends(curve.units)
    came = max(days) if end is None else end
    lasts = Lasting(*(at_least(day, window) for day in (end, ends(curve.high), ends(curve.low))))
    return Sizing(*sizes(came), lasts, sd(came))
