"""What can a stage conclude?"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Literal, Protocol

import msgspec

from leaven.errors import BadDefinition
from leaven.experiments.evidence import Evidence
from leaven.stats.metrics import METRICS

# hold: not enough evidence yet; advance: the step is passed; stop: the challenger is harmful or broken;
# give_up: the patience of the step is over and there still is not enough evidence.
Outcome = Literal["hold", "advance", "stop", "give_up"]


class Verdict(msgspec.Struct, frozen=True):
    """A conclusion with its reason; `looked` says whether it spent a look at the evidence."""

    outcome: Outcome
    why: str
    looked: bool = False


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a stage: what it routes, for how long at least and at most."""

    kind: Literal["shadow", "canary"]
    share: float  # of the units: shadowed, or served by the canary
    at_least: timedelta
    at_most: timedelta


class Stage(Protocol):
    """A stage of a rollout: one or more steps, and the rule that judges each by its own evidence."""

    @property
    def metric(self) -> str | None:
        """The loss that is compared; None stands for the task's own."""
        ...

    def steps(self) -> tuple[Step, ...]:
        """Return the steps, in order."""
        ...

    def judge(self, step: Step, evidence: Evidence, *, elapsed: timedelta, look: int, metric: str) -> Verdict:
        """Return the verdict on a step after `elapsed`; `look` is the number of this look, from 1."""
        ...


def check_stage_metric(where: str, metric: str | None) -> None:
    """Refuse a metric that gives single rows no loss: stages compare losses per unit."""
    if metric is not None and metric in METRICS and METRICS[metric].row_loss is None:
        losses = ", ".join(name for name, entry in METRICS.items() if entry.row_loss is not None)
        raise BadDefinition(where, f"{metric!r} is no loss of single rows", f"Use one of {losses}.")
