"""Cadence: closed forms, known optima that are found again, and the three honest refusals."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.signal import lfilter

from leaven.errors import BadDefinition
from leaven.training.cadence import recommend
from leaven.training.freshness import Scores, ageing_of
from leaven.training.staleness import Staleness, best_interval, cost_per_day, fit_staleness

AGES = (0.0, 1.0, 3.0, 7.0, 14.0, 30.0, 60.0)


def scores(staleness, *, days=330, noise=0.02, spacing=8, model=0.005, uneven=0.0, memory=15.0, seed=0):
    """A back-test: days of their own difficulty, models of their own luck; age may weigh more in some weeks."""
    rng = np.random.default_rng(seed)
    ends = np.arange(0, days, spacing)
    which, day = (each.ravel() for each in np.meshgrid(np.arange(len(ends)), np.arange(days), indexing="ij"))
    age = (day - ends[which]).astype(float)
    asked = (age >= 0) & (age <= AGES[-1])
    which, day, age = which[asked], day[asked], age[asked]
    keep = math.exp(-1 / memory)
    pace = lfilter([math.sqrt(1 - keep * keep)], [1, -keep], rng.normal(size=days), zi=[keep * rng.normal()])[0]
    loss = rng.normal(0.6, 0.1, days)[day] + staleness.at(age) * (1 + uneven * pace[day])
    loss += rng.normal(0, model, len(ends))[which] + rng.normal(0, noise, len(day))
    return Scores(day.astype(float), age, loss, rng.integers(500, 1000, days).astype(float)[day])


def advised(found, *, seed=1, draws=300, **asked):
    ageing = ageing_of(found, AGES, rng=np.random.default_rng(seed), draws=draws)
    return recommend(ageing, **({"cost": 1.0, "value": 10.0, "lag": 0.0, "floor_days": 1.0} | asked))


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
    advice = advised(scores(Staleness("saturating", 0.05, 4.0), noise=0.002), cost=5.0)
    assert (advice.verdict, advice.interval_days) == ("trigger only", None)
    assert "triggers" in advice.why


def test_no_slope_is_not_enough_evidence_and_a_negative_one_no_reason_for_a_timer():
    flat = advised(scores(Staleness("linear", 0.0)))
    assert (flat.verdict, flat.interval_days) == ("not enough evidence", None)
    better = advised(scores(Staleness("linear", -0.01)))
    assert better.verdict == "trigger only"


def test_the_floor_is_what_proving_takes():
    advice = advised(scores(Staleness("linear", 0.02), noise=0.001), floor_days=9.0)
    assert (advice.interval_days, advice.floor_days) == (9.0, 9.0)
    assert "floor" in advice.why


SHAPES = [
    Staleness("linear", 0.004), Staleness("saturating", 0.15, 40.0), Staleness("saturating", 0.15, 6.0),
    Staleness("power", 0.02, 0.6), Staleness("power", 0.001, 1.5),
]  # fmt: skip


def recovered(staleness, *, runs, lag=0.0, cost=10.0, **world):
    """How many runs advised, in how many the best interval lay in theirs, and by how much the advice costs more."""
    asked = {"cost": cost, "value": 10.0, "lag": lag}
    truth = best_interval(staleness, **asked) or math.inf
    told = held = 0
    more = []
    for seed in range(runs):
        advice = advised(scores(staleness, seed=seed, **world), seed=seed, draws=200, floor_days=0.0, **asked)
        if advice.verdict != "not enough evidence":
            low, high = (math.inf if bound is None else bound for bound in advice.ci)
            told, held = told + 1, held + (low <= truth <= high)
        if advice.interval_days is not None and truth < math.inf:
            costs = [cost_per_day(staleness, days, **asked) for days in (advice.interval_days, truth)]
            more.append(costs[0] / costs[1] - 1)
    return told, held, more


@pytest.mark.parametrize("staleness", SHAPES)
@pytest.mark.parametrize("noise", [0.02, 0.1])
def test_a_known_optimum_lies_in_its_interval_in_nine_of_ten_runs(staleness, noise):
    """Nominal 95 %, 40 runs; at 95 %, 36 or more hold in 95 % of such tests: the seeds are fixed."""
    told, held, more = recovered(staleness, runs=40, noise=noise, lag=2.0)
    assert told >= 38  # power
    assert held >= 0.9 * told
    assert not more or np.median(more) < 0.02  # what it is all for


@pytest.mark.slow  # 300 runs of each of 30 worlds: 3 minutes
@pytest.mark.parametrize("staleness", SHAPES)
@pytest.mark.parametrize(
    ("world", "least"),
    [
        ({"noise": 0.02}, 0.90), ({"noise": 0.1}, 0.90), ({"noise": 0.1, "days": 700}, 0.90),
        ({"noise": 0.05, "spacing": 3, "days": 200}, 0.90), ({"noise": 0.02, "uneven": 0.5, "memory": 10.0}, 0.90),
        # Models age twice as fast in one month as in another: eight blocks of a year are then not quite independent.
        ({"noise": 0.02, "uneven": 1.0, "memory": 15.0}, 0.85),
    ],
)  # fmt: skip
def test_known_optima_are_recovered_in_many_worlds(staleness, world, least):
    told, held, _ = recovered(staleness, runs=300, lag=2.0, **world)
    assert told >= 240
    assert held >= least * told


@pytest.mark.parametrize("world", [{}, {"noise": 0.1}, {"days": 150}])
def test_where_age_does_nothing_no_timer_is_recommended(world):
    """The slope's interval misses 0 in 5 % of runs, half of them above it; 80 runs."""
    verdicts = [advised(scores(Staleness("linear", 0.0), seed=seed, **world), draws=100).verdict for seed in range(80)]
    assert verdicts.count("timer") <= 7
    assert verdicts.count("not enough evidence") >= 68


