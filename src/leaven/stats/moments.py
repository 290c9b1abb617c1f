"""What must be kept of many numbers to compare their mean with another?"""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray


class Moments(msgspec.Struct, frozen=True):
    """Count, sum and sum of squares; two of them add up to the moments of both samples together."""

    count: int = 0
    total: float = 0.0
    squares: float = 0.0

    def __add__(self, other: Moments) -> Moments:
        return Moments(self.count + other.count, self.total + other.total, self.squares + other.squares)

    @property
    def mean(self) -> float:
        """The mean; NaN of nothing."""
        return self.total / self.count if self.count else math.nan

    @property
    def variance(self) -> float:
        """The unbiased variance, never negative; NaN of fewer than two."""
        if self.count < 2:
            return math.nan
        return max(0.0, (self.squares - self.total * self.total / self.count) / (self.count - 1))

    def scaled(self, factor: float) -> Moments:
        """Return the moments of the sample times `factor`."""
        return Moments(self.count, factor * self.total, factor * factor * self.squares)


def paired_excess(control: Moments, treatment: Moments, difference: Moments, *, margin: float) -> Moments:
    """Return the moments of `treatment - (1 + margin) * control`, pair by pair.

    A margin that is a share of the control's mean is itself estimated: its error, and how it goes with the
    difference's, count as well.

    Args:
        control: Moments of one side of the pairs.
        treatment: Moments of the other side.
        difference: Moments of treatment minus control; its squares tell how the two go together.
        margin: Share of the control, 0 or more; at 0 the result is `difference`.
    Source:
        With e = d - m c: e^2 = d^2 - 2 m c d + m^2 c^2, and 2 c d = t^2 - c^2 - d^2 as t = c + d.
    """
    twice_products = treatment.squares - control.squares - difference.squares
    squares = difference.squares - margin * twice_products + margin * margin * control.squares
    return Moments(difference.count, difference.total - margin * control.total, squares)


def moments(values: NDArray[np.float64]) -> Moments:
    """Return the moments of a one-dimensional sample."""
    return Moments(len(values), float(values.sum()), float(np.dot(values, values)))


def unit_means(unit: NDArray[np.object_] | Sequence[str], values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the mean of `values` of each distinct unit, in the units' alphabetical order.

    Rows of one unit are not independent, units are: every test of arms is made on these.
    """
    if not len(values):
        return np.empty(0)
    _, which = np.unique(np.asarray(unit, dtype=object).astype(str), return_inverse=True)
    return np.bincount(which, weights=values) / np.bincount(which)
