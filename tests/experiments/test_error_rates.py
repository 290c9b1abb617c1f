"""How often shadow and canary err over all their looks, and how soon they find what is wrong."""

from __future__ import annotations

import math

import numpy as np
import pytest

from leaven.experiments import Canary, Shadow
from leaven.experiments.evidence import ArmEvidence, CanaryEvidence
from leaven.experiments.side_by_side import ShadowEvidence
from leaven.stats.log_counts import LogCounts, log_counts
from leaven.stats.moments import Moments, moments
from tests.experiments.seen import HOUR, canary_seen, judged, shadow_seen

# How often they err. Every run looks up to 20 times at evidence that grows, as a controller does.


def conclusions(stage, runs, *, champion, challenger, share=0.5, looks=20, per_look=60, seed=0):
    """How often each outcome ended a run; losses per unit are drawn by the two functions of (rng, size)."""
    rng, told = np.random.default_rng(seed), []
    size = looks * per_look
    ours = round(size * share) if isinstance(stage, Canary) else size
    for _ in range(runs):
        base = champion(rng, size - ours if isinstance(stage, Canary) else size)
        other = challenger(rng, ours) if isinstance(stage, Canary) else challenger(rng, base)
        told.append(_first_conclusion(stage, base, other, looks))
    return {outcome: told.count(outcome) / runs for outcome in ("advance", "stop", "hold")}


def _first_conclusion(stage, base, other, looks):
    for look in range(1, looks + 1):
        one, two = base[: len(base) * look // looks], other[: len(other) * look // looks]
        seen = canary_seen(one, two) if isinstance(stage, Canary) else shadow_seen(one, two)
        outcome = judged(stage, seen, look=look).outcome
        if outcome != "hold":
            return outcome
    return "hold"


def gammas(mean):
    return lambda rng, size: rng.gamma(0.8, mean / 0.8, size)


def beside(excess, spread):
    return lambda rng, champion: champion + excess + rng.normal(0, spread, len(champion))


def limit(alpha, runs):
    return alpha + 3 * math.sqrt(alpha * (1 - alpha) / runs)


@pytest.mark.parametrize("spread", [0.01, 0.05, 0.3], ids=lambda spread: f"differences spread by {spread}")
def test_a_shadow_beyond_the_margin_is_passed_no_oftener_than_promised_over_all_looks(spread):
    """The mean loss is 0.5, the margin 5 % of it, the challenger just beyond: 400 trials of 20 looks."""
    found = conclusions(Shadow("1d"), 400, champion=gammas(0.5), challenger=beside(0.02501, spread))
    assert found["advance"] <= limit(0.05, 400)
    assert found["stop"] <= limit(0.05, 400)


@pytest.mark.parametrize(("excess", "outcome"), [(0.0, "advance"), (0.06, "stop")])
def test_a_shadow_as_good_as_the_champion_is_passed_and_one_far_beyond_is_stopped(excess, outcome):
    found = conclusions(Shadow("1d"), 200, champion=gammas(0.5), challenger=beside(excess, 0.05))
    assert found[outcome] >= 0.95


@pytest.mark.parametrize("share", [0.1, 0.5, 0.8])
def test_a_canary_beyond_the_margin_is_passed_no_oftener_than_promised_over_all_looks(share):
    """A margin of 25 %, the canary's loss just beyond it: 600 trials of 20 looks; at most alpha / 2."""
    stage = Canary(share, each="1d")
    found = conclusions(stage, 600, champion=gammas(0.5), challenger=gammas(0.62501), share=share, per_look=200)
    assert found["advance"] <= limit(0.025, 600)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.8])
def test_a_canary_that_is_no_worse_is_stopped_no_oftener_than_promised_over_all_looks(share):
    stage = Canary(share, each="1d", margin=0.0)  # the margin protects it further: without one it is hardest
    found = conclusions(stage, 600, champion=gammas(0.5), challenger=gammas(0.5), share=share, per_look=200)
    assert found["stop"] <= limit(0.025, 600)


@pytest.mark.parametrize(("mean", "outcome"), [(0.45, "advance"), (0.9, "stop")])
def test_a_canary_that_is_better_is_passed_and_a_harmful_one_is_stopped(mean, outcome):
    found = conclusions(Canary(0.5, each="1d"), 200, champion=gammas(0.5), challenger=gammas(mean), per_look=200)
    assert found[outcome] >= 0.95


