"""What an A/B test concludes, in which order, and how often it is wrong over all its looks."""

from __future__ import annotations

import math
from datetime import timedelta

import msgspec
import numpy as np
import pytest
from scipy.special import ndtri

from leaven.experiments import ABTest, Failures, Guardrail, Latency, Outcome
from leaven.experiments.ab_evidence import ABEvidence, Labelled
from leaven.experiments.ab_looks import days_left, look
from leaven.stats.boundaries import boundaries
from leaven.stats.comoments import Comoments, comoments
from leaven.stats.moments import Moments
from leaven.stats.quantiles import geometric_edges, quantile_counts
from tests.experiments.ab_runs import ends, judged, normal_sums, two_arms, with_day
from tests.experiments.ab_world import BOUGHT

HUNDRED = {"units": 14_000, "at_least": "1d"}
# What a single look at 7,000 units of each arm, with standard deviation 1, finds in 80 % of tests.
EFFECT = math.sqrt(2 / 7_000) * float(ndtri(0.975) + ndtri(0.8))


def exact(count: int, mean: float, sd: float = 1.0) -> Comoments:
    return Comoments(count, (mean,), (sd * sd * (count - 1),))


def after(days: int, cells, **told) -> ABEvidence:
    evidence = ABEvidence()
    for _ in range(days):
        evidence = with_day(evidence, cells, **told)
    return evidence


def arms(mean: float, *, count: int = 500, sd: float = 1.0):
    return exact(count, 1.0, sd), exact(count, mean, sd)


# The order of the verdicts


def test_a_split_that_is_not_the_planned_one_stops_before_anything_else_is_looked_at():
    better = after(5, {"log_loss": arms(0.5)})
    broken = msgspec.structs.replace(better, units=two_arms(2_500, 2_150))
    verdict = judged(ABTest(**HUNDRED), broken)
    assert verdict.outcome == "stop"
    assert "the split is broken: 2,500 units with the champion, 2,150 with the challenger" in verdict.why
    assert judged(ABTest(**HUNDRED, share=0.2), better).outcome == "stop"
    assert judged(ABTest(**HUNDRED), better).outcome == "advance"


@pytest.mark.parametrize(("crossed", "outcome"), [(50, "advance"), (51, "stop")])
def test_more_than_one_unit_in_a_hundred_in_both_arms_stops(crossed, outcome):
    seen = msgspec.structs.replace(after(5, {"log_loss": arms(0.5)}), crossed=crossed)
    assert judged(ABTest(**HUNDRED), seen).outcome == outcome


def test_a_few_units_in_both_arms_right_after_the_start_stop_nothing():
    seen = msgspec.structs.replace(after(1, {"log_loss": arms(1, count=20)}), crossed=9)
    assert judged(ABTest(**HUNDRED), seen).outcome == "hold"


def test_labels_that_are_missing_in_one_arm_more_than_in_the_other_give_no_verdict():
    def lacking(canary):
        labelled = two_arms(
            Labelled(500, 490, Moments(490, 1.0, 9.0)), Labelled(500, canary, Moments(canary, 2.0, 9.0))
        )
        return after(5, {"log_loss": arms(0.5)}, labelled=labelled)

    verdict = judged(ABTest(**HUNDRED), lacking(440))
    assert verdict.outcome == "stop"
    assert "2,450 of 2,500 champion units and 2,200 of 2,500 challenger units" in verdict.why
    assert "labels took 1 days with the champion, 2 with the challenger" in verdict.why
    assert judged(ABTest(**HUNDRED), lacking(488)).outcome == "advance"


def test_more_failures_than_the_share_explains_stop_even_where_nothing_is_measured_yet():
    seen = after(1, {"log_loss": (Comoments(), Comoments())}, units=two_arms(50, 50))
    failing = lambda canary: msgspec.structs.replace(seen, failed=two_arms(2, canary))  # noqa: E731
    assert judged(ABTest(**HUNDRED), failing(8)).outcome == "hold"
    verdict = judged(ABTest(**HUNDRED), failing(25))
    assert verdict.outcome == "stop"
    assert "25 challenger units met a failure and 2 champion units did" in verdict.why


def test_harm_by_the_metric_stops_at_any_look_and_harm_within_the_margin_does_not():
    seen = after(10, {"log_loss": arms(1.12)})
    verdict = judged(ABTest(**HUNDRED), seen)
    assert verdict.outcome == "stop"
    assert "log_loss: challenger 1.12 (5,000 units), champion 1 (5,000 units), difference +0.12" in verdict.why
    assert judged(ABTest(**HUNDRED, margin=0.2), seen).outcome != "stop"


