"""How far must an estimate be from none at each of several planned looks?"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from leaven.errors import BadDefinition

Floats = NDArray[np.float64]
Sides = Literal[1, 2]

FARTHEST = 8.0  # standard errors; a boundary beyond is not told from none (chance 1e-15)
_NODES_PER_SD = 6  # of the step between two looks: the integrand is smooth on that scale


@dataclass(frozen=True, slots=True)
class PowerSpending:
    """alpha * t ** rho: the larger rho, the more is left for the end."""

    rho: float = 3.0

    def __post_init__(self) -> None:
        if not 0 < self.rho < math.inf:
            raise BadDefinition("rho", f"{self.rho:g} is no exponent", "Give more than 0; 3 is usual.")

    def __call__(self, t: float, alpha: float) -> float:
        """Return what one side has spent of its `alpha` when a share `t` of the information is in."""
        return alpha * math.pow(t, self.rho)


@dataclass(frozen=True, slots=True)
class OBrienFlemingSpending:
    """2 - 2 Phi(z / sqrt(t)), z the quantile at 1 - alpha / 2: next to nothing early (Lan and DeMets 1983)."""

    def __call__(self, t: float, alpha: float) -> float:
        """Return what one side has spent of its `alpha` when a share `t` of the information is in."""
        from scipy.special import ndtr, ndtri

        return float(2 * ndtr(ndtri(alpha / 2) / math.sqrt(t)))


@dataclass(frozen=True, slots=True)
class PocockSpending:
    """alpha ln(1 + (e - 1) t): about the same boundary at every look (Lan and DeMets 1983)."""

    def __call__(self, t: float, alpha: float) -> float:
        """Return what one side has spent of its `alpha` when a share `t` of the information is in."""
        return alpha * math.log1p((math.e - 1) * t)


POWER_3 = PowerSpending()
Spending = PowerSpending | OBrienFlemingSpending | PocockSpending


def boundaries(
    looks: Sequence[float], *, alpha: float, sides: Sides = 2, spending: Spending = POWER_3
) -> tuple[float, ...]:
    """Return the z-value that must be reached at each look; all looks together err with probability alpha at most.

    Looks may be at any information fractions; those ahead do not change the boundaries of those behind.

    Args:
        looks: Share of the planned information (units) at each look, rising, in (0, 1].
        alpha: Total error; of a two-sided test, half of it for each side.
        sides: 1 to stop for one direction only, 2 for both.
        spending: How much of its error a side has spent at each fraction.
    Returns:
        Z-values, at most `FARTHEST`, which stands for a look that can spend next to nothing.
    Raises:
        BadDefinition: looks are not rising within (0, 1], or alpha is no error rate.
    Source:
        Lan and DeMets (1983); Armitage, McPherson and Rowe (1969): with B(t) = z sqrt(t) a Brownian motion, its density
        where no boundary has been crossed is integrated from look to look, and each boundary is where the rest of the
        error spent so far lies beyond it.
    """
    fractions = tuple(float(look) for look in looks)
    _check(fractions, alpha)
    return _boundaries(fractions, float(alpha), sides, spending)


def crossing_probability(
    looks: Sequence[float], bounds: Sequence[float], *, drift: float = 0.0, sides: Sides = 2
) -> Floats:
    """Return the probability of having crossed a boundary by each look, in either direction.

    Args:
        looks: As for `boundaries`.
        bounds: Z-values at these looks.
        drift: Expected z-value at full information.
        sides: As for `boundaries`.
    """
    inside, crossed, total = _Inside(sides), [], 0.0
    for look, bound in zip(looks, bounds, strict=True):
        step = inside.to(look, drift)
        total += step.beyond(bound) + (step.below(-bound) if sides == 2 else 0.0)
        inside = step.cut(bound)
        crossed.append(min(1.0, total))
    return np.array(crossed)


def inflation(looks: Sequence[float], *, alpha: float, power: float, spending: Spending = POWER_3) -> float:
    """Return how many times the units of a single look a two-sided test with these looks needs for the same power."""
    from scipy.optimize import brentq
    from scipy.special import ndtri

    bounds = boundaries(looks, alpha=alpha, spending=spending)
    fixed = float(ndtri(1 - alpha / 2) + ndtri(power))
    drift = brentq(lambda d: crossing_probability(looks, bounds, drift=d)[-1] - power, fixed / 2, 3 * fixed, xtol=1e-6)
    return float(drift / fixed) ** 2


@lru_cache(maxsize=1024)
def _boundaries(looks: tuple[float, ...], alpha: float, sides: Sides, spending: Spending) -> tuple[float, ...]:
    for count in range(1, len(looks)):  # each is kept, so none below calls itself more than once
        _after(looks[:count], alpha, sides, spending)
    return _after(looks, alpha, sides, spending)[0]


@lru_cache(maxsize=128)
def _after(
    looks: tuple[float, ...], alpha: float, sides: Sides, spending: Spending
) -> tuple[tuple[float, ...], _Inside, float]:
    """The boundaries of these looks, what has crossed none of them, and the error spent.

    One more look is one more step: a trial that is looked at daily does not start over every day.
    """
    if not looks:
        return (), _Inside(sides), 0.0
    bounds, inside, spent = _after(looks[:-1], alpha, sides, spending)
    step = inside.to(looks[-1], 0.0)
    bound = step.quantile(spending(looks[-1], alpha / sides) - spent)
    # What a look could not spend is left for the next.
    return (*bounds, bound), step.cut(bound), spent + step.beyond(bound)


class _Inside:
    """B(t) where no boundary has been crossed yet: points and the probability at each."""

    def __init__(self, sides: Sides, t: float = 0.0, points: Floats | None = None, mass: Floats | None = None) -> None:
        self._sides, self._t = sides, t
        self._points = np.zeros(1) if points is None else points
        self._mass = np.ones(1) if mass is None else mass

    def to(self, t: float, drift: float) -> _Step:
        return _Step(self._sides, self._t, t, drift, self._points, self._mass)


class _Step:
    """B(t) at the next look, before its boundary."""

    def __init__(self, sides: Sides, before: float, t: float, drift: float, points: Floats, mass: Floats) -> None:
        self._sides, self._t, self._drift, self._mass = sides, t, drift, mass
        self._sd = math.sqrt(t - before)
        self._means = points + drift * (t - before)

    def beyond(self, bound: float) -> float:
        return self._tail(lambda: (self._means - bound * math.sqrt(self._t)) / self._sd)

    def below(self, bound: float) -> float:
        return self._tail(lambda: (bound * math.sqrt(self._t) - self._means) / self._sd)

    def quantile(self, probability: float) -> float:
        """Where no more than `probability` lies beyond."""
        from scipy.optimize import brentq

        if probability <= self.beyond(FARTHEST):
            return FARTHEST
        return float(brentq(lambda bound: self.beyond(bound) - probability, -FARTHEST, FARTHEST, xtol=1e-10))

    def cut(self, bound: float) -> _Inside:
        """What is left inside the boundary."""
        root = math.sqrt(self._t)
        # With a drift the middle moves; what is more than `FARTHEST` deviations from it does not count.
        middle = self._drift * root
        high = min(bound, middle + FARTHEST)
        low = max(-bound, middle - FARTHEST) if self._sides == 2 else min(middle - FARTHEST, high - 1.0)
        if low >= high:
            return _Inside(self._sides, self._t, np.array([high * root]), np.zeros(1))
        points, weights = _nodes(low * root, high * root, self._sd)
        apart = (points[:, None] - self._means[None, :]) / self._sd
        density = np.exp(-0.5 * apart * apart) @ self._mass / (self._sd * math.sqrt(2 * math.pi))
        return _Inside(self._sides, self._t, points, weights * density)

    def _tail(self, scores: Callable[[], Floats]) -> float:
        from scipy.special import ndtr

        return float(ndtr(scores()) @ self._mass)


def _nodes(low: float, high: float, sd: float) -> tuple[Floats, Floats]:
    """Points and weights of Gauss-Legendre panels no wider than two deviations of a step."""
    panels = max(1, min(400, math.ceil((high - low) / (2 * sd))))
    x, w = _legendre(2 * _NODES_PER_SD)
    edges = np.linspace(low, high, panels + 1)
    half = (edges[1:] - edges[:-1]) / 2
    points = (edges[:-1] + half)[:, None] + half[:, None] * x
    return points.ravel(), (half[:, None] * w).ravel()


@lru_cache(maxsize=1)
def _legendre(count: int) -> tuple[Floats, Floats]:
    x, w = np.polynomial.legendre.leggauss(count)
    return x, w


def _check(looks: Sequence[float], alpha: float) -> None:
    rising = all(before < after for before, after in zip((0.0, *looks), looks, strict=False))
    if not looks or not rising or not looks[-1] <= 1:
        listed = ", ".join(f"{look:g}" for look in looks) or "none"
        raise BadDefinition("looks", f"{listed} do not rise within (0, 1]", "Give fractions as .25,.5,.75,1.")
    if not 0 < alpha < 1:
        raise BadDefinition("alpha", f"{alpha:g} is no error rate", "Give more than 0 and less than 1.")
