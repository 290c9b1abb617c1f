"""Quantiles over units that are alike within: exact values, coverage, and the sketch beside the exact."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from leaven.errors import BadDefinition
from leaven.stats.comparison import Fixed, compare
from leaven.stats.quantiles import edges_near, geometric_edges, quantile_counts


def latencies(rng, units=300, *, slower=1.0):
    """Requests of units of which some are slow by nature: value and unit of each row."""
    rows = 1 + rng.poisson(4, units)
    unit = np.repeat(np.arange(units), rows)
    return slower * np.exp(rng.normal(0, 0.5, units)[unit] + rng.normal(0, 0.5, len(unit))), unit


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 9)), min_size=1, max_size=40))
def test_counts_are_those_of_a_loop(rows):
    _, unit = np.unique([u for u, _ in rows], return_inverse=True)
    values, edges = np.array([float(v) for _, v in rows]), (1.0, 3.0, 8.0)
    kept = quantile_counts(values, unit, edges)
    by_unit = [[v for v, u in zip(values, unit, strict=True) if u == each] for each in range(unit.max() + 1)]
    for i, edge in enumerate(edges):
        below = [sum(v <= edge for v in each) for each in by_unit]
        assert kept.below[i] == sum(below)
        assert kept.below_squares[i] == sum(c * c for c in below)
        assert kept.below_rows[i] == sum(c * len(each) for c, each in zip(below, by_unit, strict=True))


@pytest.mark.parametrize("q", [0.5, 0.95, 0.99])
def test_the_estimate_is_numpys_quantile(q):
    values, unit = latencies(np.random.default_rng(1), 2_000)
    exact = quantile_counts(values, unit, edges_near(values, q)).estimate(q)
    assert exact.value == pytest.approx(np.quantile(values, q), rel=2e-3)
    sketched = quantile_counts(values, unit, geometric_edges(0.01, 100)).estimate(q)
    assert sketched.value == pytest.approx(np.quantile(values, q), rel=0.01)  # the width of a bin
    assert sketched.variance == pytest.approx(exact.variance, rel=0.2)


def test_sketches_of_disjoint_units_add_up():
    rng, edges = np.random.default_rng(2), geometric_edges(0.01, 100)
    (one, u1), (two, u2) = latencies(rng), latencies(rng)
    both = quantile_counts(np.concatenate([one, two]), np.concatenate([u1, u2 + u1.max() + 1]), edges)
    assert quantile_counts(one, u1, edges) + quantile_counts(two, u2, edges) == both
    with pytest.raises(BadDefinition, match="edges differ"):
        both + quantile_counts(one, u1, (1.0, 2.0))


@pytest.mark.parametrize("q", [0.5, 0.95])
def test_intervals_of_a_difference_cover_as_often_as_they_say(q):
    """Calibration over 500 trials, 3 standard errors; rows taken as independent would miss."""
    rng, covered, trials = np.random.default_rng(3), 0, 500
    for _ in range(trials):
        arms = [quantile_counts(*latencies(rng), geometric_edges(0.02, 60)).estimate(q) for _ in range(2)]
        found = compare(*arms, Fixed())
        covered += found.low <= 0 <= found.high
    assert abs(covered / trials - 0.95) <= 3 * math.sqrt(0.95 * 0.05 / trials)


def test_a_slower_arm_is_found():
    rng = np.random.default_rng(4)
    arms = [
        quantile_counts(*latencies(rng, 2_000, slower=s), geometric_edges(0.01, 100)).estimate(0.95) for s in (1, 1.2)
    ]
    assert compare(*arms, Fixed()).p_value < 0.01


def test_too_few_rows_for_the_tail_tell_nothing():
    values = np.arange(20.0)
    found = quantile_counts(values, np.arange(20), edges_near(values, 0.99)).estimate(0.99)
    assert math.isnan(found.variance)
