"""Arms whose units live in clusters: against statsmodels' clustered errors, and how often intervals cover."""

from __future__ import annotations

import math

import numpy as np
import pytest

from leaven.stats.clustered import clustered_estimates
from leaven.stats.comoments import Comoments, comoments
from leaven.stats.comparison import Fixed, compare, relative_bounds
from leaven.stats.estimate import Estimate, ratio_estimate


def village_trial(rng, *, villages=60, whole, effect=0.5):
    """Unit rows: village, arm and outcome; villages have levels of their own, and their own effects."""
    village = np.repeat(np.arange(villages), 12 + rng.poisson(4, villages))
    arm = (village % 2 == 0) if whole else rng.random(len(village)) < 0.5
    level, own = rng.normal(0, 1, villages), rng.normal(effect, 0.3, villages)
    before = rng.normal(size=len(village))
    y = 3 + level[village] + own[village] * arm + before + rng.normal(size=len(village))
    return village, arm.astype(int), y, before


def sums(village, arm, *columns):
    """Totals per village of each arm, and of both where both are."""
    villages = int(village.max()) + 1
    totals = [np.stack([np.bincount(village[arm == a], column[arm == a], minlength=villages) for column in columns])
              for a in (0, 1)]  # fmt: skip
    has = [np.bincount(village[arm == a], minlength=villages) > 0 for a in (0, 1)]
    kept = [comoments(*(column[there] for column in own)) for own, there in zip(totals, has, strict=True)]
    return *kept, comoments(*(column[has[0] & has[1]] for own in totals for column in own))


def compared(village, arm, y):
    control, other, covariance = clustered_estimates(*sums(village, arm, y, np.ones(len(y))))
    return compare(control, other, Fixed(), covariance=covariance)


@pytest.mark.parametrize("whole", [False, True])
def test_errors_are_those_of_least_squares_with_clustered_errors(whole):
    """Oracle, run here: statsmodels; its correction is taken off and ours, G / (G - 1) of each arm, put on."""
    api = pytest.importorskip("statsmodels.api")
    village, arm, y, _ = village_trial(np.random.default_rng(0), whole=whole)
    fitted = api.OLS(y, api.add_constant(arm)).fit(
        cov_type="cluster", cov_kwds={"groups": village, "use_correction": False}
    )
    found = compared(village, arm, y)
    assert found.difference == pytest.approx(float(fitted.params[1]), rel=1e-12)
    clusters = 30 if whole else 60
    assert found.standard_error == pytest.approx(float(fitted.bse[1]) * math.sqrt(clusters / (clusters - 1)), rel=1e-9)


def test_clusters_in_one_arm_each_are_independent_estimates():
    village, arm, y, _ = village_trial(np.random.default_rng(1), whole=True)
    control, other, both = sums(village, arm, y, np.ones(len(y)))
    assert both.count == 0
    theirs = compare(ratio_estimate(control), ratio_estimate(other), Fixed())
    assert compared(village, arm, y) == theirs


@pytest.mark.parametrize("whole", [False, True])
def test_intervals_over_clusters_cover_as_often_as_they_say(whole):
    """Calibration: 1,500 trials of 60 villages; 3 standard errors. Units as if independent fall short."""
    rng, trials, covered, naive = np.random.default_rng(2), 1_500, 0, 0
    for _ in range(trials):
        village, arm, y, _ = village_trial(rng, whole=whole)
        found = compared(village, arm, y)
        covered += found.low <= 0.5 <= found.high
        rows = [Estimate(y[arm == a].mean(), y[arm == a].var() / (arm == a).sum(), 2) for a in (0, 1)]
        naive += abs(rows[1].value - rows[0].value - 0.5) < 1.96 * math.sqrt(rows[0].variance + rows[1].variance)
    assert abs(covered / trials - 0.95) <= 3 * math.sqrt(0.95 * 0.05 / trials) + 0.005  # 30 clusters: near the limit
    assert (naive / trials < 0.8) == whole  # units of shared villages, taken as independent, are too cautious instead


def test_a_covariate_narrows_what_clusters_left_open():
    village, arm, y, before = village_trial(np.random.default_rng(3), whole=True)
    one = np.ones(len(y))
    plain = compared(village, arm, y)
    control, other, covariance = clustered_estimates(*sums(village, arm, y, one, y - before, one))
    found = compare(control, other, Fixed(), covariance=covariance)
    assert found.standard_error < plain.standard_error


def test_the_relative_interval_of_estimates_that_go_together_is_that_of_a_simulation():
    """Oracle: 400,000 draws of two correlated means; the log interval and Fieller's."""
    rng, cov = np.random.default_rng(4), [[0.04, 0.03], [0.03, 0.05]]
    for mean in (8.0, 0.7):
        draws = rng.multivariate_normal([8.0, mean], cov, 400_000)
        low, high = relative_bounds(Estimate(8.0, 0.04, 10**6), Estimate(mean, 0.05, 10**6), Fixed(), covariance=0.03)
        theirs = np.quantile(draws[:, 1] / draws[:, 0] - 1, [0.025, 0.975])
        assert (low, high) == pytest.approx(theirs, abs=0.004)


def test_numbers_in_another_order_keep_their_products():
    rng = np.random.default_rng(5)
    columns = rng.normal(size=(4, 30))
    ours, theirs = comoments(*columns).reordered([2, 3, 0, 1]), comoments(*columns[[2, 3, 0, 1]])
    assert ours.products == pytest.approx(theirs.products)
    assert ours.centres == theirs.centres
    assert Comoments().reordered([]) == Comoments()
