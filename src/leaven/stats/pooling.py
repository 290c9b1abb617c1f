"""What do several measurements of one kind say together, where each has an error and they differ among themselves?"""

from __future__ import annotations

import math

import msgspec
import numpy as np
from numpy.typing import ArrayLike

from leaven.stats.intervals import Interval


class Pooled(msgspec.Struct, frozen=True):
    """The mean of what the measurements measure, how sure it is, and how much they differ beyond their errors."""

    mean: float
    error: float  # standard error of the mean; infinite of one measurement
    between: float  # standard deviation among the measurements, beyond their own errors
    count: int

    def interval(self, *, alpha: float) -> Interval:
        """Return the two-sided Student interval of the mean at level `1 - alpha`; without bounds of one alone."""
        half = _half(self.error, self.count - 1, alpha)
        return Interval(self.mean, self.mean - half, self.mean + half, 1 - alpha, self.count)


def pooled(estimates: ArrayLike, errors: ArrayLike) -> Pooled | None:
    """Return the random-effects mean of independent measurements; None of none.

    Each counts by its own precision, as far as they agree; where they differ by more than their errors, by as much the
    more evenly. The error is taken from how they scatter, so it holds for a handful as well.

    Args:
        estimates: What was measured, shape (measurements,).
        errors: Standard error of each, shape (measurements,), positive and finite.
    Source:
        R. DerSimonian, N. Laird, "Meta-analysis in clinical trials" (1986), for the spread between them; J. Hartung,
        G. Knapp (2001) for the error: q = sum(w (y - mean)^2) / ((k - 1) sum(w)), w = 1 / (error^2 + between^2), with
        k - 1 degrees of freedom. As C. Röver, G. Knapp and T. Friede (2015) advise, q is no less than 1 / sum(w).
    """
    found, error = np.asarray(estimates, dtype=np.float64), np.asarray(errors, dtype=np.float64)
    if not len(found):
        return None
    between = _between(found, error)
    weight = 1 / (error**2 + between**2)
    mean = float(weight @ found / weight.sum())
    if len(found) == 1:
        return Pooled(mean, math.inf, 0.0, 1)
    scatter = float(weight @ (found - mean) ** 2) / (len(found) - 1)
    return Pooled(mean, math.sqrt(max(1.0, scatter) / float(weight.sum())), between, len(found))


def difference(one: Pooled, other: Pooled, *, alpha: float) -> Interval:
    """Return the interval of `one` minus `other`, which share no measurement (degrees of freedom after Welch)."""
    error = math.hypot(one.error, other.error)
    apart = one.mean - other.mean
    fewer = min(one.count, other.count)
    if not math.isfinite(error):
        return Interval(apart, -math.inf, math.inf, 1 - alpha, fewer)
    df = error**4 / (one.error**4 / (one.count - 1) + other.error**4 / (other.count - 1))
    half = _half(error, df, alpha)
    return Interval(apart, apart - half, apart + half, 1 - alpha, fewer)


def _between(found: np.ndarray, error: np.ndarray) -> float:
    """Standard deviation beyond the errors, by the moments of Cochran's Q; 0 where they agree."""
    weight = 1 / error**2
    mean = weight @ found / weight.sum()
    excess = weight @ (found - mean) ** 2 - (len(found) - 1)
    scale = weight.sum() - (weight @ weight) / weight.sum()
    return math.sqrt(max(0.0, float(excess / scale))) if scale > 0 else 0.0


def _half(error: float, df: float, alpha: float) -> float:
    if not math.isfinite(error):
        return math.inf
    from scipy.special import stdtrit  # where it is used: as in `intervals`

    return float(stdtrit(df, 1 - alpha / 2)) * error
