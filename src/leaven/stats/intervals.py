"""Between which values does a mean, or a difference of means, lie?"""

from __future__ import annotations

import math

import msgspec

from leaven.stats.comparison import Fixed, compare
from leaven.stats.estimate import mean_estimate
from leaven.stats.moments import Moments


class Interval(msgspec.Struct, frozen=True):
    """An estimate with a two-sided confidence interval; the bounds are infinite where the data cannot tell."""

    estimate: float
    low: float
    high: float
    level: float
    n: int  # observations it rests on; of two samples the smaller


def mean_interval(sample: Moments, *, alpha: float) -> Interval:
    """Return the Student interval of a mean at level `1 - alpha`.

    Also the paired comparison of two models, where `sample` holds their differences.
    """
    if sample.count < 2:
        return Interval(sample.mean, -math.inf, math.inf, 1 - alpha, sample.count)
    half = _student(alpha, sample.count - 1) * math.sqrt(sample.variance / sample.count)
    return Interval(sample.mean, sample.mean - half, sample.mean + half, 1 - alpha, sample.count)


def difference_interval(control: Moments, treatment: Moments, *, alpha: float) -> Interval:
    """Return the interval of `treatment` mean minus `control` mean for two independent samples (Welch's)."""
    found = compare(mean_estimate(control), mean_estimate(treatment), Fixed(alpha))
    smaller = min(control.count, treatment.count)
    return Interval(found.difference, found.low, found.high, 1 - alpha, smaller)


def _student(alpha: float, df: float) -> float:
    # SciPy is imported where it is used: most of what imports this module never asks for a quantile.
    from scipy.special import stdtrit

    return float(stdtrit(df, 1 - alpha / 2))