@pytest.mark.parametrize(
    ("rate", "share", "least", "most"),
    [(0.01, 0.1, 0.0, 0.025), (0.01, 0.5, 0.0, 0.025), (0.01, 0.8, 0.0, 0.025), (0.08, 0.1, 0.9, 1.0)],
)
def test_failures_stop_a_canary_that_fails_oftener_and_hardly_ever_one_that_does_not(rate, share, least, most):
    """400 trials of 20 looks, 100 units each, of which the champion fails 1 %; who fails once fails five times."""
    rng, stopped, runs = np.random.default_rng(8), 0, 400
    stage, ours = Canary(share), round(100 * share)
    for _ in range(runs):
        failed = np.cumsum(rng.binomial(ours, rate, 20)), np.cumsum(rng.binomial(100 - ours, 0.01, 20))
        for look in range(1, 21):
            f, c = int(failed[0][look - 1]), int(failed[1][look - 1])
            champion = {"champion_units": (100 - ours) * look, "champion_failures": 5 * c, "champion_failed_units": c}
            canary = {"canary_units": ours * look, "canary_failures": 5 * f, "canary_failed_units": f}
            if judged(stage, canary_seen(**champion, **canary), look=look, elapsed=HOUR).outcome == "stop":
                stopped += 1
                break
    assert least <= stopped / runs <= limit(most, runs)


@pytest.mark.slow
@pytest.mark.parametrize("stage", [Shadow("1d"), Canary(0.5, each="1d", margin=0.0)], ids=["shadow", "canary"])
def test_the_promises_hold_over_a_hundred_looks_as_well(stage):
    """1,500 trials of 100 looks: a shadow just beyond its margin, a canary that is no worse."""
    if isinstance(stage, Shadow):
        found = conclusions(stage, 1_500, champion=gammas(0.5), challenger=beside(0.02501, 0.02), looks=100)
        assert found["advance"] <= limit(0.05, 1_500)
    else:
        found = conclusions(stage, 1_500, champion=gammas(0.5), challenger=gammas(0.5), looks=100)
        assert found["stop"] <= limit(0.025, 1_500)


def test_a_shadow_that_fails_as_often_as_tolerated_is_hardly_ever_stopped_for_it():
    """Calibration: 300 shadows that fail for the tolerated 1 % of the units, a look after each 100 of 2,000 units."""
    rng, stopped, stage = np.random.default_rng(7), 0, Shadow("1d", failures=0.01)
    for _ in range(300):
        failed = np.cumsum(rng.binomial(100, 0.01, 20))
        seen = [
            ShadowEvidence(pairs=n, units=n, failed_units=int(f))
            for n, f in zip(range(100, 2_001, 100), failed, strict=False)
        ]
        stopped += any(judged(stage, one, elapsed=HOUR).outcome == "stop" for one in seen)
    assert stopped / 300 <= 0.05


# A canary at 50 requests a second, each by a unit of its own, a tenth of them its own, looked at every 10 seconds.
CANARY, CHAMPION = 50, 450  # units between two looks


def minutes_until_stopped(runs, looks, arms, *, seed):
    """Minutes after which the stage stops each run, infinite where it does not; `arms` draws both after each look."""
    rng, stage, took = np.random.default_rng(seed), Canary(0.1), []
    for _ in range(runs):
        for look, (champion, canary) in enumerate(arms(rng, looks), start=1):
            if judged(stage, CanaryEvidence(champion, canary), elapsed=HOUR).outcome == "stop":
                took.append(look / 6)
                break
        else:
            took.append(math.inf)
    return np.array(took)


def failing(champion, canary):
    def arms(rng, looks):
        counts = [rng.binomial(units, rate, looks).cumsum().tolist()
                  for units, rate in ((CHAMPION, champion), (CANARY, canary))]  # fmt: skip
        for look, (theirs, ours) in enumerate(zip(*counts, strict=True), start=1):
            yield (ArmEvidence(CHAMPION * look, theirs, CHAMPION * look, theirs),
                   ArmEvidence(CANARY * look, ours, CANARY * look, ours))  # fmt: skip

    return arms


def waiting(factor, *, median=0.03):
    def arms(rng, looks):
        seconds = [LogCounts(), LogCounts()]
        for look in range(1, looks + 1):
            for arm, (units, slower) in enumerate(((CHAMPION, 1.0), (CANARY, factor))):
                seconds[arm] += log_counts(rng.lognormal(math.log(slower * median), 0.5, units))
            yield (ArmEvidence(CHAMPION * look, seconds=seconds[0]), ArmEvidence(CANARY * look, seconds=seconds[1]))

    return arms


