"""Cadence: closed forms, known optima that are found again, and the three honest refusals."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from leaven.errors import BadDefinition
from leaven.training.cadence import Staleness, best_interval, cost_per_day, fit_staleness, recommend
from leaven.training.freshness import excess_draws, freshness_curve

AGES = (0.0, 1.0, 3.0, 7.0, 14.0, 30.0)


def losses(staleness, *, windows=40, noise=0.01, seed=0):
    """A back-test: each window has its own difficulty and its own noise per model."""
    rng = np.random.default_rng(seed)
    hard = rng.normal(0.6, 0.1, (windows, 1))
    return hard + staleness.at(AGES) + rng.normal(0, noise, (windows, len(AGES)))


def advised(matrix, *, seed=1, draws=200, **asked):
    curve = freshness_curve(matrix, AGES, rng=np.random.default_rng(seed), draws=draws)
    drawn = excess_draws(matrix, rng=np.random.default_rng(seed), draws=draws)
    return recommend(curve, drawn, **({"cost": 1.0, "value": 10.0, "lag": 0.0, "floor_days": 1.0} | asked))


def test_the_closed_forms():
    assert best_interval(Staleness("linear", 0.02), cost=1.0, value=10.0) == pytest.approx(math.sqrt(2 / 0.2))
    power = Staleness("power", 0.05, 0.5)
    assert best_interval(power, cost=2.0, value=3.0) == pytest.approx((2 * 1.5 / (0.15 * 0.5)) ** (1 / 1.5))
    bends = Staleness("saturating", 0.3, 5.0)
    found = best_interval(bends, cost=1.0, value=10.0)
    x = found / 5.0
    assert math.exp(-x) * (1 + x) == pytest.approx(1 - 1 / (3 * 5.0))


@pytest.mark.parametrize("staleness", [Staleness("linear", 0.02), Staleness("power", 0.05, 1.7),
                                       Staleness("saturating", 0.3, 5.0)])  # fmt: skip
@pytest.mark.parametrize("lag", [0.0, 3.0])
def test_no_other_interval_costs_less(staleness, lag):
    asked = {"cost": 1.0, "value": 10.0, "lag": lag}
    found = best_interval(staleness, **asked)
    searched = minimize_scalar(
        lambda days: cost_per_day(staleness, days, **asked), bounds=(0.01, 300), method="bounded"
    )
    assert found == pytest.approx(searched.x, rel=1e-3)


def test_twice_or_half_of_the_best_costs_a_quarter_more():
    staleness, asked = Staleness("linear", 0.02), {"cost": 1.0, "value": 10.0}
    best = best_interval(staleness, **asked)
    for factor in (0.5, 2.0):
        ratio = cost_per_day(staleness, factor * best, **asked) / cost_per_day(staleness, best, **asked)
        assert ratio == pytest.approx(1.25)


def test_saturation_that_never_pays_is_left_to_triggers():
    assert best_interval(Staleness("saturating", 0.02, 4.0), cost=1.0, value=10.0) is None
    advice = advised(losses(Staleness("saturating", 0.05, 4.0), noise=0.002), cost=5.0)
    assert (advice.verdict, advice.interval_days) == ("trigger only", None)
    assert "triggers" in advice.why


def test_no_slope_is_not_enough_evidence_and_a_negative_one_no_reason_for_a_timer():
    flat = advised(losses(Staleness("linear", 0.0)))
    assert (flat.verdict, flat.interval_days) == ("not enough evidence", None)
    better = advised(losses(Staleness("linear", -0.01)))
    assert better.verdict == "trigger only"


def test_the_floor_is_what_proving_takes():
    advice = advised(losses(Staleness("linear", 0.02), noise=0.001), floor_days=9.0)
    assert (advice.interval_days, advice.floor_days) == (9.0, 9.0)
    assert "floor" in advice.why


@pytest.mark.parametrize(
    "staleness", [Staleness("linear", 0.004), Staleness("saturating", 0.15, 6.0), Staleness("power", 0.02, 0.6)]
)
def test_a_known_optimum_lies_in_its_interval_in_nine_of_ten_runs(staleness):
    """Nominal 95 %; 60 runs, so 54 allow for chance at that level (P < 0.3 %)."""
    truth = best_interval(staleness, cost=1.0, value=10.0)
    held = 0
    for seed in range(60):
        advice = advised(losses(staleness, seed=seed), seed=seed, draws=120)
        low, high = advice.ci
        held += low is not None and low <= truth <= (math.inf if high is None else high)
    assert held >= 54


def test_the_slope_covers_the_truth_and_windows_of_their_own_difficulty_do_not_widen_it():
    held, wide = 0, []
    for seed in range(200):
        matrix = losses(Staleness("linear", 0.004), windows=12, noise=0.02, seed=seed)
        curve = freshness_curve(matrix, AGES, rng=np.random.default_rng(seed), draws=2)
        low, high = curve.slope_ci
        held += low <= 0.004 <= high
        wide.append(high - low)
    assert held >= 180
    spread = np.std(np.subtract(AGES, np.mean(AGES))) * math.sqrt(6)
    assert np.mean(wide) < 2 * 2.3 * 0.02 / (spread * math.sqrt(12))


def test_ages_that_were_not_measured_are_left_out():
    matrix = losses(Staleness("linear", 0.01), noise=0.0)
    matrix[3, 2] = matrix[5, 0] = np.nan
    curve = freshness_curve(matrix, AGES, rng=np.random.default_rng(0), draws=50)
    assert curve.excess == pytest.approx(0.01 * np.array(AGES), abs=1e-9)
    with pytest.raises(BadDefinition, match="3 or more"):
        freshness_curve(matrix[:2], AGES, rng=np.random.default_rng(0))


def test_the_shape_is_recognised():
    assert fit_staleness(AGES, Staleness("linear", 0.1).at(AGES)).family == "linear"
    bends = fit_staleness(AGES, Staleness("saturating", 0.2, 5.0).at(AGES))
    assert bends.family == "saturating"
    assert bends.shape == pytest.approx(5.0, rel=0.1)
