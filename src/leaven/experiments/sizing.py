"""How many units does a test of this loop need, and how long do they take to come?"""

from __future__ import annotations

import math
from collections.abc import Mapping

import msgspec
import numpy as np

from leaven.errors import BadDefinition
from leaven.stats.moments import Moments
from leaven.stats.size import Lasting, Plan, days_on_curve, units_for_means
from leaven.stats.unit_curve import UnitCurve


class Sizing(msgspec.Struct, frozen=True):
    """A test as large as its plan asks for."""

    control: int
    arm: int
    lasts: Lasting
    over: float  # days for which each unit is measured
    sd: float  # of a unit's mean over these

    @property
    def total(self) -> int:
        """Units of both arms."""
        return self.control + self.arm


def size_by_log(
    losses: Mapping[int, Moments],
    curve: UnitCurve,
    plan: Plan,
    *,
    over: float = 1.0,
    window: float = 0.0,
    share: float = 1.0,
    times: float = 1.0,
) -> Sizing:
    """Return the size of a two-arm test whose units behave as those of the log do.

    Args:
        losses: Moments of the units' means, by the number of days over which they were taken; each of 2 units or more.
        curve: Of the units that come.
        plan: What must be found; `mde` is absolute.
        over: Days for which a unit is measured once it has come; its mean over many days is less noisy than over few.
        window: Days until a label is mature.
        share: Of the units, those that count; in (0, 1].
        times: How many times the units of a single look are needed.
    """
    sd = math.sqrt(variance_over(losses, over))
    each = units_for_means(sd, plan) * times
    control, arm = math.ceil(each - 1e-9), math.ceil(each * plan.ratio - 1e-9)
    lasts = days_on_curve(control + arm, curve, window=window, share=share, over=over)
    return Sizing(control, arm, lasts, over, sd)


def variance_over(losses: Mapping[int, Moments], days: float) -> float:
    """Return the variance of units' means over `days`: linear in 1 / days between those known, as a mean's is."""
    if not losses or days <= 0:
        raise BadDefinition("spread", "no stretch of the log tells it", "Read one with mature labels.")
    known = sorted(losses, reverse=True)
    return float(np.interp(1 / days, [1 / each for each in known], [losses[each].variance for each in known]))
