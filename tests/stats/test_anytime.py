"""Sizes on a log grid, slowness, and bounds of means that hold at every look."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from leaven.stats.anytime import difference_bounds, mean_bounds
from leaven.stats.log_counts import LogCounts, bin_of, log_counts
from leaven.stats.moments import Moments, moments
from leaven.stats.slowness import slower_evidence

sizes = st.lists(st.one_of(st.just(0.0), st.floats(1e-6, 1e6)), max_size=40).map(
    lambda some: np.array(some, dtype=float)
)


@given(sizes, sizes)
def test_counts_add_up(one, other):
    assert log_counts(one) + log_counts(other) == log_counts(np.concatenate([one, other]))
    assert log_counts(one).total == len(one)


@given(sizes, st.sampled_from([0.05, 0.5, 0.95, 1.0]))
def test_a_quantile_is_right_to_within_a_bin(some, q):  # oracle: NumPy's
    ours = log_counts(some).quantile(q)
    if not len(some):
        assert math.isnan(ours)
        return
    theirs = np.quantile(some, q, method="inverted_cdf")
    assert ours == pytest.approx(theirs, rel=0.15)


@given(sizes, st.floats(1e-5, 1e5))
def test_what_lies_from_a_bin_on_is_counted(some, size):
    edge = 1.5 ** (bin_of(size) / 3)
    assert edge >= size * (1 - 1e-6)
    away = some[(some < edge * (1 - 1e-9)) | (some > edge * (1 + 1e-9))]  # on the edge, rounding decides
    assert log_counts(away).from_bin(np.array([bin_of(size)]))[0] == (away > edge).sum()


def test_slowness_asks_how_often_times_are_passed_that_the_control_passes_less_the_factor():
    """Oracle: the definition, on the samples themselves; thresholds are 1.5 times apart."""
    from leaven.stats.failures import more_failures_evidence

    rng = np.random.default_rng(0)
    control, arm = rng.lognormal(-3, 0.5, 900), rng.lognormal(-2.5, 0.5, 100)
    ours = slower_evidence(log_counts(control), log_counts(arm), share=0.1, factor=1.5, least=0.02)
    first = 1.5 ** (bin_of(0.02) / 3)
    theirs = np.mean([
        more_failures_evidence((control > at / 1.5).sum(), (arm > at).sum(), share=0.1)
        for at in first * 1.5 ** np.arange(17)
    ])  # fmt: skip
    assert ours == pytest.approx(theirs, rel=1e-6)
    assert slower_evidence(LogCounts(), LogCounts(), share=0.1, factor=1.5, least=0.02) == 1.0


def test_bounds_are_infinite_before_there_is_a_spread_and_certain_where_there_is_none():
    one, same = Moments(1, 3.0, 0.0), Moments(50, 3.0, 0.0)
    assert mean_bounds(one, alpha=0.05, planned=500).high == math.inf
    assert difference_bounds(one, same, alpha=0.05, planned=500).low == -math.inf
    assert (mean_bounds(same, alpha=0.05, planned=500).low, mean_bounds(same, alpha=0.05, planned=500).high) == (3, 3)


def test_bounds_are_tightest_for_their_size_where_they_were_planned_to_be():
    def reach(n, planned):
        return mean_bounds(Moments(n, 0.0, n - 1.0), alpha=0.05, planned=planned).high * math.sqrt(n)

    for n in (200, 500, 2_000):
        assert min((50, 200, 500, 2_000, 8_000), key=lambda planned: reach(n, planned)) == n
        assert reach(n, 500) < 1.12 * reach(n, n)


@pytest.mark.parametrize("draw", [lambda rng, size: rng.normal(size=size), lambda rng, size: rng.gamma(2, 1, size) - 2])
def test_a_bound_looked_at_after_every_unit_misses_no_oftener_than_promised(draw):
    """Calibration: 300 runs of 20 to 500 units, one-sided at 5 % either way."""
    rng, missed = np.random.default_rng(1), np.zeros(2)
    for _ in range(300):
        values = draw(rng, 500)
        bounds = [mean_bounds(moments(values[:n]), alpha=0.05, planned=500) for n in range(20, 501, 20)]
        missed += any(each.low > 0 for each in bounds), any(each.high < 0 for each in bounds)
    assert (missed / 300 <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 300)).all()
