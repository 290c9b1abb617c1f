"""Between which bounds does a mean, or a difference of means, lie at every look, from small samples on?

The bounds are one-sided confidence sequences over units. What makes them grow tighter is not the number of units as
such: units that come back tell more each time, unless their rows are all alike. So the clock of the sequence is the
effective number of answers: as many answers of different units as would tell as much.
"""

from __future__ import annotations

import math

from leaven.stats.confidence_sequence import one_sided_critical
from leaven.stats.intervals import Interval
from leaven.stats.moments import Moments


def effective_answers(units: Moments, rows: Moments) -> float:
    """Return how many answers of as many different units would tell as much as these.

    Args:
        units: Of the units' means.
        rows: Of all their rows; nothing, where they are not known, counts each unit as one answer.
    Source:
        The variance of a single row over that of the mean of all: between the units (rows of one are all alike) and the
        rows (they have nothing in common).
    """
    if rows.count <= units.count or units.count < 2 or not units.spread > 0:
        return units.count
    return min(max(units.count * rows.variance / units.variance, units.count), rows.count)


def mean_bounds(sample: Moments, *, alpha: float, planned: float, answers: float | None = None) -> Interval:
    """Return the bounds of a mean, of which each misses it at any look with probability at most `alpha`.

    Also for a paired comparison, where `sample` holds the differences per unit.

    Args:
        sample: Per unit.
        alpha: Error of each bound, over all looks.
        planned: Effective answers at which the bounds are tightest.
        answers: Effective answers so far; the units, where there are none.
    """
    if sample.count < 2:
        return Interval(sample.mean, -math.inf, math.inf, 1 - 2 * alpha, sample.count)
    error = math.sqrt(sample.variance / sample.count)
    reach = _reach(error, sample.count - 1, answers or sample.count, alpha, planned)
    return Interval(sample.mean, sample.mean - reach, sample.mean + reach, 1 - 2 * alpha, sample.count)


def difference_bounds(
    control: Moments, arm: Moments, *, alpha: float, planned: float, answers: float | None = None
) -> Interval:
    """Return the bounds of `arm` mean minus `control` mean, of two independent samples; arguments as above."""
    difference, smaller = arm.mean - control.mean, min(control.count, arm.count)
    if smaller < 2:
        return Interval(difference, -math.inf, math.inf, 1 - 2 * alpha, smaller)
    parts = control.variance / control.count, arm.variance / arm.count
    freedom = math.inf
    if sum(parts) > 0:  # Welch and Satterthwaite
        freedom = sum(parts) ** 2 / (parts[0] ** 2 / (control.count - 1) + parts[1] ** 2 / (arm.count - 1))
    reach = _reach(math.sqrt(sum(parts)), freedom, answers or control.count + arm.count, alpha, planned)
    return Interval(difference, difference - reach, difference + reach, 1 - 2 * alpha, smaller)


def _reach(error: float, freedom: float, answers: float, alpha: float, planned: float) -> float:
    """The bound of the sequence, at Student's quantile of the same tail."""
    if error == 0:
        return 0.0
    from scipy.special import ndtr, stdtrit

    bound = one_sided_critical(answers, alpha=alpha, planned=planned, fewest=2)
    return error * (bound if math.isinf(freedom) else -float(stdtrit(freedom, float(ndtr(-bound)))))
