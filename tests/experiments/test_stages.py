"""What shadow and canary conclude from what they have seen."""

from __future__ import annotations

import math

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm, t

from leaven.errors import BadDefinition
from leaven.experiments import Canary, Shadow
from leaven.experiments.side_by_side import ShadowEvidence
from leaven.experiments.stage import Step
from leaven.stats.anytime import effective_answers
from leaven.stats.confidence_sequence import mixture, one_sided_evidence
from leaven.stats.log_counts import log_counts
from leaven.stats.moments import Moments, moments
from tests.experiments.seen import DAY, HOUR, canary_seen, judged, losses, shadow_seen

# Shadow


def test_a_shadow_is_one_step_and_a_canary_one_per_share():
    assert Shadow("1d", share=0.5).steps() == (Step("shadow", 0.5, DAY, 14 * DAY),)
    assert [step.share for step in Canary(0.1, 0.5, each="12h").steps()] == [0.1, 0.5]


def test_a_shadow_holds_until_its_time_and_its_labels_have_come():
    stage, champion = Shadow("1d", min_units=100), losses(500)
    enough, few = shadow_seen(champion, champion * 0.9), shadow_seen(champion[:99], champion[:99])
    assert judged(stage, enough, elapsed=DAY - HOUR).outcome == "hold"
    assert judged(stage, enough).outcome == "advance"
    assert judged(stage, few).outcome == "hold"
    assert judged(stage, few, elapsed=14 * DAY).outcome == "give_up"
    assert not judged(stage, few).looked


def test_a_shadow_that_cannot_be_told_apart_from_its_margin_gives_up_at_last():
    champion = losses(500)
    close = shadow_seen(champion, champion * 1.05 + np.random.default_rng(0).normal(0, 0.2, 500))
    assert [judged(Shadow("1d"), close, elapsed=days * DAY).outcome for days in (1, 13, 14)] == [
        "hold", "hold", "give_up",
    ]  # fmt: skip


def test_a_worse_shadow_is_stopped_with_the_numbers_that_say_so():
    champion = losses(500)
    verdict = judged(Shadow("1d"), shadow_seen(champion, champion + 0.2), elapsed=HOUR)
    assert (verdict.outcome, verdict.looked) == ("stop", True)
    assert f"{champion.mean():.4f}" in verdict.why


@pytest.mark.parametrize(
    ("failed", "outcome"), [(9, "hold"), (12, "hold"), (40, "stop"), (1_000, "stop")],
)  # fmt: skip
def test_a_shadow_that_fails_for_far_more_units_than_tolerated_is_stopped_at_once(failed, outcome):
    evidence = ShadowEvidence(pairs=1_000, units=1_000, failures=failed, failed_units=failed)
    assert judged(Shadow("1d", failures=0.01), evidence, elapsed=HOUR).outcome == outcome


@pytest.mark.parametrize(("excess", "outcome"), [(-0.05, "promote"), (0.0, "advance"), (0.02, "hold"), (0.2, "stop")])
def test_a_shadow_that_decides_promotes_what_is_shown_to_be_better_and_judges_the_rest_as_ever(excess, outcome):
    champion = losses(500)
    noise = np.random.default_rng(1).normal(0, 0.05, 500)
    seen = shadow_seen(champion, champion + excess + noise - noise.mean())
    stage = Shadow("1d", decides=True)
    assert judged(stage, seen).outcome == outcome
    assert judged(stage, seen, elapsed=HOUR).outcome == {"advance": "hold"}.get(outcome, outcome)
    assert judged(Shadow("1d"), seen).outcome == {"promote": "advance"}.get(outcome, outcome)
    if outcome == "promote":
        assert "the challenger's loss is lower, by 0.0500" in judged(stage, seen).why


# Canary


def test_a_canary_step_is_passed_once_its_time_is_over_and_its_loss_is_within_the_margin():
    stage, seen = Canary(0.5, each="1d"), canary_seen(losses(900), losses(900, seed=1))
    assert judged(stage, seen, elapsed=DAY - HOUR).outcome == "hold"
    assert judged(stage, seen).outcome == "advance"


