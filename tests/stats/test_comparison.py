"""Comparisons of arms against SciPy, statsmodels and tea-tasting, run here, and the worked cases to their digits."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from leaven.stats.comoments import Comoments, comoments
from leaven.stats.comparison import Fixed, compare, relative_bounds
from leaven.stats.estimate import (
    Estimate,
    adjusted_estimates,
    adjusted_weights,
    adjusted_wholes,
    mean_estimate,
    ratio_estimate,
)
from leaven.stats.moments import Moments, moments
from tests.stats.simulated_trials import label_delays
from tests.stats.small_trial import CANDIDATE, CONTROL


def mean_of(values):
    return mean_estimate(moments(np.asarray(values, dtype=float)))


def ratio_of(m, d):
    return ratio_estimate(comoments(m, d))


def test_worked_case_1_two_means():
    found = compare(mean_of(CONTROL["m"]), mean_of(CANDIDATE["m"]), Fixed())
    assert (found.difference, found.low, found.high) == pytest.approx((0.2, -0.329179, 0.729179), abs=5e-7)
    assert (found.statistic, found.p_value) == pytest.approx((0.752491, 0.454033), abs=5e-7)


def test_worked_case_2_means_from_sums():
    arms = [Moments(1000, total / 1000, squares - total**2 / 1000) for total, squares in ((1200, 3000), (1250, 3100))]
    found = compare(*map(mean_estimate, arms), Fixed())
    assert (found.statistic, found.low, found.high) == pytest.approx((0.897940, -0.059203, 0.159203), abs=5e-7)
    assert found.p_value == pytest.approx(0.369326, abs=5e-7)


def test_worked_case_3_two_ratios():
    found = compare(ratio_of(CONTROL["m"], CONTROL["d"]), ratio_of(CANDIDATE["m"], CANDIDATE["d"]), Fixed())
    assert (found.control, found.arm) == pytest.approx((0.55, 0.616667), abs=5e-7)
    assert (found.low, found.high, found.p_value) == pytest.approx((-0.149685, 0.283019, 0.541338), abs=5e-7)
    assert (found.relative_low, found.relative_high) == pytest.approx((-0.226559, 0.625356), abs=5e-7)


def test_worked_case_4_a_mean_adjusted_by_a_covariate():
    arms = [comoments(arm["m"], arm["x"]) for arm in (CONTROL, CANDIDATE)]
    found = compare(*adjusted_estimates(*arms), Fixed())
    assert (found.difference, found.low, found.high) == pytest.approx((-0.260835, -0.660002, 0.138332), abs=5e-7)
    assert found.p_value == pytest.approx(0.196847, abs=5e-7)
    assert [weights[1] for weights in adjusted_weights(*arms)] == pytest.approx([-0.449595] * 2, abs=5e-7)  # theta


def frame(seed, n=400):
    rng = np.random.default_rng(seed)
    d, x = rng.poisson(3, n) + 1.0, rng.gamma(2, 3, n)
    y, arm = rng.poisson(2, n) + 1.0, rng.integers(0, 2, n)
    m = d * rng.gamma(2, 1, n) + 0.5 * x + 0.3 * arm
    return pd.DataFrame({"variant": arm, "m": m, "d": d, "x": x, "y": y})


@pytest.mark.parametrize("seed", range(3))
def test_every_estimator_is_tea_tastings(seed):
    """Oracle, run here: means, ratios, CUPED of both; difference, interval, relative interval, p-value, statistic."""
    tea_tasting = pytest.importorskip("tea_tasting")
    data = frame(seed)
    theirs = tea_tasting.Experiment(
        mean=tea_tasting.Mean("m"),
        ratio=tea_tasting.RatioOfMeans("m", "d"),
        adjusted=tea_tasting.Mean("m", covariate="x"),
        adjusted_ratio=tea_tasting.RatioOfMeans("m", "d", "x", "y"),
    ).analyze(data)
    arms = [{name: group[name].to_numpy() for name in "mdxy"} for _, group in data.groupby("variant")]
    ours = {
        "mean": [mean_of(arm["m"]) for arm in arms],
        "ratio": [ratio_of(arm["m"], arm["d"]) for arm in arms],
        "adjusted": adjusted_estimates(*(comoments(arm["m"], arm["x"]) for arm in arms)),
        "adjusted_ratio": adjusted_estimates(*(comoments(arm["m"], arm["d"], arm["x"], arm["y"]) for arm in arms)),
    }
    for name, (control, arm) in ours.items():
        found, other = compare(control, arm, Fixed()), theirs[name]
        assert (found.control, found.arm) == pytest.approx((other.control, other.treatment), rel=1e-9)
        assert (found.low, found.high) == pytest.approx((other.effect_size_ci_lower, other.effect_size_ci_upper))
        # Theirs of an adjusted mean leaves out the error of the covariate's mean, as ours does without `wholes`.
        assert (found.relative_low, found.relative_high) == pytest.approx(
            (other.rel_effect_size_ci_lower, other.rel_effect_size_ci_upper)
        )
        assert (found.p_value, found.statistic) == pytest.approx((other.pvalue, other.statistic))


def test_a_proportion_is_compared_as_statsmodels_does_with_unequal_variances():
    proportions = pytest.importorskip("statsmodels.stats.proportion")
    values = [np.repeat([1.0, 0.0], [k, 2000 - k]) for k in (200, 230)]
    found = compare(*map(mean_of, values), Fixed())
    low, high = proportions.confint_proportions_2indep(230, 2000, 200, 2000, method="wald", compare="diff")
    assert (low, high) == pytest.approx((-0.004192, 0.034192), abs=5e-7)  # worked case 11
    # theirs divides by n and takes the normal's quantile, ours by n - 1 and Student's
    assert (found.low, found.high) == pytest.approx((low, high), abs=2e-5)


near, far = st.floats(-50, 50, width=32), st.floats(-1e9, 1e9)


@given(arrays(np.float64, (3, 12), elements=near), far, st.integers(1, 11))
def test_comoments_add_up_and_keep_their_digits_far_from_zero(columns, shift, cut):
    """Oracle: NumPy's covariance of the columns before they were moved away."""
    moved = columns + shift
    kept = comoments(*moved[:, :cut]) + comoments(*moved[:, cut:])
    rounding = 1e-15 * abs(shift) + 1e-9
    assert kept.covariance() == pytest.approx(np.cov(columns), rel=1e-6, abs=1e4 * rounding)
    assert kept.centres == pytest.approx(moved.mean(axis=1).tolist(), rel=1e-12, abs=1e-9)


