"""What can a stage conclude?"""

from __future__ import annotations

from typing import Literal

import msgspec

from leaven.errors import BadDefinition
from leaven.stats.metrics import METRICS

# hold: not enough evidence yet; advance: the step is passed; promote: no more steps are needed; stop: the challenger is
# harmful or broken, or the trial itself is; give_up: the patience of the step is over without enough evidence.
Outcome = Literal["hold", "advance", "promote", "stop", "give_up"]


class Verdict(msgspec.Struct, frozen=True):
    """A conclusion with its reason; `looked` says whether it spent a look at the evidence."""

    outcome: Outcome
    why: str
    looked: bool = False


def check_stage_metric(where: str, metric: str | None) -> None:
    """Refuse a metric that gives single rows no loss: stages compare losses per unit."""
    if metric is not None and metric in METRICS and METRICS[metric].row_loss is None:
        losses = ", ".join(name for name, entry in METRICS.items() if entry.row_loss is not None)
        raise BadDefinition(where, f"{metric!r} is no loss of single rows", f"Use one of {losses}.")
