"""Where does a trial stand, and what happens next?

The reconciler is level-triggered: from the trial's state, its evidence and the time alone it says what to do now. Run
twice, or after a crash, or an hour late, it says the same or what has become right meanwhile.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from hashlib import blake2b
from typing import Literal

import msgspec

from leaven.duration import instant
from leaven.errors import BadDefinition
from leaven.experiments.evidence import Evidence
from leaven.experiments.stage import Stage, Step
from leaven.experiments.verdict import Verdict

TrialState = Literal["open", "promoted", "rolled_back", "stopped"]
# hold: nothing; advance: the next step; promote: the challenger becomes champion, and is watched where the rollout ends
# with that; keep: the watch is over and nothing spoke against it; roll_back, stop: the champion gets all units back.
Do = Literal["hold", "advance", "promote", "keep", "roll_back", "stop"]
NO_STAGES = "no stages"  # stands for the rule where no stage is left to judge


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
    promoted_at: int | None = None  # when the challenger became champion; from then on it is watched
    paused_at: int | None = None  # since when nothing moves forward, on a person's word

    @property
    def watching(self) -> bool:
        """Whether the challenger is champion already, and may still be rolled back."""
        return self.state == "open" and self.promoted_at is not None


class Action(msgspec.Struct, frozen=True):
    """What to do with a trial now."""

    do: Do
    why: str
    rule: str  # the stage as written
    step: int
    look: int = 0
    looked: bool = False
    harm: bool = False  # whether the challenger, or the trial, was found to be at fault: no pause holds this up


def evidence_digest(evidence: Evidence) -> str:
    """Return 16 hexadecimal digits that change with any number of the evidence."""
    return blake2b(msgspec.msgpack.encode(evidence), digest_size=8).hexdigest()


def steps_of(rollout: Sequence[Stage]) -> list[tuple[Stage, Step]]:
    """Return every step of a rollout, in order, with the stage that judges it; one that holds routes as its last."""
    found: list[tuple[Stage, Step]] = []
    for stage in rollout:
        for step in stage.steps():
            held = step.holds and found
            found.append((stage, replace(step, kind=found[-1][1].kind, share=found[-1][1].share) if held else step))
    return found


def ends_in_promotion(rollout: Sequence[Stage], step: int) -> bool:
    """Whether the challenger is promoted once it has passed this step: the last one, or the last before the watch."""
    steps = steps_of(rollout)
    return step >= len(steps) - 1 or steps[step + 1][1].kind == "watch"


def watch_of(rollout: Sequence[Stage]) -> int | None:
    """Return the number of the step that watches after a promotion, or None where the rollout has none."""
    steps = steps_of(rollout)
    return len(steps) - 1 if steps and steps[-1][1].kind == "watch" else None


def check_rollout(rollout: Sequence[Stage], *, where: str) -> None:
    """Refuse a rollout whose watch is not its end, or whose holdback would be taken from the challenger's units.

    Raises:
        BadDefinition: it is such a one.
    """
    steps = steps_of(rollout)
    if any(step.kind == "watch" for _, step in steps[:-1]):
        raise BadDefinition(where, "something follows a Watch", "Put Watch last: it begins with the promotion.")
    largest = max((step.share for _, step in steps[:-1] if step.serves), default=0.0)
    held = steps[-1][1].share if steps and steps[-1][1].kind == "watch" else 0.0
    if largest + held > 1:
        why = f"the challenger has {largest:g} of the units before a holdback of {held:g} is left with the old champion"
        raise BadDefinition(where, why, f"Give Watch a holdback of {1 - largest:g} at most, or a smaller last share.")


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
        return Action("promote", "every stage is passed", NO_STAGES, trial.step)
    stage, step = steps[trial.step]
    if step.kind == "watch" and trial.promoted_at is None:
        return Action("promote", "no stage stands before the watch", NO_STAGES, trial.step)
    assert evidence is not None
    # The same evidence seen again is the same look: only new data spends error.
    look = max(1, trial.looks) if trial.seen == evidence_digest(evidence) else trial.looks + 1
    verdict = stage.judge(step, evidence, elapsed=_elapsed(trial, now), look=look, metric=stage.metric or metric)
    do = follows(verdict, step, last=ends_in_promotion(rollout, trial.step))
    return Action(do, verdict.why, repr(stage), trial.step, look, verdict.looked, verdict.outcome == "stop")


def follows(verdict: Verdict, step: Step, *, last: bool) -> Do:
    """Return what a verdict on a step leads to; `last` says that passing it promotes."""
    if verdict.outcome in ("hold", "promote"):
        return "hold" if verdict.outcome == "hold" else "promote"
    if verdict.outcome == "advance":
        return "keep" if step.kind == "watch" else "promote" if last else "advance"
    # Stopped, or given up without enough evidence: either way the champion gets all units back.
    return "roll_back" if step.serves else "stop"


def superseded(why: str, version: int) -> str:
    """Return why a watch ends before its time: with what it has seen by then."""
    return f"version {version} begins its own trial, so this watch ends; {why}"


def stands_in_the_way(trial: Trial, action: Action, *, paused: bool) -> bool:
    """Whether an action is put off: by a paused loop what moves forward, by a paused trial all but harm."""
    forward = action.do in ("advance", "promote", "keep")
    return (paused and forward) or (trial.paused_at is not None and not action.harm)


def _elapsed(trial: Trial, now: datetime) -> timedelta:
    return max(timedelta(0), now - instant(trial.since))