@given(arrays(np.float64, (2, 9), elements=near), st.tuples(near, near))
def test_the_moments_along_a_direction_are_those_of_the_weighted_sum(columns, weights):
    ours, theirs = comoments(*columns).along(weights), moments(weights @ columns)
    assert (ours.count, ours.mean) == (theirs.count, pytest.approx(theirs.mean, abs=1e-6))
    assert ours.spread == pytest.approx(theirs.spread, rel=1e-6, abs=1e-5)


def test_nothing_is_neutral():
    some = comoments(np.array([1.0, 2.0]), np.array([3.0, 5.0]))
    assert Comoments() + some == some == some + Comoments()
    assert math.isnan(ratio_estimate(Comoments()).value)


@pytest.mark.parametrize("shift", [0.0, 1e7, 1e12])
def test_the_variance_keeps_its_digits_far_from_zero(shift):
    values = np.random.default_rng(5).normal(size=2_000)
    kept = sum((moments(part + shift) for part in np.split(values, 20)), Moments())
    assert kept.variance == pytest.approx(values.var(ddof=1), rel=1e-3 if shift > 1e9 else 1e-7)


@given(st.floats(0.5, 50), st.floats(0.5, 50), st.floats(1e-4, 0.01), st.floats(1e-4, 0.01))
def test_the_relative_interval_holds_the_relative_difference(m0, m1, e0, e1):
    control, arm = Estimate(m0, (e0 * m0) ** 2, 100), Estimate(m1, (e1 * m1) ** 2, 100)
    low, high = relative_bounds(control, arm, Fixed())
    assert low < m1 / m0 - 1 < high
    # Fieller's interval agrees where errors are small.
    turned = relative_bounds(Estimate(-m0, control.variance, 100), Estimate(-m1, arm.variance, 100), Fixed())
    assert turned == pytest.approx((-high, -low))


def test_there_is_no_relative_interval_where_the_control_may_be_zero():
    assert relative_bounds(Estimate(0.1, 0.01, 50), Estimate(2.0, 0.01, 50), Fixed()) == (None, None)


def test_fiellers_interval_covers_where_the_arm_may_be_zero():  # calibration: 4,000 trials, 3 standard errors
    rng = np.random.default_rng(8)
    covered = 0
    for _ in range(4_000):
        control, arm = rng.normal(1, 1, 100), rng.normal(0.02, 1, 100)
        low, high = relative_bounds(mean_of(control), mean_of(arm), Fixed())
        covered += low is not None and low <= 0.02 / 1 - 1 <= high
    assert abs(covered / 4_000 - 0.95) <= 3 * math.sqrt(0.95 * 0.05 / 4_000)


def test_arms_too_small_to_tell_tell_nothing():
    found = compare(mean_of([1.0]), mean_of([1.0, 2.0]), Fixed())
    assert (found.low, found.high, found.p_value) == (-math.inf, math.inf, 1.0)
    assert found.difference == pytest.approx(0.5)


def test_constant_arms_differ_for_certain_or_not_at_all():
    ones, twos = mean_of([1.0] * 5), mean_of([2.0] * 5)
    assert compare(ones, twos, Fixed()).p_value == 0.0
    assert compare(ones, ones, Fixed()).p_value == 1.0


