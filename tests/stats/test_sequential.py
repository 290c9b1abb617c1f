"""Boundaries and confidence sequences: against other libraries' numbers and integrals, and how often they err."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import multivariate_normal, norm

from leaven.errors import BadDefinition
from leaven.stats.boundaries import (
    FARTHEST,
    OBrienFlemingSpending,
    PocockSpending,
    PowerSpending,
    boundaries,
    crossing_probability,
    inflation,
)
from leaven.stats.comparison import Fixed, compare
from leaven.stats.confidence_sequence import (
    FEWEST,
    ConfidenceSequence,
    mixture,
    one_sided_critical,
    one_sided_evidence,
    two_sided_evidence,
)
from leaven.stats.estimate import mean_estimate
from leaven.stats.group_sequential import GroupSequential, looks_until
from leaven.stats.moments import Moments
from tests.stats.simulated_trials import daily, effect_found_by_a_single_look, group_sequential_bounds

FIFTHS = (0.2, 0.4, 0.6, 0.8, 1.0)


def test_worked_case_12_power_spending():
    """The other library integrates on a coarser grid, and its boundaries spend 5.0005 % (see the next test)."""
    theirs = (3.359354, 2.760371, 2.359327, 2.029257)
    assert boundaries([0.25, 0.5, 0.75, 1], alpha=0.05) == pytest.approx(theirs, abs=5e-5)


def chance_to_cross(looks, bounds, *, sides):
    """Oracle: Genz's integral of the joint normal distribution of the z-values, no recursion."""
    times = np.array(looks)
    correlation = np.sqrt(np.minimum.outer(times, times) / np.maximum.outer(times, times))
    joint = multivariate_normal(np.zeros(len(looks)), correlation, seed=1)
    joint.abseps = joint.releps = 2e-6
    upper = np.array(bounds)
    return 1 - joint.cdf(upper, lower_limit=-upper if sides == 2 else np.full(len(looks), -np.inf))


@pytest.mark.parametrize("sides", [1, 2])
@pytest.mark.parametrize("spending", [PowerSpending(3), PowerSpending(0.7), OBrienFlemingSpending(), PocockSpending()])
@pytest.mark.parametrize("looks", [(0.25, 0.5, 0.75, 1.0), (0.1, 0.15, 0.7, 0.95)])
def test_boundaries_spend_what_they_may_and_no_more(looks, spending, sides):
    bounds = boundaries(looks, alpha=0.05, sides=sides, spending=spending)
    due = sides * spending(looks[-1], 0.05 / sides)
    assert chance_to_cross(looks, bounds, sides=sides) == pytest.approx(due, abs=1e-5)
    assert crossing_probability(looks, bounds, sides=sides)[-1] == pytest.approx(due, abs=1e-9)


def test_lan_and_demets_published_boundaries():
    """Five even looks, alpha 0.05: Reboussin, DeMets, Kim and Lan (2000)."""
    obrien_fleming = boundaries(FIFTHS, alpha=0.05, spending=OBrienFlemingSpending())
    assert obrien_fleming == pytest.approx((4.8769, 3.3569, 2.6803, 2.2898, 2.0310), abs=2e-4)
    pocock = boundaries(FIFTHS, alpha=0.05, spending=PocockSpending())
    assert pocock == pytest.approx((2.4380, 2.4268, 2.4101, 2.3966, 2.3859), abs=2e-4)


def test_a_single_look_at_the_end_is_a_fixed_test():
    assert boundaries([1.0], alpha=0.05)[0] == pytest.approx(norm.ppf(0.975))
    assert boundaries([1.0], alpha=0.05, sides=1)[0] == pytest.approx(norm.ppf(0.95))


def test_worked_case_8_power_of_a_single_look():
    """Of 697.676490 units each, an effect of 0.15 deviations is found in 80 % of trials."""
    drift = 0.15 * math.sqrt(697.676490 / 2)
    bounds = boundaries([1.0], alpha=0.05)
    assert crossing_probability([1.0], bounds, drift=drift)[-1] == pytest.approx(0.8, abs=1e-8)


def test_looks_ahead_do_not_change_the_boundaries_behind():
    assert boundaries(FIFTHS, alpha=0.05)[:3] == boundaries(FIFTHS[:3], alpha=0.05)


@given(st.lists(st.floats(0.01, 1), min_size=1, max_size=8, unique=True), st.floats(0.01, 0.2))
def test_any_rising_looks_are_spent_exactly(looks, alpha):
    looks = sorted(looks)
    bounds = boundaries(looks, alpha=alpha)
    spent = crossing_probability(looks, bounds)
    reachable = [bound < FARTHEST for bound in bounds]
    assert spent[reachable] == pytest.approx(alpha * np.array(looks)[reachable] ** 3, abs=1e-8)


