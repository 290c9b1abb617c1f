"""What shadow and canary conclude, and how often they are wrong over all their looks."""

from __future__ import annotations

import math
from datetime import timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import t

from leaven.errors import BadDefinition
from leaven.experiments import Canary, Shadow
from leaven.experiments.evidence import ArmEvidence, CanaryEvidence, ShadowEvidence
from leaven.experiments.stage import Step
from leaven.stats.moments import Moments, moments

HOUR, DAY = timedelta(hours=1), timedelta(days=1)


def shadow_seen(champion, challenger, **other):
    losses = {"champion_loss": moments(champion), "challenger_loss": moments(challenger),
              "loss_difference": moments(challenger - champion)}  # fmt: skip
    return ShadowEvidence(**({"pairs": len(champion), "units": len(champion)} | losses | other))


def canary_seen(champion=None, canary=None, **other):
    def arm(losses, prefix):
        counts = {name.removeprefix(prefix): kept for name, kept in other.items() if name.startswith(prefix)}
        count = 0 if losses is None else len(losses)
        kept = Moments() if losses is None else moments(losses)
        return ArmEvidence(**({"units": count, "requests": count, "loss": kept} | counts))

    return CanaryEvidence(arm(champion, "champion_"), arm(canary, "canary_"))


def judged(stage, evidence, *, elapsed=DAY, look=1, step=0):
    return stage.judge(stage.steps()[step], evidence, elapsed=elapsed, look=look, metric="log_loss")


def losses(size, *, mean=0.5, seed=0):
    return np.random.default_rng(seed).gamma(0.8, mean / 0.8, size)


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
    verdict = judged(Shadow("1d"), shadow_seen(champion, champion + 0.2), look=3)
    assert (verdict.outcome, verdict.looked) == ("stop", True)
    assert "look 3" in verdict.why
    assert f"{champion.mean():.4f}" in verdict.why


@pytest.mark.parametrize(
    ("failed", "outcome"), [(9, "hold"), (12, "hold"), (40, "stop"), (1_000, "stop")],
)  # fmt: skip
def test_a_shadow_that_fails_for_far_more_units_than_tolerated_is_stopped_at_once(failed, outcome):
    evidence = ShadowEvidence(pairs=1_000, units=1_000, failures=failed, failed_units=failed)
    assert judged(Shadow("1d", failures=0.01), evidence, elapsed=HOUR).outcome == outcome


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
        return judged(Canary(share, fail_fast=5), canary_seen(**seen, **champion), look=1_000).outcome

    assert [after(failed) for failed in (4, units - 1, units)] == ["hold", "hold", "stop"]
    assert after(units, champion_failures=1, champion_failed_units=1) == "hold"


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


@pytest.mark.parametrize("look", [1, 2, 7])
def test_each_look_is_judged_at_its_own_part_of_alpha(look):  # oracle: SciPy's quantiles
    """The least advantage that passes is the quantile at alpha / (k (k + 1)), one-sided; for a canary at half of it."""
    champion, noise = np.full(400, 0.5), np.random.default_rng(0).normal(0, 0.1, 400)
    noise -= noise.mean()
    error = 0.05 / (look * (look + 1))
    needed = t.ppf(1 - error, 399) * noise.std(ddof=1) / 20
    for factor, outcome in ((1.01, "advance"), (0.99, "hold")):
        paired = shadow_seen(champion, champion + noise - factor * needed)
        assert judged(Shadow("1d", margin=0.0), paired, look=look).outcome == outcome
    spread = champion + noise
    welch = t.ppf(1 - error / 2, 798) * noise.std(ddof=1) * math.sqrt(2 / 400)
    for factor, outcome in ((1.01, "advance"), (0.99, "hold")):
        beside_it = canary_seen(spread, spread - factor * welch)
        assert judged(Canary(0.5, margin=0.0), beside_it, look=look).outcome == outcome


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
    """3,000 trials of 100 looks: a shadow just beyond its margin, a canary that is no worse."""
    if isinstance(stage, Shadow):
        found = conclusions(stage, 3_000, champion=gammas(0.5), challenger=beside(0.02501, 0.02), looks=100)
        assert found["advance"] <= limit(0.05, 3_000)
    else:
        found = conclusions(stage, 3_000, champion=gammas(0.5), challenger=gammas(0.5), looks=100)
        assert found["stop"] <= limit(0.025, 3_000)


# Values


@pytest.mark.parametrize("wrong", [
    lambda: Shadow("1x"), lambda: Shadow("1d", share=0), lambda: Shadow("1d", share=1.1),
    lambda: Shadow("1d", alpha=0), lambda: Shadow("1d", margin=-1), lambda: Shadow("1d", min_units=1),
    lambda: Shadow("1d", failures=1), lambda: Shadow("1d", metric="roc_auc"), lambda: Shadow("1d", patience="x"),
    Canary, lambda: Canary(0), lambda: Canary(1.0), lambda: Canary(0.5, 0.1), lambda: Canary(0.1, 0.1),
    lambda: Canary(0.1, alpha=1), lambda: Canary(0.1, margin=math.nan), lambda: Canary(0.1, min_units=1),
    lambda: Canary(0.1, fail_fast=0), lambda: Canary(0.1, metric="roc_auc"), lambda: Canary(0.1, each="-1d"),
])  # fmt: skip
def test_what_is_no_stage_is_refused(wrong):
    with pytest.raises(BadDefinition):
        wrong()


inner = st.floats(0, 1, exclude_min=True, exclude_max=True)
stages = st.one_of(
    st.builds(Shadow, st.sampled_from(["1d", "90min"]), share=inner, metric=st.sampled_from([None, "brier"]),
              margin=st.floats(0, allow_nan=False), failures=inner, min_units=st.integers(2, 10**6), alpha=inner),
    st.builds(lambda shares, **other: Canary(*sorted(shares), **other), st.sets(inner, min_size=1, max_size=4),
              each=st.sampled_from(["1d", "12h"]), metric=st.sampled_from([None, "log_loss", 'odd "name"']),
              margin=st.floats(0, allow_nan=False), fail_fast=st.integers(1, 99), min_units=st.integers(2, 99),
              patience=st.sampled_from(["14d", "2w"]), alpha=inner),
)  # fmt: skip


@given(stages)
def test_a_stage_prints_the_expression_that_makes_it_again(stage):
    assert eval(repr(stage)) == stage
    assert repr(eval(repr(stage))) == repr(stage)
    assert hash(eval(repr(stage))) == hash(stage)
