"""What a trial's state, its evidence and the time say to do."""

from __future__ import annotations

from datetime import timedelta

import msgspec
import numpy as np
import pytest

from leaven.duration import instant
from leaven.experiments import Canary, Shadow
from leaven.experiments.evidence import ArmEvidence, CanaryEvidence
from leaven.experiments.side_by_side import ShadowEvidence
from leaven.experiments.trial import Trial, evidence_digest, reconcile, steps_of
from leaven.stats.moments import moments

ROLLOUT = (Shadow("1d"), Canary(0.1, 0.5, each="12h"))
LOSS = np.random.default_rng(0).gamma(0.8, 0.6, 2_000)


def a_trial(**other):
    given = {"id": "t", "loop": "shop", "challenger": "2", "champion": "1", "opened_at": 0, "since": 0}
    return Trial(**(given | other))


def act(trial, evidence, *, hours=24):
    now = instant(trial.since) + timedelta(hours=hours)
    return reconcile(trial, ROLLOUT, evidence, now=now, metric="log_loss")


def shadow(excess=0.0, size=2_000, failed=0):
    loss = LOSS[:size]
    noise = np.random.default_rng(1).normal(0, 0.01, size)
    difference = excess + noise
    compared = {"challenger_loss": moments(loss + difference), "loss_difference": moments(difference)}
    return ShadowEvidence(size, failed, size, failed, champion_loss=moments(loss), **compared)


def canary(factor=1.0, failures=0):
    champion = ArmEvidence(1_000, loss=moments(LOSS[:1_000]))
    return CanaryEvidence(champion, ArmEvidence(1_000, failures, failures, failures, moments(factor * LOSS[1_000:])))


def test_the_steps_are_those_of_all_stages_in_order():
    assert [(stage, step.share) for stage, step in steps_of(ROLLOUT)] == [
        (ROLLOUT[0], 1.0), (ROLLOUT[1], 0.1), (ROLLOUT[1], 0.5),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("step", "evidence", "expected"),
    [(0, shadow(), "advance"), (0, shadow(0.3), "stop"), (0, shadow(failed=500), "stop"), (0, shadow(size=50), "hold"),
     (1, canary(), "advance"), (2, canary(), "promote"), (1, canary(3.0), "roll_back"),
     (2, canary(failures=9), "roll_back"), (1, CanaryEvidence(), "hold")],
)  # fmt: skip
def test_passing_the_last_step_promotes_and_failing_ends_the_trial(step, evidence, expected):
    action = act(a_trial(step=step), evidence)
    assert action.do == expected
    assert (action.step, action.rule) == (step, repr(steps_of(ROLLOUT)[step][0]))


def test_running_out_of_patience_never_promotes():
    assert act(a_trial(), shadow(size=50), hours=14 * 24).do == "stop"
    assert act(a_trial(step=2), CanaryEvidence(), hours=14 * 24).do == "roll_back"


def test_a_trial_past_its_last_step_is_promoted():
    assert act(a_trial(step=3), None).do == "promote"
    assert reconcile(a_trial(), (), None, now=instant(0), metric="log_loss").do == "promote"


def test_the_same_evidence_again_is_the_same_look_and_new_evidence_the_next():
    seen = shadow(0.032)  # just within the margin: neither clear yet
    assert act(a_trial(looks=0), seen).look == 1
    assert act(a_trial(looks=4, seen=evidence_digest(seen)), seen).look == 4
    assert act(a_trial(looks=4, seen="something else"), seen).look == 5


def test_the_decision_depends_on_state_evidence_and_time_alone():
    trial, evidence = a_trial(step=1, looks=3), canary()
    assert act(trial, evidence) == act(msgspec.json.decode(msgspec.json.encode(trial), type=Trial), evidence)


def test_a_clock_that_is_behind_the_trial_counts_as_no_time_at_all():
    assert act(a_trial(), shadow(), hours=-5).do == "hold"
