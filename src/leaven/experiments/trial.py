"""Where does a trial stand, and what happens next?

The reconciler is level-triggered: from the trial's state, its evidence and the time alone it says what to do now. Run
twice, or after a crash, or an hour late, it says the same or what has become right meanwhile.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from hashlib import blake2b
from typing import Literal

import msgspec

from leaven.duration import instant
from leaven.experiments.evidence import Evidence
from leaven.experiments.stage import Stage, Step
from leaven.experiments.verdict import Verdict

TrialState = Literal["open", "promoted", "rolled_back", "stopped"]


class Trial(msgspec.Struct, frozen=True):
    """A challenger being proven against a champion: at step `step` of its rollout since `since`."""

    id: str
    loop: str
    challenger: str
    champion: str
    opened_at: int
    since: int  # microseconds since the Unix epoch: when the present step began
    step: int = 0  # over all steps of all stages
    looks: int = 0  # spent at this step's evidence
    seen: str = ""  # digest of the evidence last looked at
    state: TrialState = "open"
    refresh: str | None = None
    salt: str = ""  # of its deal of the units; the loop's and the trial's own name, where empty


class Action(msgspec.Struct, frozen=True):
    """What to do with a trial now."""

    do: Literal["hold", "advance", "promote", "roll_back", "stop"]
    why: str
    rule: str  # the stage as written
    step: int
    look: int = 0
    looked: bool = False


def evidence_digest(evidence: Evidence) -> str:
    """Return 16 hexadecimal digits that change with any number of the evidence."""
    return blake2b(msgspec.msgpack.encode(evidence), digest_size=8).hexdigest()


def steps_of(rollout: Sequence[Stage]) -> list[tuple[Stage, Step]]:
    """Return every step of a rollout, in order, with the stage that judges it."""
    return [(stage, step) for stage in rollout for step in stage.steps()]


def reconcile(
    trial: Trial, rollout: Sequence[Stage], evidence: Evidence | None, *, now: datetime, metric: str
) -> Action:
    """Return what to do with an open trial.

    Args:
        trial: Its state; `looks` were spent before.
        rollout: The stages it goes through; none means promotion at once.
        evidence: Of the present step; None where there is no step left or none to show.
        now: The present moment.
        metric: The task's own loss, for stages that name none.
    """
    steps = steps_of(rollout)
    if trial.step >= len(steps):
        return Action("promote", "every stage is passed", "no stages", trial.step)
    stage, step = steps[trial.step]
    assert evidence is not None
    # The same evidence seen again is the same look: only new data spends error.
    look = max(1, trial.looks) if trial.seen == evidence_digest(evidence) else trial.looks + 1
    verdict = stage.judge(step, evidence, elapsed=_elapsed(trial, now), look=look, metric=stage.metric or metric)
    return _action(verdict, trial, stage, step, last=trial.step == len(steps) - 1, look=look)


def _elapsed(trial: Trial, now: datetime) -> timedelta:
    return max(timedelta(0), now - instant(trial.since))


def _action(verdict: Verdict, trial: Trial, stage: Stage, step: Step, *, last: bool, look: int) -> Action:
    def act(do: Literal["hold", "advance", "promote", "roll_back", "stop"]) -> Action:
        return Action(do, verdict.why, repr(stage), trial.step, look, verdict.looked)

    if verdict.outcome == "hold":
        return act("hold")
    if verdict.outcome == "promote":
        return act("promote")
    if verdict.outcome == "advance":
        return act("promote" if last else "advance")
    # Stopped, or given up without enough evidence: either way the champion gets all units back.
    return act("roll_back" if step.kind == "canary" else "stop")