def test_a_harmful_canary_does_not_wait_for_its_time():
    seen = canary_seen(losses(900), losses(900, mean=1.0, seed=1))
    assert judged(Canary(0.5), seen, elapsed=HOUR).outcome == "stop"


def test_a_canary_that_is_worse_by_less_than_the_margin_is_not_stopped():
    champion = losses(200_000)
    verdict = judged(Canary(0.5, margin=0.25), canary_seen(champion, champion * 1.1))
    assert verdict.outcome == "advance"


@pytest.mark.parametrize(("share", "units"), [(0.1, 5), (0.3, 5), (0.5, 9)])
def test_the_first_units_that_fail_stop_the_canary_where_all_of_them_are_its_own(share, units):
    def after(failed, **champion):
        seen = {"champion_units": 900, "canary_units": 900, "canary_failed_units": failed, "canary_failures": failed}
        return judged(Canary(share, fail_fast=5), canary_seen(**seen, **champion))

    assert [after(failed).outcome for failed in (1, units - 1, units)] == ["hold", "hold", "stop"]
    assert "no champion unit did" in after(units).why
    assert "no champion unit did" not in after(units, champion_failures=1, champion_failed_units=1).why


def test_a_single_unit_that_fails_again_and_again_does_not_stop_the_canary():
    seen = canary_seen(champion_units=900, canary_units=100, canary_failures=500, canary_failed_units=1)
    assert judged(Canary(0.1), seen).outcome == "hold"


def test_more_failures_than_the_champion_has_stop_the_canary():
    seen = {"champion_units": 900, "champion_failures": 9, "champion_failed_units": 9, "canary_units": 100}
    assert judged(Canary(0.1), canary_seen(canary_failed_units=2, canary_failures=2, **seen)).outcome == "hold"
    verdict = judged(Canary(0.1), canary_seen(canary_failed_units=12, canary_failures=12, **seen))
    assert verdict.outcome == "stop"
    assert "12 of 100" in verdict.why


def test_a_canary_without_labels_waits_and_then_gives_up():
    few = canary_seen(losses(900), losses(49, seed=1))
    assert judged(Canary(0.1), few).outcome == "hold"
    assert judged(Canary(0.1), few, elapsed=14 * DAY).outcome == "give_up"


@pytest.mark.parametrize("paired", [True, False])
def test_a_step_is_passed_exactly_where_the_evidence_against_its_margin_is_enough(paired):
    """Oracle: the one-sided mixture, at the quantile of Student's tail; alpha for a shadow, half of it for a canary."""
    champion, noise = np.full(400, 0.5), np.random.default_rng(0).normal(0, 0.1, 400)
    noise -= noise.mean()
    if paired:
        seen = lambda less: shadow_seen(champion, champion + noise - less)  # noqa: E731
        stage, alpha, n, df, error = Shadow("1d", margin=0.0), 0.05, 400, 399, noise.std(ddof=1) / 20
    else:
        seen = lambda less: canary_seen(champion + noise, champion + noise - less)  # noqa: E731
        stage, alpha, n, df = Canary(0.5, margin=0.0), 0.025, 800, 798
        error = noise.std(ddof=1) * math.sqrt(2 / 400)
    for z in np.linspace(2.0, 4.0, 41):
        enough = one_sided_evidence(z, n, spread=mixture(2 * alpha, 500)) >= 1 / alpha
        less = -t.ppf(norm.sf(z), df) * error
        for look in (1, 1_000):  # a look costs nothing
            assert judged(stage, seen(less), look=look).outcome == ("advance" if enough else "hold")


def test_answers_of_one_unit_tell_less_the_more_alike_they_are():
    rng = np.random.default_rng(2)
    per_unit = moments(rng.normal(size=300))
    alike = Moments(3_000, per_unit.centre, 10 * per_unit.spread)
    apart = Moments(3_000, per_unit.centre, 100 * per_unit.spread)
    assert effective_answers(per_unit, alike) == pytest.approx(300, rel=0.01)
    assert effective_answers(per_unit, apart) == pytest.approx(3_000, rel=0.01)
    assert effective_answers(per_unit, Moments()) == 300


