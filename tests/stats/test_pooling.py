"""Measurements with errors of their own, put together: does the interval hold what it promises?"""

from __future__ import annotations

import math

import numpy as np
import pytest

from leaven.stats.pooling import difference, pooled


def test_it_is_the_hand_calculation():
    """Two that differ: Q = (1/.01 · 1/.04) / (1/.01 + 1/.04) · 0.6² = 7.2, so between² = (7.2 - 1) / 40 = 0.155."""
    found = pooled([0.0, 0.6], [0.1, 0.2])
    assert found is not None
    weights = 1 / np.array([0.01 + 0.155, 0.04 + 0.155])
    mean = float(weights @ [0.0, 0.6] / weights.sum())
    q = float(weights @ (np.array([0.0, 0.6]) - mean) ** 2)  # of one degree of freedom
    assert found.between == pytest.approx(math.sqrt(0.155))
    assert found.mean == pytest.approx(mean)
    assert found.error == pytest.approx(math.sqrt(max(1.0, q) / weights.sum()))
    half = found.interval(alpha=0.05).high - found.mean
    assert half == pytest.approx(12.7062 * found.error, rel=1e-5)  # Student's t of one degree of freedom


def test_agreeing_measurements_count_by_their_precision_alone():
    found = pooled([1.0, 1.1, 0.9], [0.5, 0.5, 1.0])
    assert found is not None
    assert found.between == 0
    assert found.mean == pytest.approx((4 * 1.0 + 4 * 1.1 + 0.9) / 9)
    assert found.error == pytest.approx(1 / 3)  # never less than their own errors say


def test_one_alone_has_no_bounds_and_none_is_nothing():
    assert pooled([], []) is None
    one, many = pooled([0.3], [0.1]), pooled([0.3, 0.2], [0.1, 0.1])
    assert one is not None
    assert many is not None
    assert one.interval(alpha=0.05).low == -math.inf
    assert difference(one, many, alpha=0.05).high == math.inf


def simulated(rng, runs, count, mean, between):
    """Measurements whose errors differ tenfold."""
    errors = rng.uniform(0.3, 3.0, (runs, count))
    true = mean + between * rng.normal(size=(runs, count))
    return true + errors * rng.normal(size=(runs, count)), errors


@pytest.mark.parametrize("between", [0.0, 1.0, 3.0])
@pytest.mark.parametrize("count", [3, 8])
def test_the_interval_misses_the_mean_no_more_often_than_promised(count, between):
    """2,000 times; tolerance: 3 standard errors, and a hundredth for weights that are estimated."""
    found, errors = simulated(np.random.default_rng(3), 2000, count, 0.5, between)
    missed = 0
    for one, error in zip(found, errors, strict=True):
        interval = pooled(one, error).interval(alpha=0.05)
        missed += not interval.low <= 0.5 <= interval.high
    assert missed / 2000 <= 0.06 + 3 * math.sqrt(0.05 * 0.95 / 2000)


def test_a_difference_that_is_there_is_found_and_one_that_is_not_is_not():
    rng, runs = np.random.default_rng(5), 1000
    shown = {}
    for apart in (0.0, 4.0):
        ours, theirs = simulated(rng, runs, 8, apart, 1.0), simulated(rng, runs, 6, 0.0, 1.0)
        intervals = [
            difference(pooled(a, ea), pooled(b, eb), alpha=0.05) for a, ea, b, eb in zip(*ours, *theirs, strict=True)
        ]
        shown[apart] = np.mean([one.low > 0 or one.high < 0 for one in intervals])
    assert shown[0.0] <= 0.06 + 3 * math.sqrt(0.05 * 0.95 / runs)
    assert shown[4.0] > 0.9
