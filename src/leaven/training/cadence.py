"""How often is a refresh worth its price?

Too often pays for updates that change little; too rarely pays in answers that have grown stale. Between them lies the
interval with the least cost per day.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import msgspec
import numpy as np
from numpy.typing import ArrayLike, NDArray

from leaven.errors import BadDefinition
from leaven.training.freshness import FreshnessCurve

Floats = NDArray[np.float64]
Family = Literal["linear", "saturating", "power"]

_LONGEST = 3_650.0  # days; what pays later than that is never
_TAUS = np.geomspace(0.5, 400.0, 60)
_POWERS = np.linspace(0.3, 2.5, 45)


@dataclass(frozen=True, slots=True)
class Staleness:
    """Loss that age adds: `scale` times a shape that is 0 at age 0 and grows.

    linear: a; saturating: 1 - exp(-a / shape); power: a ** shape. Ages in days.
    """

    family: Family
    scale: float
    shape: float = 1.0

    def at(self, age: ArrayLike) -> Floats:
        """Return the excess loss at an age, any shape."""
        excess: Floats = self.scale * _shapes(self.family, np.asarray(age, dtype=np.float64), np.float64(self.shape))
        return excess

    def until(self, age: float) -> float:
        """Return the excess loss of all ages up to this one, summed: loss times days."""
        if self.family == "saturating":
            return self.scale * (age + self.shape * math.expm1(-age / self.shape))
        power = self.shape if self.family == "power" else 1.0
        return float(self.scale * age ** (power + 1) / (power + 1))


def best_interval(staleness: Staleness, *, cost: float, value: float, lag: float = 0.0) -> float | None:
    """Return the days between refreshes that cost least, or None where no timer pays.

    Args:
        staleness: Excess loss by age.
        cost: Of one refresh, > 0, in any currency.
        value: Of one unit of loss for a day, in the same currency: traffic times worth.
        lag: Days between the end of the training data and the moment when the version serves all; it cannot be bought
            off by refreshing more often.
    Source:
        C(T) = (cost + value (integral of the excess from lag to lag + T)) / T is least where
        T d(lag + T) - (D(lag + T) - D(lag)) = cost / value, whose left side grows with T. At lag 0 this gives
        sqrt(2 K / s) for a line, exp(-x) (1 + x) = 1 - K / (A tau) with T = x tau for saturation, and
        (K (p + 1) / (c p))^(1 / (p + 1)) for a power.
    """
    from scipy.optimize import brentq

    if not cost > 0 or not value > 0:
        raise BadDefinition("cadence", f"cost {cost:g} and value {value:g}", "Both must be more than 0.")
    if not staleness.scale > 0:
        return None

    def beyond(days: float) -> float:
        gained = days * float(staleness.at(lag + days)) - (staleness.until(lag + days) - staleness.until(lag))
        return gained - cost / value

    if beyond(_LONGEST) <= 0:
        return None
    return float(brentq(beyond, 1e-9, _LONGEST, xtol=1e-9))


def cost_per_day(staleness: Staleness, days: float, *, cost: float, value: float, lag: float = 0.0) -> float:
    """Return what refreshing every `days` costs per day: refreshes, and staleness against a model of age 0."""
    return (cost + value * (staleness.until(lag + days) - staleness.until(lag))) / days


def fit_staleness(ages_days: ArrayLike, excess: ArrayLike, *, error: float = 0.0) -> Staleness:
    """Return the staleness that fits the excess loss at some ages best.

    A line, unless a shape that bends explains more of it than noise would: with a handful of ages, such shapes fit
    noise well.

    Args:
        ages_days: Shape (ages,), the first one 0 or the youngest.
        excess: Shape (ages,), loss less that of the youngest.
        error: Standard error of one age's loss, window effects apart.
    """
    ages, wanted = np.asarray(ages_days, dtype=np.float64), np.asarray(excess, dtype=np.float64)
    line = _fitted("linear", ages, wanted, np.ones(1))
    others = [_fitted("saturating", ages, wanted, _TAUS), _fitted("power", ages, wanted, _POWERS)]
    best = min(others, key=lambda fit: fit[1])
    # One parameter more lowers the squared error by a chi-square with one degree of freedom: beyond 9 in 0.3 %.
    bends = line[1] - best[1] > max(9 * error * error, 1e-12 * float(wanted @ wanted))
    return best[0] if len(ages) > 3 and bends else line[0]


def _fitted(family: Family, ages: Floats, wanted: Floats, shapes: Floats) -> tuple[Staleness, float]:
    """The best scale and shape of a family, and its squared error; the level of the youngest age is free as well."""
    basis = _shapes(family, ages[None, :], shapes[:, None])
    centred, target = basis - basis.mean(axis=1, keepdims=True), wanted - wanted.mean()
    scales = (centred @ target) / np.maximum((centred * centred).sum(axis=1), 1e-300)
    errors = ((target - scales[:, None] * centred) ** 2).sum(axis=1)
    best = int(np.argmin(errors))
    return Staleness(family, float(scales[best]), float(shapes[best])), float(errors[best])


def _shapes(family: Family, ages: Floats, shape: Floats | np.float64) -> Floats:
    if family == "saturating":
        return -np.expm1(-ages / shape)
    return ages**shape if family == "power" else ages


class Cadence(msgspec.Struct, frozen=True):
    """A recommended interval. None: no timer is recommended, and `why` says which of the reasons it is."""

    interval_days: float | None
    ci: tuple[float | None, float | None]  # None: no timer pays at that end
    floor_days: float  # proving an update takes so long
    why: str
    cost_per_day: float | None  # at the interval, refreshes and staleness together
    family: Family
    verdict: Literal["timer", "trigger only", "not enough evidence"]


def recommend(
    curve: FreshnessCurve,
    draws: Floats,
    *,
    cost: float,
    value: float,
    lag: float,
    floor_days: float,
    alpha: float = 0.05,
) -> Cadence:
    """Return the interval between refreshes that costs least, with its interval of confidence.

    Args:
        curve: Loss by age.
        draws: Bootstrap draws of the excess loss, shape (draws, ages), as `excess_draws` gives them.
        cost: Of one refresh: computing, review, expected harm of its trial.
        value: Of one unit of loss for one day.
        lag: Days from the end of the training data until a version serves all: label delay, holdout and trial.
        floor_days: How long proving an update takes at least: label delay and trial. Trials do not overlap, so no
            interval is shorter.
        alpha: The interval misses with this probability.
    """
    # An effect is a difference of two ages' losses, so its variance is that of both.
    error = math.sqrt(float(np.median(draws[:, 1:].var(axis=0))) / 2)
    staleness = fit_staleness(curve.ages_days, curve.excess, error=error)
    low_slope, high_slope = curve.slope_ci
    if low_slope <= 0 <= high_slope:
        why = (
            f"the loss changes by {curve.slope_per_day:+.3g} a day [{low_slope:+.3g}, {high_slope:+.3g}]: no change is "
            f"within the interval. Measure more windows ({curve.windows} were), or older ages."
        )
        return Cadence(None, (None, None), floor_days, why, None, staleness.family, "not enough evidence")
    if high_slope < 0:
        why = (
            f"older models are better ({curve.slope_per_day:+.3g} a day): a timer would only cost. More rows may help."
        )
        return Cadence(None, (None, None), floor_days, why, None, staleness.family, "trigger only")
    if staleness.family == "linear":  # the slope of all ages, whose interval is the better one
        staleness = Staleness("linear", curve.slope_per_day)
        found = np.array([best_interval(Staleness("linear", slope), cost=cost, value=value, lag=lag) or math.inf
                          for slope in (high_slope, low_slope)])  # fmt: skip
    else:
        found = _intervals(staleness, curve, draws, cost=cost, value=value, lag=lag)
    days = best_interval(staleness, cost=cost, value=value, lag=lag)
    low, high = np.quantile(found, [alpha / 2, 1 - alpha / 2], method="nearest")
    ci = (_known(low), _known(high))
    if days is None:
        why = (
            f"one refresh costs {cost:g}, more than staleness ever will ({staleness.family}, at most "
            f"{value * float(staleness.at(_LONGEST)):.3g} a day): refresh on triggers, not on a timer"
        )
        return Cadence(None, ci, floor_days, why, None, staleness.family, "trigger only")
    every = max(days, floor_days)
    spent = cost_per_day(staleness, every, cost=cost, value=value, lag=lag)
    return Cadence(every, ci, floor_days, _why(days, floor_days, lag, staleness), spent, staleness.family, "timer")


def _intervals(
    staleness: Staleness, curve: FreshnessCurve, draws: Floats, *, cost: float, value: float, lag: float
) -> Floats:
    """The best interval of each bootstrap draw, by the family of the estimate; infinite where no timer pays."""
    ages = np.asarray(curve.ages_days)
    shapes = _TAUS if staleness.family == "saturating" else _POWERS
    solve: Callable[[Staleness], float | None] = lambda drawn: best_interval(drawn, cost=cost, value=value, lag=lag)  # noqa: E731
    found = [solve(_fitted(staleness.family, ages, draw, shapes)[0]) for draw in draws]
    return np.array([math.inf if days is None else days for days in found])


def _known(days: float) -> float | None:
    return float(days) if math.isfinite(days) else None


def _why(days: float, floor: float, lag: float, staleness: Staleness) -> str:
    words = f"refreshing every {days:.3g} days costs least, as staleness grows ({staleness.family})"
    if days < floor:
        return (
            f"{words}, but proving an update takes {floor:.3g} days: that is the floor. A shorter trial or faster "
            "labels are worth more than more frequent training"
        )
    return f"{words}; twice or half of it costs about a quarter more, so round it to what is convenient"