@pytest.mark.parametrize("looks", [(), (0.5, 0.5), (0.5, 0.4), (0.0, 1.0), (0.5, 1.1)])
def test_looks_that_do_not_rise_within_the_plan_are_refused(looks):
    with pytest.raises(BadDefinition, match="do not rise"):
        boundaries(looks, alpha=0.05)


def test_power_is_that_of_simulation():
    looks = np.array(FIFTHS)
    bounds, rng = boundaries(FIFTHS, alpha=0.05), np.random.default_rng(2)
    z = np.cumsum(rng.normal(2.8 * 0.2, math.sqrt(0.2), (20_000, 5)), axis=1) / np.sqrt(looks)
    crossed = np.maximum.accumulate(np.abs(z) >= bounds, axis=1).mean(axis=0)
    assert crossing_probability(FIFTHS, bounds, drift=2.8) == pytest.approx(crossed, abs=0.011)


def test_a_larger_plan_makes_up_for_the_looks():
    factor = inflation(FIFTHS, alpha=0.05, power=0.8)
    drift = (norm.ppf(0.975) + norm.ppf(0.8)) * math.sqrt(factor)
    assert crossing_probability(FIFTHS, boundaries(FIFTHS, alpha=0.05), drift=drift)[-1] == pytest.approx(0.8, abs=1e-5)
    assert 1 < factor < 1.06


@pytest.mark.parametrize("binary", [False, True])
def test_14_daily_looks_promote_falsely_in_at_most_5_5_percent_and_keep_the_power(binary):
    """Calibration and power of the group-sequential test, where one look at the end has 80 %: 20,000 trials each."""
    bounds = group_sequential_bounds()
    null, _ = daily(14, trials=20_000, effect=0, binary=binary, seed=11)
    assert (np.abs(null) >= bounds).any(axis=1).mean() <= 0.055
    assert (np.abs(null) >= 1.959964).any(axis=1).mean() > 0.2  # what reading a t-test daily would do
    found, _ = daily(14, trials=20_000, effect=effect_found_by_a_single_look(binary=binary), binary=binary, seed=12)
    assert (np.abs(found[:, -1]) >= 1.959964).mean() == pytest.approx(0.8, abs=0.009)  # 3 standard errors
    assert (found >= bounds).any(axis=1).mean() >= 0.77


def test_looks_that_nobody_wrote_down_err_no_more_often():
    """28 daily looks, judged as if at every 5 % of the plan: 20,000 trials."""
    z, n = daily(28, trials=20_000, effect=0, binary=False, seed=13)
    bounds = [GroupSequential(looks_until(int(units), int(n[-1]))).critical(math.inf, 0) for units in n]
    rate = (np.abs(z) >= bounds).any(axis=1).mean()
    assert 0.03 < rate <= 0.055


@given(st.floats(-4.5, 4.5), st.integers(1, 5), st.sampled_from([0.05, 0.01, 0.2]))
def test_a_repeated_p_value_is_small_exactly_beyond_the_boundary(z, look, alpha):
    rule = GroupSequential(FIFTHS[:look], alpha)
    p_value, bound = rule.p_value(z, math.inf, 0), rule.critical(math.inf, 0)
    assert (p_value < alpha) == (abs(z) > bound) or abs(abs(z) - bound) < 1e-6
    assert 0 < p_value <= 1


def test_few_units_get_students_tails():
    rule = GroupSequential((0.5, 1.0))
    bound = rule.critical(20, 0)
    assert bound > rule.critical(math.inf, 0)
    assert rule.p_value(bound, 20, 0) == pytest.approx(0.05, rel=1e-6)


def test_a_look_after_the_full_plan_is_refused():
    assert looks_until(1_000, 1_000, before=[0.5]) == (0.5, 1.0)
    assert looks_until(5_000, 1_000, before=[0.5]) == (0.5, 1.0)
    with pytest.raises(BadDefinition, match="after a look at 1 there is none"):
        looks_until(1_200, 1_000, before=[0.5, 1.0])


def test_worked_case_5_confidence_sequence():
    arms = [Moments(2000, total / 2000, squares - total**2 / 2000)
            for total, squares in ((20_000, 232_000), (20_900, 250_000))]  # fmt: skip
    found = compare(*map(mean_estimate, arms), ConfidenceSequence(0.05, 5_000))
    assert (found.difference, found.standard_error) == pytest.approx((0.45, 0.126122), abs=5e-7)
    assert (found.low, found.high, found.p_value) == pytest.approx((0.066543, 0.833457, 0.011089), abs=5e-7)


