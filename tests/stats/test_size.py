"""Sizes against statsmodels, run here, and whether a trial of that size finds what it must."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from leaven.errors import BadDefinition
from leaven.stats.size import Plan, days_for, units_for_means, units_for_rates


def test_worked_case_8():
    assert units_for_means(1.0, Plan(0.15)) == pytest.approx(698.638151, abs=5e-7)


@pytest.mark.parametrize("mde", [0.02, -0.15, 0.8])
@pytest.mark.parametrize(("alpha", "power", "ratio"), [(0.05, 0.8, 1.0), (0.01, 0.95, 0.25), (0.1, 0.9, 3.0)])
def test_units_for_means_are_statsmodels(mde, alpha, power, ratio):
    statsmodels = pytest.importorskip("statsmodels.stats.power")
    theirs = statsmodels.tt_ind_solve_power(effect_size=abs(mde), alpha=alpha, power=power, ratio=ratio)
    assert units_for_means(2.0, Plan(2 * mde, alpha, power, ratio)) == pytest.approx(float(theirs), rel=1e-6)


def test_many_units_are_those_of_the_normal_distribution():
    statsmodels = pytest.importorskip("statsmodels.stats.power")
    theirs = statsmodels.NormalIndPower().solve_power(effect_size=0.001, alpha=0.05, power=0.8)
    assert units_for_means(1.0, Plan(0.001)) == pytest.approx(float(theirs), rel=1e-5)


def test_units_for_rates_have_the_power_that_statsmodels_computes():
    proportions = pytest.importorskip("statsmodels.stats.proportion")
    for rate, mde in ((0.1, 0.01), (0.02, -0.005)):
        units = units_for_rates(rate, Plan(mde))
        theirs = proportions.power_proportions_2indep(mde, rate, units)  # under its null it pools the rates
        assert float(theirs.power) == pytest.approx(0.8, abs=0.005)


def test_a_trial_of_that_size_finds_the_effect_as_often_as_planned():  # 4,000 trials of each, 3 standard errors
    rng, trials = np.random.default_rng(4), 4_000
    units = math.ceil(units_for_rates(0.1, Plan(0.03, ratio=0.5)))
    control, arm = rng.binomial(units, 0.1, trials) / units, rng.binomial(units // 2, 0.13, trials) / (units // 2)
    error = np.sqrt(control * (1 - control) / units + arm * (1 - arm) / (units // 2))
    found = np.mean(np.abs(arm - control) / error > 1.959964)
    assert abs(found - 0.8) <= 3 * math.sqrt(0.16 / trials) + 0.005


@given(st.floats(-0.95, 0.95))
def test_a_covariate_saves_what_it_explains(correlation):
    plain, adjusted = (units_for_rates(0.3, Plan(0.02, correlation=r)) for r in (0.0, correlation))
    assert adjusted == pytest.approx(plain * (1 - correlation**2))


@pytest.mark.parametrize(
    ("units", "newcomers", "window", "days"),
    [
        (1_000, [100], 0, 10),
        (1_000, [100], 3, 13),
        (10, [100], 0, 7),
        (10, [100], 9, 18),
        (1_000, [500, 300, 100], 0, 7),
        (2_000, [500, 300, 100], 0, 14),
        (2_000, [500, 300, 0], 0, None),
    ],
)
def test_days_follow_the_curve_of_new_units_and_are_never_less_than_a_week(units, newcomers, window, days):
    assert days_for(units, newcomers, window=window) == days


@pytest.mark.parametrize(
    "wrong", [{"mde": 0}, {"mde": 1, "alpha": 2}, {"mde": 1, "power": 0.01}, {"mde": 1, "ratio": 0}]
)
def test_plans_that_make_no_sense_are_refused(wrong):
    with pytest.raises(BadDefinition):
        Plan(**wrong)


def test_values_that_make_no_sense_are_refused():
    with pytest.raises(BadDefinition, match="standard deviation"):
        units_for_means(0, Plan(1))
    with pytest.raises(BadDefinition, match="not both rates"):
        units_for_rates(0.95, Plan(0.1))
    with pytest.raises(BadDefinition, match="less than none"):
        days_for(10, [-1])