def test_the_slope_covers_the_truth_and_days_of_their_own_difficulty_do_not_widen_it():
    held, wide = 0, []
    for seed in range(100):
        curve = ageing_of(
            scores(Staleness("linear", 0.004), seed=seed), AGES, rng=np.random.default_rng(0), draws=2
        ).curve
        held += curve.slope_ci[0] <= 0.004 <= curve.slope_ci[1]
        wide.append(curve.slope_ci[1] - curve.slope_ci[0])
    assert 88 <= held < 100
    assert np.mean(wide) < 0.001  # the days alone, standard deviation 0.1, would make it 0.002


def test_the_curve_is_least_squares_with_an_effect_for_each_window():
    """Oracle: the same fit with a dummy column per window, by NumPy's solver."""
    found = scores(Staleness("power", 0.02, 0.6), days=120)
    corners = np.column_stack([np.interp(found.age_days, AGES, row) for row in np.eye(len(AGES))])[:, 1:]
    windows = (found.window[:, None] == np.unique(found.window)).astype(float)
    root = np.sqrt(found.rows)[:, None] / (1 + found.age_days[:, None])
    solved = np.linalg.lstsq(root * np.hstack([corners, windows]), root[:, 0] * found.loss, rcond=None)[0]
    curve = ageing_of(found, AGES, rng=np.random.default_rng(0), draws=2).curve
    assert curve.excess[1:] == pytest.approx(solved[: len(AGES) - 1], abs=1e-9)


def test_scores_that_were_not_measured_are_left_out_and_a_short_past_is_refused():
    found = scores(Staleness("linear", 0.01), noise=0.0, model=0.0)
    found.loss[::17] = np.nan
    ageing = ageing_of(found, AGES, rng=np.random.default_rng(0), draws=50)
    assert ageing.curve.excess == pytest.approx(0.01 * np.array(AGES), abs=1e-9)
    with pytest.raises(BadDefinition, match="3 blocks"):
        ageing_of(scores(Staleness("linear", 0.01), days=80), AGES, rng=np.random.default_rng(0))


def test_the_shape_is_recognised():
    exact = {"noise": 1e-6, "model": 0.0}

    def shape(staleness):
        return fit_staleness(ageing_of(scores(staleness, **exact), AGES, rng=np.random.default_rng(0), draws=200))

    assert shape(Staleness("linear", 0.1)).family == "linear"
    bends = shape(Staleness("saturating", 0.2, 5.0))
    assert bends.family == "saturating"
    assert bends.shape == pytest.approx(5.0, rel=0.1)
    assert shape(Staleness("power", 0.02, 0.5)).family == "power"