def test_harm_by_a_guardrail_stops_a_challenger_that_is_better_by_the_metric():
    stage = ABTest(**HUNDRED, guardrails=[Guardrail(Outcome(BOUGHT), margin=0.02)])
    worse = after(10, {"log_loss": arms(0.8), "bought": arms(0.85)})
    verdict = judged(stage, worse)
    assert verdict.outcome == "stop"
    assert verdict.why.startswith("bought: challenger 0.85")


def test_a_guardrail_must_be_shown_to_stay_within_its_margin():
    stage = ABTest(**HUNDRED, guardrails=[Guardrail(Outcome(BOUGHT), margin=0.02)])
    vague = after(10, {"log_loss": arms(0.8), "bought": arms(1.0)})
    verdict = judged(stage, vague)
    assert verdict.outcome == "hold"
    assert "bought is not shown to stay within its margin of 0.02" in verdict.why
    sharp = after(10, {"log_loss": arms(0.8), "bought": arms(1.0, sd=0.1)})
    assert judged(stage, sharp).outcome == "advance"


def test_failures_have_an_absolute_margin_that_holds_where_nothing_fails():
    stage = ABTest(**HUNDRED, guardrails=[Guardrail(Failures(), margin=0.005)])
    none = Comoments(500, (0.0,), (0.0,))
    assert judged(stage, after(2, {"log_loss": arms(0.7), "failures": (none, none)})).outcome == "hold"
    verdict = judged(stage, after(10, {"log_loss": arms(0.7), "failures": (none, none)}))
    assert verdict.outcome == "advance"


def test_a_guardrail_on_time_passes_where_no_answer_took_any_as_in_a_replay():
    stage = ABTest(**HUNDRED, guardrails=[Guardrail(Latency(0.95))])
    edges = geometric_edges(1e-4, 600.0, precision=0.02)
    same = quantile_counts(np.zeros(500), np.arange(500), edges)
    slow = quantile_counts(np.full(500, 1e9), np.arange(500), edges)  # beyond what the sketch can tell
    assert judged(stage, after(5, {"log_loss": arms(0.7), "latency p95": (same, same)})).outcome == "advance"
    assert judged(stage, after(5, {"log_loss": arms(0.7), "latency p95": (slow, slow)})).outcome == "hold"


def test_a_slice_that_is_shown_to_be_worse_vetoes_unless_slices_are_not_protected():
    cells = {
        "log_loss": arms(0.8),
        "log_loss@country=DE": arms(0.7, count=400),
        "log_loss@country=FR": arms(1.5, count=100),
    }
    told = after(10, cells)
    verdict = judged(ABTest(**HUNDRED, slices=["country"]), told)
    assert verdict.outcome == "hold"
    assert "it is worse where country=FR" in verdict.why
    assert judged(ABTest(**HUNDRED, slices=["country"], protect=False), told).outcome == "advance"


def test_with_a_margin_it_is_enough_not_to_be_worse():
    same = after(14, {"log_loss": arms(1.0)})
    assert judged(ABTest(**HUNDRED), same).outcome == "give_up"
    verdict = judged(ABTest(**HUNDRED, margin=0.1), same)
    assert verdict.outcome == "advance"
    assert "within the margin of 0.1" in verdict.why


# When


def test_nothing_is_promoted_before_its_least_time_and_no_error_is_spent_before():
    stage = ABTest(units=14_000, at_least="7d")
    early = after(4, {"log_loss": arms(0.5)})
    assert judged(stage, early).outcome == "hold"
    assert look(stage.design("log_loss"), early)[0] is None
    first = after(6, {"log_loss": arms(0.5)})  # the sixth day's bucket closes on day 7
    assert judged(stage, first).outcome == "advance"
    assert look(stage.design("log_loss"), first)[0].rule.looks == (pytest.approx(6 / 14),)


def test_a_look_needs_new_units_and_its_boundary_is_that_of_all_looks_before():
    stage, evidence = ABTest(**HUNDRED), ABEvidence()
    for count in (500, 500, 100, 500):  # the third adds 1.4 % of the plan: too little for a look
        evidence = with_day(evidence, {"log_loss": arms(0.99, count=count)})
        rule, share = look(stage.design("log_loss"), evidence)
        assert (rule is None) == (count == 100)
    assert share == pytest.approx(3_200 / 14_000)
    assert rule.rule.looks == pytest.approx((1 / 14, 2 / 14, 3_200 / 14_000))
    bound = boundaries(rule.rule.looks, alpha=0.05)[-1]
    for factor, outcome in ((1.01, "advance"), (0.99, "hold")):
        gain = factor * bound * math.sqrt(2 / 1_600)
        steps = ABEvidence()
        for count in (500, 500, 100, 500):
            steps = with_day(steps, {"log_loss": arms(1 - gain * 1.0013, count=count)})  # Student's tail, not normal
        assert judged(stage, steps).outcome == outcome


