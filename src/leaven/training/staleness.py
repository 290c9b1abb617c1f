"""How does the loss grow with age, and when does a refresh pay that puts the age back?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from leaven.errors import BadDefinition
from leaven.training.freshness import Ageing

Floats = NDArray[np.float64]
Family = Literal["linear", "saturating", "power"]

LONGEST = 3_650.0  # days; what pays later than that is never
_SHORTEST = 1e-4  # days
_TAUS = np.geomspace(0.5, 400.0, 60)
_POWERS = np.linspace(0.2, 2.5, 47)


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
        return self.scale * _shapes(self.family, np.asarray(age, dtype=np.float64), np.float64(self.shape))

    def until(self, age: float) -> float:
        """Return the excess loss of all ages up to this one, summed: loss times days."""
        return float(self.scale * _sums(self.family, np.float64(age), np.float64(self.shape)))


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
    scale, shape = np.array([staleness.scale]), np.array([staleness.shape])
    days = float(_best_intervals(staleness.family, scale, shape, cost=cost, value=value, lag=lag)[0])
    return days if np.isfinite(days) else None


def _best_intervals(family: Family, scale: Floats, shape: Floats, *, cost: float, value: float, lag: float) -> Floats:
    """The best interval of each scale and shape, infinite where no timer pays: by halving, in logarithms."""
    if not cost > 0 or not value > 0:
        raise BadDefinition("cadence", f"cost {cost:g} and value {value:g}", "Both must be more than 0.")

    def gained(days: Floats) -> Floats:
        summed = _sums(family, lag + days, shape) - _sums(family, np.float64(lag), shape)
        more: Floats = scale * (days * _shapes(family, lag + days, shape) - summed)
        return more

    low, high = np.full(scale.shape, np.log(_SHORTEST)), np.full(scale.shape, np.log(LONGEST))
    never = ~(gained(np.exp(high)) > cost / value)
    for _ in range(50):
        middle = (low + high) / 2
        enough = gained(np.exp(middle)) > cost / value
        low, high = np.where(enough, low, middle), np.where(enough, middle, high)
    return np.where(never, np.inf, np.exp(high))


def cost_per_day(staleness: Staleness, days: float, *, cost: float, value: float, lag: float = 0.0) -> float:
    """Return what refreshing every `days` costs per day: refreshes, and staleness against a model of age 0."""
    return (cost + value * (staleness.until(lag + days) - staleness.until(lag))) / days


def fit_staleness(ageing: Ageing, *, alpha: float = 0.05) -> Staleness:
    """Return the staleness that fits the loss by age best.

    A line, unless a shape that bends does better than it in nearly all draws: with a handful of ages, such shapes fit
    noise well.

    Args:
        ageing: Loss by age, weighed by what is known of each.
        alpha: A line is taken to bend with about this probability.
    """
    bends = len(ageing.curve.ages_days) > 3 and _bends(ageing, alpha)
    return fits(ageing, ageing.curve.excess[None], bends=bends).pick(0)


def _bends(ageing: Ageing, alpha: float) -> bool:
    """Whether the root of the age says more than the age does: its coefficient beside the age's is not 0."""
    scored = ageing.scored_days
    basis = ageing.projection @ np.column_stack([scored, np.sqrt(scored)])
    weighted = basis.T @ ageing.information
    bend = ageing.draws @ np.linalg.solve(weighted @ basis, weighted)[1]
    low, high = np.quantile(bend, [alpha / 2, 1 - alpha / 2])
    return bool(low > 0 or high < 0)


@dataclass(frozen=True, slots=True)
class Fits:
    """The best staleness for each of several losses by age; all arrays of shape (draws,)."""

    family: NDArray[np.str_]
    scale: Floats
    shape: Floats

    def pick(self, which: int) -> Staleness:
        """Return one of them."""
        family: Family = str(self.family[which])  # type: ignore[assignment]
        return Staleness(family, float(self.scale[which]), float(self.shape[which]))

    def best_intervals(self, *, cost: float, value: float, lag: float) -> Floats:
        """Return what `best_interval` says of each, shape (draws,), infinite where no timer pays."""
        days = np.full(self.scale.shape, np.inf)
        families: tuple[Family, ...] = ("linear", "saturating", "power")
        for family in families:
            of = self.family == family
            days[of] = _best_intervals(family, self.scale[of], self.shape[of], cost=cost, value=value, lag=lag)
        return days


def fits(ageing: Ageing, excess: Floats, *, bends: bool) -> Fits:
    """Return the best fit to each of several losses by age: least squares over the scores, the level free.

    Args:
        ageing: What was scored.
        excess: Shape (draws, ages).
        bends: Fit the shapes that bend, and not the line.
    """
    candidates: list[tuple[Family, float]] = [("linear", 1.0)]
    if bends:
        candidates = [("saturating", tau) for tau in _TAUS] + [("power", power) for power in _POWERS]
    curves = np.array([_shapes(family, ageing.scored_days, np.float64(shape)) for family, shape in candidates])
    basis = curves @ ageing.projection.T
    weighted = basis @ ageing.information
    along, length = excess @ weighted.T, (weighted * basis).sum(axis=1)
    best = (along * along / length).argmax(axis=1)  # by so much each lowers the squared error
    rows = np.arange(len(excess))
    families, shapes = (np.array(column) for column in zip(*candidates, strict=True))
    return Fits(families[best], along[rows, best] / length[best], shapes[best])


def _shapes(family: Family, ages: Floats, shape: Floats | np.float64) -> Floats:
    if family == "saturating":
        return -np.expm1(-ages / shape)
    return ages**shape if family == "power" else ages


def _sums(family: Family, ages: Floats | np.float64, shape: Floats | np.float64) -> Floats | np.float64:
    """The shape, summed over all ages up to these."""
    if family == "saturating":
        return ages + shape * np.expm1(-ages / shape)
    power = shape if family == "power" else 1.0
    summed: Floats = ages ** (power + 1) / (power + 1)
    return summed
