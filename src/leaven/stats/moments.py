"""What must be kept of many numbers to compare their mean with another?"""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray


class Moments(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Count, mean and squared deviations; two of them add up to the moments of both samples together.

    Deviations are from the mean, never from zero: far from zero (times, identifiers, revenue) the sum of squares less
    the square of the sum has no digits left.

    Source:
        Chan, Golub and LeVeque (1983): with d = mean_b - mean_a and n = n_a + n_b,
        mean = mean_a + d n_b / n, spread = spread_a + spread_b + d^2 n_a n_b / n.
    """

    count: int = 0
    centre: float = 0.0  # the mean, and 0 of nothing, for JSON has no NaN
    spread: float = 0.0  # sum of the squared deviations from the centre

    def __add__(self, other: Moments) -> Moments:
        if not self.count or not other.count:
            return self if self.count else other
        count, apart = self.count + other.count, other.centre - self.centre
        return Moments(
            count,
            self.centre + apart * (other.count / count),
            self.spread + other.spread + apart * apart * (self.count * other.count / count),
        )

    @property
    def mean(self) -> float:
        """The mean; NaN of nothing."""
        return self.centre if self.count else math.nan

    @property
    def total(self) -> float:
        """The sum."""
        return self.count * self.centre

    @property
    def variance(self) -> float:
        """The unbiased variance, never negative; NaN of fewer than two."""
        return self.spread / (self.count - 1) if self.count > 1 else math.nan

    def scaled(self, factor: float) -> Moments:
        """Return the moments of the sample times `factor`."""
        return Moments(self.count, factor * self.centre, factor * factor * self.spread)


def paired_excess(control: Moments, treatment: Moments, difference: Moments, *, margin: float) -> Moments:
    """Return the moments of `treatment - (1 + margin) * control`, pair by pair.

    A margin that is a share of the control's mean is itself estimated: its error, and how it goes with the
    difference's, count as well.

    Args:
        control: Moments of one side of the pairs.
        treatment: Moments of the other side.
        difference: Moments of treatment minus control; its spread tells how the two go together.
        margin: Share of the control, 0 or more; at 0 the result is `difference`.
    Source:
        With e = d - m c: var(e) = var(d) - 2 m cov(c, d) + m^2 var(c), and 2 cov(c, d) = var(t) - var(c) - var(d),
        as t = c + d.
    """
    twice_products = treatment.spread - control.spread - difference.spread
    spread = difference.spread - margin * twice_products + margin * margin * control.spread
    return Moments(difference.count, difference.centre - margin * control.centre, max(0.0, spread))


def moments(values: NDArray[np.float64]) -> Moments:
    """Return the moments of a one-dimensional sample."""
    if not len(values):
        return Moments()
    centre = float(values.mean())
    apart = values - centre
    # What rounding left in the mean is taken out of the squares again.
    return Moments(len(values), centre, max(0.0, float(np.dot(apart, apart)) - float(apart.sum()) ** 2 / len(values)))


def unit_means(unit: NDArray[np.object_] | Sequence[str], values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the mean of `values` of each distinct unit, in the units' alphabetical order.

    Rows of one unit are not independent, units are: every test of arms is made on these.
    """
    if not len(values):
        return np.empty(0)
    which, units = numbered(unit)
    return np.bincount(which, weights=values, minlength=units) / np.bincount(which, minlength=units)


def numbered(unit: NDArray[np.object_] | Sequence[str]) -> tuple[NDArray[np.intp], int]:
    """Return the number of each row's unit, from 0 in the units' alphabetical order, and how many units there are."""
    names, which = np.unique(np.asarray(unit, dtype=object).astype(str), return_inverse=True)
    return which, len(names)