@pytest.mark.parametrize("rate", [0.005, 0.03])
def test_a_canary_that_fails_as_often_as_the_champion_is_hardly_ever_stopped(rate):
    """Calibration: 200 quarters of an hour; of alpha, 0.05, failures have 0.35."""
    stopped = np.isfinite(minutes_until_stopped(200, 90, failing(rate, rate), seed=1)).mean()
    assert stopped <= limit(0.35 * 0.05, 200)


def test_a_canary_that_fails_four_times_as_often_is_stopped_within_three_minutes():
    assert np.median(minutes_until_stopped(200, 60, failing(0.005, 0.02), seed=2)) <= 3


@pytest.mark.parametrize("factor", [1.0, 1.5])
def test_a_canary_that_is_no_slower_than_tolerated_is_hardly_ever_stopped(factor):
    """Calibration: 100 times 10 minutes; of alpha, slowness has 0.15."""
    stopped = np.isfinite(minutes_until_stopped(100, 60, waiting(factor), seed=3)).mean()
    assert stopped <= limit(0.15 * 0.05, 100)


def test_a_canary_that_is_twice_as_slow_is_stopped_within_two_minutes():
    assert np.median(minutes_until_stopped(50, 30, waiting(2.0), seed=4)) <= 2


def test_a_canary_that_is_slow_only_where_nobody_notices_is_not_stopped():
    assert np.isinf(minutes_until_stopped(20, 30, waiting(3.0, median=0.001), seed=5)).all()


def clustered(rng, looks, *, returning, new, alike, mean, visits=0.4):
    """Evidence of a shadow after each look, where units come back: rows are Poisson, and `alike` within a unit.

    Args:
        returning: Units that are there from the beginning.
        new: Units that join at each look.
        alike: Share of a row's variance that all rows of its unit have in common.
        mean: Of the loss differences.
    """
    size = returning + new * looks
    born = np.concatenate([np.zeros(returning), np.repeat(np.arange(looks), new)])
    own, sums, counts = rng.normal(mean, math.sqrt(alike), size), np.zeros(size), np.zeros(size)
    rows = Moments()
    for look in range(looks):
        came = rng.poisson(visits, size) * (born <= look)
        unit = np.repeat(np.arange(size), came)
        difference = own[unit] + rng.normal(0, math.sqrt(1 - alike), len(unit))
        sums, counts, rows = sums + np.bincount(unit, difference, size), counts + came, rows + moments(difference)
        met = counts > 0
        paired = moments(sums[met] / counts[met])
        champion = Moments(paired.count, 1.0, 0.0)  # the margin, a share of it, is 0
        yield ShadowEvidence(
            units=paired.count, champion_loss=champion, challenger_loss=paired, loss_difference=paired,
            row_loss_difference=rows,
        )  # fmt: skip


@pytest.mark.parametrize("alike", [0.0, 0.3, 0.9])
@pytest.mark.parametrize(("returning", "new"), [(200, 0), (60, 20)], ids=["the same units", "ever more units"])
def test_units_that_come_back_let_a_shadow_decide_wrongly_no_oftener_than_promised(alike, returning, new):
    """Calibration: 200 trials of 40 looks at a challenger that is as good as the champion."""
    rng, told, stage = np.random.default_rng(6), [], Shadow("1d", margin=0.0, decides=True)
    for _ in range(200):
        seen = clustered(rng, 40, returning=returning, new=new, alike=alike, mean=0.0)
        outcomes = (judged(stage, one, elapsed=HOUR).outcome for one in seen)
        told.append(next((outcome for outcome in outcomes if outcome != "hold"), "hold"))
    assert told.count("promote") / 200 <= limit(0.05, 200)
    assert told.count("stop") / 200 <= limit(0.05, 200)


def test_a_shadow_that_is_better_is_promoted():
    """Power: a fifth of a standard deviation, within 40 looks."""
    rng, stage = np.random.default_rng(7), Shadow("1d", decides=True)
    runs = [clustered(rng, 40, returning=60, new=20, alike=0.3, mean=-0.2) for _ in range(100)]
    promoted = [any(judged(stage, one, elapsed=HOUR).outcome == "promote" for one in seen) for seen in runs]
    assert np.mean(promoted) >= 0.95