@given(arrays(np.float64, 8, elements=near), arrays(np.float64, 11, elements=near), st.floats(0.01, 0.3))
def test_the_interval_holds_zero_exactly_when_the_p_value_is_not_small(control, arm, alpha):
    assume(control.std() > 1e-2 and arm.std() > 1e-2)
    found = compare(mean_of(control), mean_of(arm), Fixed(alpha))
    assert found.p_value == pytest.approx(stats.ttest_ind(arm, control, equal_var=False).pvalue, abs=1e-9)
    assume(abs(found.p_value - alpha) > 1e-9)
    assert (found.low > 0 or found.high < 0) == (found.p_value < alpha)


@pytest.mark.parametrize(("rate", "rows"), [(0.1, 1), (0.3, 5)])
def test_ratio_intervals_cover_as_often_as_they_say_where_rows_of_a_unit_are_alike(rate, rows):
    """Calibration: clicks per view, each unit with its own rate and its own number of views; 3 standard errors."""
    rng, covered, trials, units = np.random.default_rng(9), 0, 1_500, 300
    for _ in range(trials):
        arms = []
        for _ in range(2):
            views = 1.0 + rng.poisson(rows, units)
            clicks = rng.binomial(views.astype(int), rng.beta(2 * rate, 2 * (1 - rate), units)).astype(float)
            arms.append(ratio_of(clicks, views))
        found = compare(*arms, Fixed())
        covered += found.low <= 0 <= found.high
    assert abs(covered / trials - 0.95) <= 3 * math.sqrt(0.95 * 0.05 / trials)


def test_a_covariate_narrows_the_interval_by_what_it_explains_and_keeps_its_coverage():
    rng, covered, trials, widths = np.random.default_rng(10), 0, 1_500, []
    for _ in range(trials):
        arms = []
        for effect in (0.0, 0.2):
            x = rng.normal(size=200)
            arms.append(comoments(0.8 * x + 0.6 * rng.normal(size=200) + effect, x))
        found = compare(*adjusted_estimates(*arms), Fixed())
        covered += found.low <= 0.2 <= found.high
        widths.append(found.standard_error / math.sqrt(2 / 200))
    assert abs(covered / trials - 0.95) <= 3 * math.sqrt(0.95 * 0.05 / trials)
    assert np.mean(widths) == pytest.approx(0.6, rel=0.02)  # sqrt(1 - 0.8^2)


def adjusted(rng, effect, *, units=200, explained=0.9):
    """Two arms with mean 3, the second larger by the share `effect`, and a covariate."""
    arms = []
    for lift in (0.0, effect):
        x = rng.normal(size=units)
        own = math.sqrt(1 - explained**2) * rng.normal(size=units)
        arms.append(comoments(3 * (1 + lift) + explained * x + own, x))
    return arms


@pytest.mark.parametrize("effect", [0.0, 1.0])
def test_relative_intervals_of_adjusted_means_cover_as_often_as_they_say(effect):
    """Calibration: 1,000 trials, 3 standard errors. Without the error of the covariate's mean it is 90 % at +100 %."""
    rng, trials, covered, narrow = np.random.default_rng(13), 1_000, 0, 0
    for _ in range(trials):
        arms = adjusted(rng, effect)
        pair = adjusted_estimates(*arms)
        found, without = compare(*pair, Fixed(), wholes=adjusted_wholes(*arms)), compare(*pair, Fixed())
        covered += found.relative_low <= effect <= found.relative_high
        narrow += without.relative_low <= effect <= without.relative_high
        assert (found.low, found.high, found.p_value) == (without.low, without.high, without.p_value)
    assert abs(covered / trials - 0.95) <= 3 * math.sqrt(0.95 * 0.05 / trials)
    assert (narrow / trials < 0.92) == (effect > 0)


def test_what_both_adjusted_means_share_cancels_in_their_difference():
    arms = adjusted(np.random.default_rng(14), 0.3)
    control, arm, covariance = adjusted_wholes(*arms)
    own = sum(each.variance for each in adjusted_estimates(*arms))
    assert control.variance + arm.variance - 2 * covariance == pytest.approx(own, rel=1e-9)
    assert covariance > 0


def test_worked_case_13_a_margin_is_kept_or_not():
    """Not worse than the control by a tenth of it: one-sided, the normal's quantile."""
    arms = [Moments(1000, total / 1000, squares - total**2 / 1000) for total, squares in ((1200, 3000), (1180, 2950))]
    found = compare(*map(mean_estimate, arms), Fixed(0.1))
    assert found.difference - stats.norm.ppf(0.95) * found.standard_error == pytest.approx(-0.111887, abs=5e-7)
    assert stats.norm.sf((found.difference + 0.12) / found.standard_error) == pytest.approx(0.036720, abs=5e-7)
    assert found.low == pytest.approx(-0.111887, abs=5e-5)  # ours is Student's


def test_unequal_label_delays_mislead_unless_windows_are_closed():
    """Calibration: 20,000 looks at day 28 of arms that differ in nothing but their delay, 1 and 2 days."""
    open_, closed = (np.abs(label_delays(20_000, closed=c, at_day=28, seed=12)) > 1.959964 for c in (False, True))
    assert open_.mean() > 0.12
    assert closed.mean() <= 0.06
