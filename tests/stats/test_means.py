"""Moments and the intervals of means against SciPy, and how often they cover."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from leaven.stats.intervals import difference_interval, mean_interval
from leaven.stats.moments import Moments, moments, paired_excess, unit_means

samples = arrays(np.float64, st.integers(2, 40), elements=st.floats(-100, 100, width=32))


@given(samples)
def test_mean_and_variance_are_numpys(sample):
    kept = moments(sample)
    assert kept.mean == pytest.approx(sample.mean(), abs=1e-9)
    assert kept.variance == pytest.approx(sample.var(ddof=1), abs=1e-8)


@given(samples, samples)
def test_the_moments_of_two_samples_add_up_to_those_of_both(one, two):
    both, joined = moments(one) + moments(two), moments(np.concatenate([one, two]))
    assert both.count == joined.count
    assert both.total == pytest.approx(joined.total, abs=1e-8)
    assert both.spread == pytest.approx(joined.spread, rel=1e-12, abs=1e-8)


@given(samples, st.floats(0, 5))
def test_scaled_moments_are_those_of_the_scaled_sample(sample, factor):
    ours, theirs = moments(sample).scaled(factor), moments(sample * factor)
    assert (ours.count, ours.total) == (theirs.count, pytest.approx(theirs.total, abs=1e-8))
    assert ours.spread == pytest.approx(theirs.spread, rel=1e-9, abs=1e-8)


small = st.floats(-9, 9, width=32)
pairs = st.integers(2, 30).flatmap(lambda n: st.tuples(*[arrays(np.float64, n, elements=small)] * 2))


@given(pairs, st.floats(0, 2))
def test_the_excess_over_a_margin_is_that_of_each_pair(pair, margin):
    control, treatment = pair
    theirs = moments(treatment - (1 + margin) * control)
    ours = paired_excess(moments(control), moments(treatment), moments(treatment - control), margin=margin)
    assert ours.count == theirs.count
    assert ours.total == pytest.approx(theirs.total, abs=1e-8)
    assert ours.spread == pytest.approx(theirs.spread, rel=1e-9, abs=1e-7)


def test_without_a_margin_the_excess_is_the_difference_itself():
    difference = Moments(3, 1.0, 2.0)
    assert paired_excess(Moments(3, 5.0, 9.0), Moments(3, 6.0, 14.0), difference, margin=0.0) == difference


@given(samples, st.sampled_from([0.05, 0.01, 0.2]))
def test_the_interval_of_a_mean_is_students(sample, alpha):
    assume(sample.std() > 1e-3)
    ours = mean_interval(moments(sample), alpha=alpha)
    theirs = stats.ttest_1samp(sample, 0).confidence_interval(1 - alpha)
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), rel=1e-5, abs=1e-6)
    assert (ours.level, ours.n) == (1 - alpha, len(sample))


@given(samples, samples, st.sampled_from([0.05, 0.01, 0.2]))
def test_the_interval_of_a_difference_is_welchs(control, treatment, alpha):
    assume(control.std() > 1e-2 and treatment.std() > 1e-2)
    ours = difference_interval(moments(control), moments(treatment), alpha=alpha)
    theirs = stats.ttest_ind(treatment, control, equal_var=False).confidence_interval(1 - alpha)
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), rel=1e-5, abs=1e-5)
    assert ours.n == min(len(control), len(treatment))


def test_fewer_than_two_observations_tell_nothing():
    one, many = moments(np.array([3.0])), moments(np.array([1.0, 2.0, 5.0]))
    for interval in (mean_interval(one, alpha=0.05), difference_interval(one, many, alpha=0.05),
                     difference_interval(many, Moments(), alpha=0.05)):  # fmt: skip
        assert (interval.low, interval.high) == (-math.inf, math.inf)


def test_the_interval_of_a_difference_covers_as_often_as_it_says():  # calibration, arms of unequal size and spread
    rng, alpha = np.random.default_rng(3), 0.1
    covered = 0
    for _ in range(2_000):
        control, treatment = rng.normal(1, 1, 60), rng.normal(1.5, 4, 12)
        interval = difference_interval(moments(control), moments(treatment), alpha=alpha)
        covered += interval.low <= 0.5 <= interval.high
    assert abs(covered / 2_000 - 0.9) <= 3 * math.sqrt(0.09 / 2_000)


@given(st.lists(st.tuples(st.sampled_from("abcdé"), st.floats(-5, 5)), max_size=30))
def test_each_unit_counts_once_with_its_mean(rows):
    unit, values = [name for name, _ in rows], np.array([value for _, value in rows], dtype=float)
    theirs = [values[[u == name for u in unit]].mean() for name in sorted(set(unit))]
    assert unit_means(unit, values) == pytest.approx(theirs)