@pytest.mark.parametrize(("factor", "outcome"), [(1.0, "hold"), (1.45, "hold"), (3.0, "stop")])
def test_a_canary_that_is_slower_than_tolerated_is_stopped(factor, outcome):
    rng = np.random.default_rng(3)
    champion, canary = (rng.lognormal(math.log(0.05 * each), 0.5, size) for each, size in ((1, 9_000), (factor, 1_000)))
    seen = {"champion_units": 9_000, "canary_units": 1_000}
    seen |= {"champion_seconds": log_counts(champion), "canary_seconds": log_counts(canary)}
    verdict = judged(Canary(0.1), canary_seen(**seen), elapsed=HOUR)
    assert verdict.outcome == outcome
    assert judged(Canary(0.1, slower=None), canary_seen(**seen)).outcome == "hold"
    assert judged(Canary(0.1, slow=5.0), canary_seen(**seen)).outcome == "hold"
    if outcome == "stop":
        assert "slower by more than the factor 1.5" in verdict.why
        assert "the canary 149, " in verdict.why  # milliseconds


def test_a_canary_gives_up_once_its_budget_of_units_is_spent():
    def verdict(exposed, stage, **other):
        seen = canary_seen(losses(900), losses(900, seed=1) + other.pop("more", 0.1))
        return judged(stage, msgspec.structs.replace(seen, exposed=exposed), **other)

    stage = Canary(0.1, most_units=1_000)
    assert [verdict(n, stage).outcome for n in (999, 1_000)] == ["hold", "give_up"]
    assert verdict(10_000, Canary(0.1)).outcome == "hold"
    assert verdict(1_000, stage, more=0.0).outcome == "advance"  # what is passed is passed
    assert "the canary has answered 1000 units, and 1000 are its budget" in verdict(1_000, stage).why


# Values


@pytest.mark.parametrize("wrong", [
    lambda: Shadow("1x"), lambda: Shadow("1d", share=0), lambda: Shadow("1d", share=1.1),
    lambda: Shadow("1d", alpha=0), lambda: Shadow("1d", margin=-1), lambda: Shadow("1d", min_units=1),
    lambda: Shadow("1d", failures=1), lambda: Shadow("1d", metric="roc_auc"), lambda: Shadow("1d", patience="x"),
    Canary, lambda: Canary(0), lambda: Canary(1.0), lambda: Canary(0.5, 0.1), lambda: Canary(0.1, 0.1),
    lambda: Canary(0.1, alpha=1), lambda: Canary(0.1, margin=math.nan), lambda: Canary(0.1, min_units=1),
    lambda: Canary(0.1, slower=0.9), lambda: Canary(0.1, slow=0), lambda: Canary(0.1, most_units=0),
    lambda: Canary(0.1, units=0), lambda: Shadow("1d", units=0), lambda: Canary(0.1, fail_fast=0),
    lambda: Canary(0.1, metric="roc_auc"), lambda: Canary(0.1, each="-1d"),
])  # fmt: skip
def test_what_is_no_stage_is_refused(wrong):
    with pytest.raises(BadDefinition):
        wrong()


inner = st.floats(0, 1, exclude_min=True, exclude_max=True)
stages = st.one_of(
    st.builds(Shadow, st.sampled_from(["1d", "90min"]), share=inner, metric=st.sampled_from([None, "brier"]),
              margin=st.floats(0, allow_nan=False), failures=inner, min_units=st.integers(2, 10**6), alpha=inner,
              units=st.integers(1, 10**6), decides=st.booleans()),
    st.builds(lambda shares, **other: Canary(*sorted(shares), **other), st.sets(inner, min_size=1, max_size=4),
              each=st.sampled_from(["1d", "12h"]), metric=st.sampled_from([None, "log_loss", 'odd "name"']),
              margin=st.floats(0, allow_nan=False), fail_fast=st.integers(1, 99), min_units=st.integers(2, 99),
              patience=st.sampled_from(["14d", "2w"]), alpha=inner, slower=st.none() | st.floats(1, 10),
              slow=st.floats(0, 9, exclude_min=True), most_units=st.none() | st.integers(1, 10**6)),
)  # fmt: skip


@given(stages)
def test_a_stage_prints_the_expression_that_makes_it_again(stage):
    assert eval(repr(stage)) == stage
    assert repr(eval(repr(stage))) == repr(stage)
    assert hash(eval(repr(stage))) == hash(stage)
