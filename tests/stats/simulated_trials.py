"""Trials that are drawn, not run: what their looks see, by sums alone. Of tests and of `benchmarks.calibration`."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.stats import norm

from leaven.stats.group_sequential import GroupSequential
from leaven.stats.size import Plan, units_for_rates

Floats = NDArray[np.float64]
PER_DAY = 500  # units of each arm
DAYS = 14


def daily(
    days: int, *, trials: int, effect: float, binary: bool, seed: int, per_day: int = PER_DAY
) -> tuple[Floats, NDArray[np.int64]]:
    """Differences in standard errors at the end of each day, shape (trials, days), and units of both arms by then."""
    rng, shape = np.random.default_rng(seed), (2, trials, days)
    if binary:
        hits = rng.binomial(per_day, np.array([0.1, 0.1 + effect])[:, None, None], shape)
        total, squares = hits, hits
    else:
        means = rng.normal(np.array([0, effect])[:, None, None], 1 / math.sqrt(per_day), shape)
        total, squares = per_day * means, rng.chisquare(per_day - 1, shape) + per_day * means**2
    n = per_day * np.arange(1, days + 1)
    mean = total.cumsum(axis=2) / n
    variance = (squares.cumsum(axis=2) - n * mean**2) / (n - 1)
    return (mean[1] - mean[0]) / np.sqrt(variance.sum(axis=0) / n), 2 * n


def effect_found_by_a_single_look(*, binary: bool) -> float:
    """What one look after 14 days finds in 80 % of trials: of a rate of 0.1, or of a mean in standard deviations."""
    units = PER_DAY * DAYS
    if not binary:
        return float(norm.ppf(0.975) + norm.ppf(0.8)) * math.sqrt(2 / units)
    return float(brentq(lambda effect: units_for_rates(0.1, Plan(effect)) - units, 1e-3, 0.1))


def group_sequential_bounds(days: int = DAYS) -> list[float]:
    """The boundary of each daily look."""
    looks = [tuple(k / days for k in range(1, day + 1)) for day in range(1, days + 1)]
    return [GroupSequential(fractions).critical(math.inf, 0) for fractions in looks]


def first_day(crossed: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Day of the first crossing of each trial that has one, shape (found,)."""
    return crossed.argmax(axis=1)[crossed.any(axis=1)] + 1


def hourly_split(share: float, *, trials: int, per_hour: int, seed: int) -> NDArray[np.int64]:
    """Units at every hour of 28 days, shape (trials, hours, arms)."""
    first = np.random.default_rng(seed).binomial(per_hour, share, (trials, 28 * 24))
    return np.cumsum(np.stack([first, per_hour - first], axis=-1), axis=1)


def a_canary(rates: tuple[float, float], *, seconds: int, trials: int, seed: int) -> list[NDArray[np.int64]]:
    """Failures of control and canary at each second: 50 requests a second, a tenth to the canary."""
    rng = np.random.default_rng(seed)
    return [rng.binomial(requests, rate, (trials, seconds)).cumsum(axis=1)
            for requests, rate in zip((45, 5), rates, strict=True)]  # fmt: skip


def label_delays(trials: int, *, closed: bool, at_day: int, seed: int) -> Floats:
    """z-values at one look, shape (trials,), of arms that differ in nothing but their delay, 1 and 2 days on average.

    500 units a day and arm, 10 % convert. `closed` compares those only whose window of 10 days is over.
    """
    rng, born = np.random.default_rng(seed), np.arange(at_day)
    judged = born[born + 10 <= at_day] if closed else born
    known = [rng.binomial(PER_DAY, 0.1 * -np.expm1(-(at_day - judged) / delay), (trials, len(judged))).sum(axis=1)
             for delay in (1.0, 2.0)]  # fmt: skip
    n = PER_DAY * len(judged)
    variances = [hits * (n - hits) / n / (n - 1) / n for hits in known]
    return (known[1] - known[0]) / n / np.sqrt(variances[0] + variances[1])
