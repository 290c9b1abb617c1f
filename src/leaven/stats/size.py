"""How many units does a trial need, and how many days do they take?"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from leaven.errors import BadDefinition
from leaven.stats.unit_curve import UnitCurve

LEAST_DAYS = 7  # a whole week: people differ between weekdays and weekends


@dataclass(frozen=True, slots=True)
class Plan:
    """What a two-sided test of two arms must be able to find."""

    mde: float  # smallest difference of means or rates that must be found, of either sign, not 0
    alpha: float = 0.05
    power: float = 0.8
    ratio: float = 1.0  # units of the arm for each unit of the control
    correlation: float = 0.0  # of a covariate with the metric: variance shrinks by 1 - correlation^2

    def __post_init__(self) -> None:
        if not math.isfinite(self.mde) or self.mde == 0:
            raise BadDefinition("mde", f"{self.mde:g} cannot be found", "Give the smallest difference that matters.")
        if not (0 < self.alpha < self.power < 1 and 0 < self.ratio < math.inf and -1 < self.correlation < 1):
            raise BadDefinition(repr(self), "a bound is out of range", "Keep alpha < power < 1, ratio > 0, |r| < 1.")


def units_for_means(sd: float, plan: Plan) -> float:
    """Return the control's units, as a fraction, for Welch's test of two means with the same standard deviation.

    Also for a ratio metric: its `sd` is that of (M - R D) / mean(D), which is sqrt(n) times the ratio's standard error.

    Source:
        Power of Student's t: with n0, n1 = ratio n0 units, T is noncentral t of n0 + n1 - 2 degrees of freedom,
        its centre at mde / (sd sqrt(1 / n0 + 1 / n1)).
    """
    if not 0 < sd < math.inf:
        raise BadDefinition("sd", f"{sd:g} is no standard deviation", "Give more than 0.")
    from scipy.special import nctdtr, stdtrit

    effect = abs(plan.mde) / (sd * math.sqrt(1 - plan.correlation**2))

    def power(control: float) -> float:
        arm = plan.ratio * control
        df, centre = control + arm - 2, effect * math.sqrt(control * arm / (control + arm))
        edge = float(stdtrit(df, 1 - plan.alpha / 2))
        return float(1 - nctdtr(df, centre, edge) + nctdtr(df, centre, -edge))

    z = _z(plan) ** 2 * (1 + 1 / plan.ratio) / effect**2
    # Beyond a million the two quantiles agree to more digits than the integral has.
    return z if z > 1e6 else _solved(power, plan.power, below=max(z / 2, 2.0), above=z + 20)


def units_for_rates(rate: float, plan: Plan) -> float:
    """Return the control's units, as a fraction, for a test of two rates, `rate` and `rate + mde`.

    Source:
        n0 = (z_{1 - alpha / 2} + z_power)^2 (p0 (1 - p0) + p1 (1 - p1) / ratio) / mde^2.
    """
    other = rate + plan.mde
    if not 0 < rate < 1 or not 0 < other < 1:
        raise BadDefinition("rate", f"{rate:g} and {other:g} are not both rates", "Keep both within 0 and 1.")
    variance = rate * (1 - rate) + other * (1 - other) / plan.ratio
    return _z(plan) ** 2 * variance * (1 - plan.correlation**2) / plan.mde**2


def days_for(units: float, newcomers: Sequence[float], *, window: float = 0.0) -> int | None:
    """Return the days until so many units have come and their labels are mature; None if they never do.

    Args:
        units: Of all arms.
        newcomers: Units that come for the first time on day 1, 2, …; the last entry goes on for ever. Those who come
            back are no new units, so the curve flattens: give several days.
        window: Days until a label is mature.
    Returns:
        At least a week, and at least two windows.
    """
    if not newcomers or min(newcomers) < 0:
        raise BadDefinition("daily units", "there are none, or less than none", "Give 0 or more for each day.")
    left, day = units, 0
    for day, came in enumerate(newcomers, start=1):  # noqa: B007  # the day is needed after the loop
        left -= came
        if left <= 0:
            break
    if left > 0:
        if newcomers[-1] == 0:
            return None
        day += math.ceil(left / newcomers[-1] - 1e-9)
    return _at_least(day, 0.0, window)


@dataclass(frozen=True, slots=True)
class Lasting:
    """Days of a trial; None where so many units hardly ever come."""

    days: int | None
    soonest: int | None  # if the units go on to come as they do now
    latest: int | None  # if only units of the kind seen are left to come


def days_on_curve(
    units: float, curve: UnitCurve, *, window: float = 0.0, share: float = 1.0, over: float = 0.0
) -> Lasting:
    """Return the days until so many units have come and their labels are mature.

    Args:
        units: Of all arms.
        curve: Of the units that come, from the first day of any stretch.
        window: Days until a label is mature.
        share: Of the units, those that count: that are in the trial and get a label; in (0, 1].
        over: Days for which a unit is measured once it has come.
    Returns:
        At least a week each, and at least two windows.
    """
    if not 0 < share <= 1:
        raise BadDefinition("share", f"{share:g} is no share", "Give more than 0, up to 1.")
    days = (curve.days_until(units / share), *curve.days_between(units / share))
    return Lasting(*(None if day is None else _at_least(day, over, window) for day in days))


def smallest_effect(mde: float, units: float, possible: float) -> float:
    """Return the smallest difference that `possible` units can find, where `units` find `mde` with the same power."""
    return abs(mde) * math.sqrt(units / possible) if possible > 0 else math.inf


def _at_least(day: int, over: float, window: float) -> int:
    return max(day + math.ceil(over + window), LEAST_DAYS, math.ceil(2 * window))


def _z(plan: Plan) -> float:
    from scipy.special import ndtri

    return float(ndtri(1 - plan.alpha / 2) + ndtri(plan.power))


def _solved(power: Callable[[float], float], wanted: float, *, below: float, above: float) -> float:
    from scipy.optimize import brentq

    if power(below) >= wanted:
        return below
    return float(brentq(lambda units: power(units) - wanted, below, above, xtol=1e-8))
