"""Splits against SciPy and two libraries' worked numbers, and how often a true split is called broken."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare, dirichlet_multinomial, multinomial

from leaven.errors import BadDefinition
from leaven.stats.split import running_p_value, split_evidence, split_p_value
from tests.stats.simulated_trials import hourly_split


def test_worked_case_6_chi_square():
    assert split_p_value([8200, 7800], [1, 1]) == pytest.approx(0.001565, abs=5e-7)
    assert split_p_value([5050, 2480, 2470], [0.5, 0.25, 0.25]) == pytest.approx(0.600496, abs=5e-7)


def test_an_arm_without_a_share_is_left_out_of_the_degrees_of_freedom():
    assert split_p_value([5200, 4800, 0], [1, 1, 0]) == split_p_value([5200, 4800], [1, 1])
    assert split_p_value([5200, 4800, 0], [1, 1, 0]) == pytest.approx(6.33e-5, rel=1e-3)


def test_worked_case_7_sequential():
    seen = np.cumsum([[2600, 2400], [2750, 2550], [2850, 2850]], axis=0)
    evidence = split_evidence(seen, [0.5, 0.5])
    assert evidence == pytest.approx([7.063780, 214.921794, 11.320073], rel=1e-6)
    assert running_p_value(evidence) == pytest.approx([0.141567, 0.004653, 0.004653], abs=5e-7)
    flat = running_p_value(split_evidence(seen, [0.5, 0.5], prior_units=10_000))
    assert flat == pytest.approx([0.322800, 0.027673, 0.027673], abs=5e-7)


@given(st.lists(st.integers(0, 4000), min_size=2, max_size=5).filter(any), st.data())
def test_splits_are_scipys(counts, data):
    shares = np.array(data.draw(st.lists(st.floats(0.05, 1), min_size=len(counts), max_size=len(counts))))
    total, expected = sum(counts), sum(counts) * shares / shares.sum()
    assert split_p_value(counts, shares) == pytest.approx(chisquare(counts, expected).pvalue, rel=1e-6, abs=1e-12)
    planned = shares / shares.sum()
    theirs = dirichlet_multinomial.logpmf(counts, 100 * planned, total) - multinomial.logpmf(counts, total, planned)
    ours = split_evidence(counts, shares)
    assert np.log(ours) == pytest.approx(theirs, rel=1e-7, abs=1e-7) if theirs < 700 else ours > 1e300


@pytest.mark.parametrize(
    ("counts", "shares"),
    [([1, 2], [1]), ([1, 2, 3], [1, 1, 0]), ([-1, 2], [1, 1]), ([1, 2], [0, 0]), ([1, 2], [1, -1])],
)  # fmt: skip
def test_counts_and_shares_that_do_not_fit_are_refused(counts, shares):
    for judge in (split_p_value, split_evidence):
        with pytest.raises(BadDefinition):
            judge(counts, shares)


def test_before_the_first_unit_there_is_no_evidence():
    assert split_p_value([0, 0], [1, 1]) == 1.0
    assert split_evidence([0, 0], [1, 1]) == pytest.approx(1.0)


def test_a_true_split_looked_at_hourly_for_28_days_is_called_broken_in_at_most_one_percent():  # calibration
    trials = 2_000
    broken = (split_evidence(hourly_split(0.5, trials=trials, per_hour=42, seed=6), [1, 1]) > 100).any(axis=1)
    assert broken.mean() <= 0.01 + 3 * math.sqrt(0.01 * 0.99 / trials)


def test_a_split_of_52_to_48_is_found_within_28_days():  # power: 1,000 units a day
    found = (split_evidence(hourly_split(0.52, trials=300, per_hour=42, seed=7), [1, 1]) > 100).any(axis=1)
    assert found.mean() > 0.97