@given(st.integers(FEWEST, 10**6), st.sampled_from([0.05, 0.01]), st.integers(500, 10**5))
def test_intervals_and_p_values_of_a_confidence_sequence_agree(n, alpha, planned):
    rule = ConfidenceSequence(alpha, planned)
    assert rule.p_value(rule.critical(math.inf, n), math.inf, n) == pytest.approx(alpha, rel=1e-6)


@given(st.integers(FEWEST, 10**6), st.sampled_from([0.05, 0.01]), st.integers(500, 10**5))
def test_a_one_sided_bound_lies_where_its_evidence_reaches_one_over_alpha(n, alpha, planned):
    bound = one_sided_critical(n, alpha=alpha, planned=planned)
    spread = mixture(2 * alpha, planned)
    assert one_sided_evidence(bound, n, spread=spread) == pytest.approx(1 / alpha, rel=1e-6)
    # Equation 134 of Waudby-Smith et al. is a closed bound from above, by a percent or two.
    mixed = n * spread + 1
    closed = math.sqrt(2 * mixed / (mixed - 1) * math.log(1 + math.sqrt(mixed) / (2 * alpha)))
    assert 0.96 < bound / closed <= 1.0


def test_a_one_sided_mixture_is_the_integral_that_it_stands_for():
    """Oracle: the half-normal mixture of likelihood ratios, by the trapezoidal rule."""
    n, spread, z = 3_000, 0.002, 2.2
    shift = np.linspace(0, 12 * math.sqrt(n * spread), 400_001)  # of the z-value
    density = 2 * norm.pdf(shift, scale=math.sqrt(n * spread))
    integral = np.trapezoid(density * np.exp(shift * z - shift**2 / 2), shift)
    assert one_sided_evidence(z, n, spread=spread) == pytest.approx(integral, rel=1e-9)


def test_before_enough_units_there_is_no_interval():
    rule = ConfidenceSequence()
    assert rule.critical(math.inf, FEWEST - 1) == math.inf
    assert rule.p_value(9.0, math.inf, FEWEST - 1) == 1.0
    assert one_sided_critical(FEWEST - 1, alpha=0.05, planned=5_000) == math.inf


@pytest.mark.parametrize("binary", [False, True])
def test_a_confidence_sequence_looked_at_daily_errs_less_than_it_may(binary):
    z, n = daily(90, trials=4_000, effect=0, binary=binary, seed=14)
    evidence = two_sided_evidence(z, n, spread=mixture(0.05, 7_000))
    assert (evidence >= 20).any(axis=1).mean() <= 0.05


def test_harm_is_called_falsely_in_at_most_2_5_percent_and_twice_the_planned_effect_is_found_in_4_5_days():
    """Calibration and power of the one-sided sequence: 20,000 and 4,000 trials of 14 daily looks."""
    spread = mixture(0.1, 7_000)
    null, n = daily(14, trials=20_000, effect=0, binary=False, seed=15)
    assert (one_sided_evidence(-null, n, spread=spread) >= 20).any(axis=1).mean() <= 0.025
    effect = -2 * effect_found_by_a_single_look(binary=False)
    z, _ = daily(14, trials=4_000, effect=effect, binary=False, seed=16)
    harm = one_sided_evidence(-z, n, spread=spread) >= 20
    assert harm.any(axis=1).mean() > 0.99
    assert (harm.argmax(axis=1) + 1)[harm.any(axis=1)].mean() <= 4.5


@pytest.mark.slow
@pytest.mark.parametrize("draw", ["normal", "rare", "skewed"])
def test_a_confidence_sequence_looked_at_after_every_unit_errs_less_than_it_may(draw):
    """From 100 per arm to 2,000: normal, 1 % binary and lognormal data."""
    rng, trials, last = np.random.default_rng(17), 2_000, 2_000
    shape = (trials, last)
    draws = {"normal": rng.standard_normal, "rare": lambda s: (rng.random(s) < 0.01) * 1.0,
             "skewed": lambda s: rng.lognormal(0, 2, s)}  # fmt: skip
    n = np.arange(1, last + 1)
    moments = []
    for _ in range(2):
        values = draws[draw](shape)
        mean = values.cumsum(axis=1) / n
        moments.append((mean, (values**2).cumsum(axis=1) / n - mean**2))
    (m0, v0), (m1, v1) = moments
    with np.errstate(divide="ignore", invalid="ignore"):
        z = np.nan_to_num((m1 - m0) / np.sqrt((v0 + v1) / n))[:, FEWEST // 2 :]
    evidence = two_sided_evidence(z, 2 * n[FEWEST // 2 :], spread=mixture(0.05, 5_000))
    assert (evidence >= 20).any(axis=1).mean() <= 0.05


def test_a_fixed_test_is_students():
    assert Fixed(0.1).critical(math.inf, 0) == pytest.approx(norm.ppf(0.95))
