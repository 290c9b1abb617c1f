"""What holds, holds; and a watch keeps its error rates, however often one looks."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import timedelta

import numpy as np
import pytest

from leaven.errors import BadDefinition
from leaven.experiments import Approval, Canary, Pause, Shadow, Watch
from leaven.experiments.assignment import POSITIONS, position
from leaven.experiments.evidence import ArmEvidence, CanaryEvidence, UnitDays, WatchEvidence
from leaven.experiments.routing import arms_for
from leaven.experiments.showing import shown
from leaven.experiments.trial import check_rollout, ends_in_promotion, steps_of, watch_of
from leaven.stats.moments import Moments, moments

HOUR = timedelta(hours=1)


def test_a_step_that_holds_routes_what_the_step_before_it_does():
    rollout = [Approval(), Shadow("1d"), Pause("1h"), Canary(0.1, 0.5), Pause("1h"), Approval(), Watch("1d")]
    routed = [(step.kind, step.share) for _, step in steps_of(rollout)]
    assert routed == [
        ("wait", 0.0), ("shadow", 1.0), ("shadow", 1.0), ("canary", 0.1), ("canary", 0.5), ("canary", 0.5),
        ("canary", 0.5), ("watch", 0.05),
    ]  # fmt: skip
    assert (watch_of(rollout), watch_of(rollout[:-1]), watch_of([])) == (7, None, None)
    assert [ends_in_promotion(rollout, step) for step in range(8)] == [False] * 6 + [True, True]


@pytest.mark.parametrize(
    ("rollout", "says"),
    [
        ([Watch("1d"), Canary(0.1)], "something follows a Watch"),
        ([Canary(0.98), Watch("1d")], "0.98 of the units before a holdback of 0.05"),
    ],
)
def test_a_rollout_whose_watch_does_not_fit_is_refused(rollout, says):
    with pytest.raises(BadDefinition, match=says):
        check_rollout(rollout, where="rollout")


@pytest.mark.parametrize(
    "make",
    [
        lambda: Watch("never"), lambda: Watch("1d", holdback=0.6), lambda: Watch("1d", holdback=-0.1),
        lambda: Watch("1d", alpha=0.0), lambda: Watch("1d", metric="roc_auc"), lambda: Watch("1d", fail_fast=0),
        lambda: Pause("soon"), lambda: Pause("1d", alpha=2.0), lambda: Approval(3), lambda: Approval(patience=""),
        lambda: Approval(fail_fast=0),
    ],
)  # fmt: skip
def test_bounds_out_of_range_are_refused(make):
    with pytest.raises(BadDefinition):
        make()


def test_the_arms_of_a_holdback_cover_all_units_once_and_add_up():
    arms = arms_for(("2", "b"), holdback=("1", "a"), held=0.05)
    assert [(arm.arm, arm.version) for arm in arms] == [("champion", "2"), ("holdback", "1")]
    assert (arms[0].low, arms[0].high, arms[1].high) == (0, arms[1].low, POSITIONS)
    assert math.fsum(arm.propensity for arm in arms) == 1.0
    places = np.array([position(f"user-{n}", salt="s") for n in range(20_000)])
    in_holdback = ((places >= arms[1].low) & (places < arms[1].high)).mean()
    assert in_holdback == pytest.approx(0.05, abs=5 * math.sqrt(0.05 * 0.95 / 20_000))
    assert len(arms_for(("2", "b"), holdback=("1", "a"), held=0.0)) == 1


def test_units_of_the_holdback_never_met_the_canary():
    canary = arms_for(("1", "a"), ("2", "b"), share=0.95)[0]
    holdback = arms_for(("2", "b"), holdback=("1", "a"), held=0.05)[1]
    assert canary.high <= holdback.low


LOSS = np.random.default_rng(11).gamma(2.0, 0.25, 4_000)


def held(failed=0, factor=1.0):
    champion = ArmEvidence(2_000, 0, 2_000, 0, moments(LOSS[:2_000]))
    return CanaryEvidence(champion, ArmEvidence(500, failed, 500, failed, moments(factor * LOSS[2_000:2_500])))


def told(stage, evidence, *, elapsed, kind=("canary", 0.2)):
    (step,) = stage.steps()
    step = replace(step, kind=kind[0], share=kind[1])
    return stage.judge(step, evidence, elapsed=elapsed, look=1, metric="log_loss")


@pytest.mark.parametrize("stage", [Pause("6h"), Approval(patience="6h")])
def test_what_holds_waits_unless_harm_is_shown(stage):
    ending = "advance" if isinstance(stage, Pause) else "give_up"
    assert told(stage, held(), elapsed=5 * HOUR).outcome == "hold"
    assert told(stage, held(), elapsed=6 * HOUR).outcome == ending
    for harmful in (held(failed=12), held(factor=3.0)):
        for elapsed in (HOUR, 9 * HOUR):
            assert told(stage, harmful, elapsed=elapsed).outcome == "stop"
    # where nobody is served, nobody can be harmed
    assert told(stage, CanaryEvidence(), elapsed=HOUR, kind=("shadow", 1.0)).outcome == "hold"


def judged(watch, evidence, *, elapsed=HOUR):
    (step,) = watch.steps()
    return watch.judge(step, evidence, elapsed=elapsed, look=1, metric="log_loss")


def test_a_watch_says_what_it_lacks_and_keeps_what_nothing_speaks_against():
    watch = Watch("6h", holdback=0.2)
    assert "fewer than the 50" in judged(watch, WatchEvidence()).why
    assert judged(watch, WatchEvidence()).outcome == "hold"
    assert judged(watch, WatchEvidence(), elapsed=6 * HOUR).outcome == "advance"
    alone = Watch("6h", holdback=0.0)
    assert "no holdback" in judged(alone, WatchEvidence()).why


def test_fail_fast_needs_a_champion_before_that_failed_less():
    days = UnitDays(500, 60)
    failing = ArmEvidence(500, 60, 500, 60)
    for watch in (Watch("1d", holdback=0.0), Watch("1d", holdback=0.01)):
        assert judged(watch, WatchEvidence(failing, days=days, before=UnitDays(900, 2))).outcome == "stop"
        assert judged(watch, WatchEvidence(failing, days=days, before=UnitDays(900, 110))).outcome == "hold"
        assert judged(watch, WatchEvidence(failing, days=days)).outcome == "hold"


def test_the_rows_of_a_watch_are_the_numbers_of_its_verdict():
    watch = Watch("1d", holdback=0.4)
    arms = (ArmEvidence(900, 9, 900, 9, moments(LOSS[:900])), ArmEvidence(600, 3, 600, 3, moments(LOSS[900:1_500])))
    loss, failures = shown(watch, watch.steps()[0], WatchEvidence(*arms), look=3, metric="log_loss")
    assert loss.difference == pytest.approx(LOSS[:900].mean() - LOSS[900:1_500].mean())
    assert loss.low < loss.difference < loss.high
    assert loss.n == (600, 900)
    assert (failures.control, failures.value) == (0.005, 0.01)
    alone = Watch("1d", holdback=0.0)
    evidence = WatchEvidence(arms[0], days=UnitDays(1_800, 9), before=UnitDays(100, 1))
    (row,) = shown(alone, alone.steps()[0], evidence, look=3, metric="log_loss")
    assert (row.metric, row.control, row.value) == ("failed unit-days", 0.01, 0.005)


DAYS, RUNS = 14, 400


def rolled_back(watch, *, seed, failing=(0.01, 0.01), factor=1.0, per_day=600, before=4_000):
    """In which share of the runs a watch of 14 daily looks rolls back; `failing` are rates of holdback and champion."""
    rng, found = np.random.default_rng(seed), 0
    for _ in range(RUNS):
        failed_before = UnitDays(before, int(rng.binomial(before, failing[0])))
        champion, holdback, loss, control = [0, 0], [0, 0], Moments(), Moments()
        for _ in range(DAYS):
            new = rng.binomial(per_day, watch.holdback)
            for arm, units, rate in ((holdback, new, failing[0]), (champion, per_day - new, failing[1])):
                arm[0] += units
                arm[1] += int(rng.binomial(units, rate))
            loss = loss + moments(factor * rng.gamma(1.0, 0.5, per_day - new))
            control = control + moments(rng.gamma(1.0, 0.5, new))
            evidence = WatchEvidence(
                ArmEvidence(champion[0], champion[1], champion[0], champion[1], loss),
                ArmEvidence(holdback[0], holdback[1], holdback[0], holdback[1], control),
                UnitDays(*champion), failed_before,
            )  # fmt: skip
            if judged(watch, evidence).outcome == "stop":
                found += 1
                break
    return found / RUNS


@pytest.mark.parametrize("holdback", [0.0, 0.05, 0.2])
def test_a_champion_that_is_no_worse_is_rolled_back_no_more_often_than_promised(holdback):
    """400 watches, a look on each of 14 days; tolerance: 3 standard errors."""
    found = rolled_back(Watch("14d", holdback=holdback), seed=1)
    assert found <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / RUNS)


@pytest.mark.parametrize(
    ("holdback", "worse"),
    [
        (0.2, {"factor": 1.25}),
        (0.05, {"factor": 1.5}),
        (0.2, {"failing": (0.01, 0.03)}),
        (0.0, {"failing": (0.01, 0.03)}),
    ],
)
def test_a_champion_that_is_worse_is_rolled_back(holdback, worse):
    """By a quarter of the loss with a fifth held back, by a half with a twentieth; three times the failures."""
    assert rolled_back(Watch("14d", holdback=holdback), seed=2, **worse) >= 0.8
