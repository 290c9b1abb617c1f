"""May a trial go on yet?

A step that holds routes what the step before it routes: a canary's share stays as it is. Meanwhile the two arms are
still compared by the canary's rule, and harm still gives the champion all units back.
"""

from __future__ import annotations

from dataclasses import KW_ONLY
from datetime import timedelta
from typing import Any

from leaven.duration import duration
from leaven.errors import BadDefinition
from leaven.experiments.canary import Canary
from leaven.experiments.evidence import Evidence
from leaven.experiments.showing import Shown
from leaven.experiments.stage import Step, Traffic
from leaven.experiments.verdict import Verdict
from leaven.values import value

_AT_ONCE = timedelta(0)


class _Holding:
    """A stage that borrows a canary's evidence and rule."""

    metric: str | None
    margin: float
    fail_fast: int
    alpha: float

    @property
    def canary(self) -> Canary:
        """The canary; its share is the step's."""
        return Canary(0.5, metric=self.metric, margin=self.margin, fail_fast=self.fail_fast, alpha=self.alpha)

    @property
    def evidence(self) -> type[Any]:
        """What it is judged by: what a canary is."""
        return self.canary.evidence

    def observe(self, step: Step, traffic: Traffic, before: Evidence | None) -> Evidence:
        """Return what the log says of this step."""
        return self.canary.observe(step, traffic, before)

    def show(self, step: Step, evidence: Evidence, *, look: int, metric: str) -> tuple[Shown, ...]:
        """Return the rows of evidence that a person reads."""
        return self.canary.show(step, evidence, look=look, metric=metric) if step.serves else ()


@value
class Pause(_Holding):
    """Holds what the step before it routes for `length`, then goes on; harm ends the trial.

    `metric`, `margin`, `fail_fast` and `alpha` are those of `Canary`, whose rule tells harm.
    """

    length: str
    _: KW_ONLY
    metric: str | None = None
    margin: float = 0.25
    fail_fast: int = 5
    alpha: float = 0.05

    def __post_init__(self) -> None:
        duration(self.length, where="Pause(…)")
        self.canary  # noqa: B018  which checks the bounds

    def steps(self) -> tuple[Step, ...]:
        """Return the one step."""
        length = duration(self.length)
        return (Step("wait", 0.0, length, length, holds=True),)

    def judge(self, step: Step, evidence: Evidence, *, elapsed: timedelta, look: int, metric: str) -> Verdict:
        """Return `advance` once the time is over, or `stop` where harm is shown."""
        seen = _harm(self, step, evidence, look=look, metric=metric)
        if seen.outcome == "stop":
            return seen
        if elapsed >= step.at_least:
            return Verdict("advance", f"held for {self.length}{seen.why}", seen.looked)
        return Verdict("hold", f"held for {elapsed} of {step.at_least}{seen.why}", seen.looked)


@value
class Approval(_Holding):
    """Holds what the step before it routes until a person approves; harm ends the trial, and so does `patience`.

    `by` says whose word is asked: a name, or a role. The word is `leaven trial approve LOOP`; who gave it, for whom and
    why is on record. `metric`, `margin`, `fail_fast` and `alpha` are those of `Canary`, whose rule tells harm.
    """

    by: str = ""
    _: KW_ONLY
    patience: str = "7d"
    metric: str | None = None
    margin: float = 0.25
    fail_fast: int = 5
    alpha: float = 0.05

    def __post_init__(self) -> None:
        duration(self.patience, where="Approval(patience=…)")
        if not isinstance(self.by, str):
            raise BadDefinition("Approval(by=…)", f"{self.by!r} is no name", 'Name a person or a role, as "owner".')
        self.canary  # noqa: B018  which checks the bounds

    def steps(self) -> tuple[Step, ...]:
        """Return the one step."""
        return (Step("wait", 0.0, _AT_ONCE, duration(self.patience), holds=True),)

    def judge(self, step: Step, evidence: Evidence, *, elapsed: timedelta, look: int, metric: str) -> Verdict:
        """Return `stop` where harm is shown, or `give_up` once the patience is over; only a person can advance it."""
        seen = _harm(self, step, evidence, look=look, metric=metric)
        if seen.outcome == "stop":
            return seen
        asked = f"the approval of {self.by or 'a person'}"
        if elapsed >= step.at_most:
            return Verdict("give_up", f"{asked} was not given within {self.patience}{seen.why}", seen.looked)
        return Verdict("hold", f"waits for {asked}{seen.why}", seen.looked)


def _harm(stage: _Holding, step: Step, evidence: Evidence, *, look: int, metric: str) -> Verdict:
    """What the canary's rule says: `stop` with its reason, or `hold` with what has been seen, as words to append."""
    if not step.serves:
        return Verdict("hold", "")
    # At no time at all a canary neither passes nor loses its patience: what is left is harm.
    said = stage.canary.judge(step, evidence, elapsed=_AT_ONCE, look=look, metric=metric)
    return said if said.outcome == "stop" else Verdict("hold", f"; no harm shown: {said.why}", said.looked)
