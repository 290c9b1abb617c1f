"""Corrections for many p-values against statsmodels and SciPy; failures of a canary; shrinkage."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import integrate, stats

from leaven.stats.corrections import benjamini_hochberg, holm
from leaven.stats.failures import more_failures_evidence
from leaven.stats.shrinkage import shrunk
from tests.stats.simulated_trials import a_canary

FIVE = (0.001, 0.012, 0.019, 0.041, 0.2)


def test_worked_case_9():
    assert holm(FIVE) == pytest.approx([0.005, 0.048, 0.057, 0.082, 0.2])
    assert benjamini_hochberg(FIVE) == pytest.approx([0.005, 0.03, 0.031667, 0.05125, 0.2], abs=5e-7)


def test_corrections_are_the_libraries():
    multitest = pytest.importorskip("statsmodels.stats.multitest")
    rng = np.random.default_rng(0)
    for size in (1, 2, 5, 12, 40):
        p_values = np.round(rng.beta(0.3, 1, size), 3)  # small ones, and ties
        assert holm(p_values) == pytest.approx(multitest.multipletests(p_values, method="holm")[1])
        assert benjamini_hochberg(p_values) == pytest.approx(stats.false_discovery_control(p_values))


def test_evidence_of_failures_is_the_mixture_it_stands_for():
    """Oracle: likelihood ratios integrated over a Beta prior that is cut at the share."""
    x, y, share = 9, 20, 0.2
    prior = stats.beta(10 * share, 10 * (1 - share))
    ratio = lambda theta: (theta / share) ** x * ((1 - theta) / (1 - share)) ** y * prior.pdf(theta)  # noqa: E731
    theirs = integrate.quad(ratio, share, 1)[0] / prior.sf(share)
    assert more_failures_evidence(y, x, share=share) == pytest.approx(theirs, rel=1e-8)
    assert more_failures_evidence(0, 0, share=share) == 1.0


def test_a_canary_that_fails_four_times_as_often_is_caught_within_three_minutes():  # power, median of 1,000
    control, canary = a_canary((0.005, 0.02), seconds=600, trials=1_000, seed=1)
    caught = more_failures_evidence(control, canary, share=0.1) >= 20
    first = np.where(caught.any(axis=1), caught.argmax(axis=1) + 1, 600)
    assert np.median(first) <= 180


@pytest.mark.parametrize("rates", [(0.03, 0.03), (0.03, 0.02)])
def test_a_healthy_canary_is_rolled_back_in_at_most_five_percent(rates):
    """Calibration: 30 minutes, a look a second."""
    control, canary = a_canary(rates, seconds=1_800, trials=500, seed=2)
    caught = (more_failures_evidence(control, canary, share=0.1) >= 20).any(axis=1)
    assert caught.mean() <= 0.05


def test_shrinking_undoes_what_stopping_on_success_exaggerates():
    """True effects N(0, 1), errors 1: of those found, raw estimates are too large on average, shrunk ones not."""
    rng = np.random.default_rng(3)
    truth = rng.normal(size=200_000)
    seen = truth + rng.normal(size=200_000)
    found = seen > 1.96
    left = np.array([shrunk(each, 1.0, usual=1.0) for each in seen[found][:20_000]])
    assert (seen[found] - truth[found]).mean() > 0.5
    assert abs((left - truth[found][:20_000]).mean()) < 3 * math.sqrt(0.5 / 20_000)