def test_the_full_plan_or_the_end_of_patience_without_proof_gives_up_with_the_numbers():
    stage = ABTest(**HUNDRED, patience="20d", secondary=["brier"])
    verdict = judged(stage, after(14, {"log_loss": arms(0.99), "brier": arms(1.0)}))
    assert verdict.outcome == "give_up"
    assert "100% of 14,000 planned units are measured" in verdict.why
    assert "not enough evidence; beside it: brier +0 (p = 1)" in verdict.why
    some = after(4, {"log_loss": arms(0.99), "brier": arms(1.0)})
    assert judged(stage, some).outcome == "hold"
    assert judged(stage, some, days=20).outcome == "give_up"


@pytest.mark.parametrize(
    "cells",
    [
        {"log_loss": (exact(500, 0.0, 0.0), exact(500, 0.0, 0.0))},
        {"log_loss": (exact(500, 1.0, 0.0), exact(500, 0.5, 0.0))},
        {"log_loss": (exact(500, 1.0), Comoments())},
        {"log_loss": (Comoments(), Comoments())},
    ],
    ids=["all alike", "constant in each arm", "one arm empty", "no labels"],
)
def test_where_nothing_can_be_compared_it_holds_and_in_the_end_gives_up(cells):
    evidence = after(14, cells, units=two_arms(500, 500))
    labelled = {"rule": two_arms(Labelled(7_000, 7_000), Labelled(7_000, 7_000))}
    evidence = msgspec.structs.replace(evidence, labelled=labelled)
    assert judged(ABTest(**HUNDRED), evidence).outcome == "hold"
    assert judged(ABTest(**HUNDRED), evidence, days=42).outcome == "give_up"


def test_before_the_first_unit_it_holds():
    stage = ABTest()
    (step,) = stage.steps()
    verdict = stage.judge(step, ABEvidence(), elapsed=timedelta(0), look=1, metric="log_loss")
    assert (verdict.outcome, verdict.why) == ("hold", "no unit has met an arm yet")


def test_the_days_left_follow_from_those_who_came_in_and_the_pace_of_late():
    stage = ABTest(units=10_000, at_least="1d")
    evidence = msgspec.structs.replace(
        after(4, {"log_loss": arms(1.0)}), entered=(1_000, 1_000, 1_000, 1_000, 1_000, 500, 100)
    )
    # 4,000 in; the open days bring 1,500; 4,500 more at (5 * 1,000 + 500) / 6 a day take 5 days from day 6 on; the
    # last of these closes a day after its end: on day 12.
    assert days_left(stage.design("log_loss"), evidence, timedelta(days=6.25)) == pytest.approx(12 - 6.25)
    nobody = msgspec.structs.replace(evidence, entered=(1_000,) * 4 + (0,) * 9)
    assert days_left(stage.design("log_loss"), nobody, timedelta(days=13)) is None
    verdict = judged(ABTest(units=10_000, at_least="1d", patience="11d"), evidence, days=6.25)
    assert "about 5.8 days left at the pace of late, beyond its patience of 11 days" in verdict.why


def test_the_same_record_gives_the_same_words_again():
    stage = ABTest(**HUNDRED, guardrails=[Guardrail(Outcome(BOUGHT))])
    told = after(9, {"log_loss": arms(0.97), "bought": arms(1.0, sd=0.2)})
    again = msgspec.convert(msgspec.json.decode(msgspec.json.encode(told)), ABEvidence)
    assert judged(stage, again) == judged(stage, told)


def test_the_shrunk_difference_stands_beside_the_raw_one():
    # True differences spread by 0.3 of the champion's 1; a standard error of 0.3 takes half off.
    verdict = judged(ABTest(**HUNDRED), after(1, {"log_loss": arms(0.9, sd=0.3 * math.sqrt(500 / 2))}))
    assert "difference -0.1 [" in verdict.why
    assert "shrunk -0.05;" in verdict.why


# How often it errs: 14 daily looks at 500 units of each arm and day, on whole tests through the stage itself


def share(told, outcome):
    return sum(each == outcome for each, _, _ in told) / len(told)


def se(rate, runs):
    return math.sqrt(rate * (1 - rate) / runs)


def normal(effect: float):
    return lambda rng: (normal_sums(rng, 500, 1.0), normal_sums(rng, 500, 1.0 + effect))


def binary(rate: float, effect: float = 0.0):
    def draw(rng):
        sums = []
        for chance in (rate, rate + effect):
            hits = int(rng.binomial(500, chance))
            sums.append(Comoments(500, (hits / 500,), (hits * (1 - hits / 500),)))
        return tuple(sums)

    return draw


@pytest.mark.parametrize("draw", [normal(0.0), binary(0.1)], ids=["normal", "binary"])
def test_no_difference_is_hardly_ever_promoted_and_hardly_ever_called_harm(draw):
    """Calibration, 80 tests; tolerance: 3 standard errors."""
    told = ends(ABTest(**HUNDRED), draw, days=14, runs=80, seed=1)
    assert share(told, "advance") <= 0.055 + 3 * se(0.055, 80)
    assert share(told, "stop") <= 0.025 + 3 * se(0.025, 80)
    assert share(told, "advance") + share(told, "stop") + share(told, "give_up") == 1


@pytest.mark.parametrize("counts", [(900, 100), (100, 900)], ids=["a small challenger", "a small champion"])
def test_an_arm_in_which_something_rare_has_not_happened_yet_is_no_proof(counts):
    """1 % of the units do it, in both arms, one of which has a tenth of the units: 60 tests.

    By each arm's own variance alone, 29 % are promoted or stopped.
    """

    def draw(rng):
        return tuple(comoments((rng.random(count) < 0.01).astype(float)) for count in counts)

    told = ends(ABTest(**HUNDRED, share=counts[1] / 1_000), draw, days=14, runs=60, seed=5)
    assert 1 - share(told, "give_up") <= 0.05 + 3 * se(0.05, 60)


def test_an_improvement_that_one_look_finds_in_four_of_five_tests_is_promoted_nearly_as_often():
    """Power, 120 tests; tolerance: 3 standard errors."""
    told = ends(ABTest(**HUNDRED), normal(-EFFECT), days=14, runs=120, seed=2)
    assert share(told, "advance") >= 0.77 - 3 * se(0.77, 120)


def test_a_harm_of_twice_that_size_is_found_within_days():
    told = ends(ABTest(**HUNDRED), normal(2 * EFFECT), days=14, runs=80, seed=3)
    assert share(told, "stop") >= 0.98
    assert np.mean([day for outcome, day, _ in told if outcome == "stop"]) <= 4.5


def delayed(rng, *, over: float = 10.0):
    """A day of units who buy in 10 % of cases, told after 1 day on average, and 2 with the challenger."""
    arms, labels = [], []
    for mean in (1.0, 2.0):
        bought, late = rng.random(500) < 0.1, rng.exponential(mean, 500)
        arms.append(comoments((bought & (late <= over)).astype(float)))
        labels.append(Labelled(500, 500, Moments(50, mean, 1.0)))
    return arms, labels


def ends_with_delays(runs: int, *, over: float) -> list[str]:
    """Tests whose buckets close after so many days, looked at daily."""
    rng, stage, told = np.random.default_rng(4), ABTest(Outcome(BOUGHT), **HUNDRED), []
    for _ in range(runs):
        evidence = ABEvidence()
        for _ in range(14):
            sums, labels = delayed(rng, over=over)
            evidence = with_day(evidence, {"bought": tuple(sums)}, labelled=two_arms(*labels), lag=over)
            verdict = judged(stage, evidence)
            if verdict.outcome != "hold":
                break
        told.append(verdict.outcome)
    return told


def test_labels_that_come_later_with_the_challenger_do_not_count_against_it():
    """Both arms are alike; every bucket waits 10 days. With 1 day, the slower arm is called worse."""
    told = ends_with_delays(60, over=10.0)
    wrong = sum(outcome in ("advance", "stop") for outcome in told) / len(told)
    assert wrong <= 0.06 + 3 * se(0.06, 60)
    hasty = ends_with_delays(20, over=1.0)
    assert hasty.count("stop") >= 18


@pytest.mark.slow
@pytest.mark.timeout(1_800)
def test_the_promises_hold_in_thousands_of_tests():
    stage, runs = ABTest(**HUNDRED), 2_000
    for draw in (normal(0.0), binary(0.1), binary(0.01)):
        told = ends(stage, draw, days=14, runs=runs, seed=11)
        assert share(told, "advance") <= 0.025 + 3 * se(0.025, runs)
        assert share(told, "stop") <= 0.025 + 3 * se(0.025, runs)
    found = ends(stage, normal(-EFFECT), days=14, runs=runs, seed=12)
    assert share(found, "advance") >= 0.77 - 3 * se(0.77, runs)  # 78.0 % by integration
    harmed = ends(stage, normal(2 * EFFECT), days=14, runs=1_000, seed=13)
    assert np.mean([day for outcome, day, _ in harmed if outcome == "stop"]) <= 4.5
    delays = ends_with_delays(1_000, over=10.0)
    assert sum(outcome in ("advance", "stop") for outcome in delays) / 1_000 <= 0.06
