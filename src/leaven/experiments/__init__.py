"""How a challenger is proven in production: assignment, stages, evidence, verdicts."""

from collections.abc import Callable
from typing import Any

from leaven.events.labels import Happens, Label
from leaven.experiments.ab_metrics import Failures, Guardrail, Latency, Outcome, Ratio
from leaven.experiments.ab_test import ABTest
from leaven.experiments.canary import Canary
from leaven.experiments.holding import Approval, Pause
from leaven.experiments.shadow import Shadow
from leaven.experiments.stage import Stage
from leaven.experiments.watch import Watch

STAGES: dict[str, type[Stage]] = {stage.__name__: stage for stage in (Shadow, Canary, Pause, Approval, ABTest, Watch)}

# Everything that a stage as written in a decision is made of.
MAKERS: dict[str, Callable[..., Any]] = STAGES | {
    part.__name__: part for part in (Outcome, Ratio, Latency, Failures, Guardrail, Label, Happens)
}

__all__ = [
    "MAKERS",
    "STAGES",
    "ABTest",
    "Approval",
    "Canary",
    "Failures",
    "Guardrail",
    "Latency",
    "Outcome",
    "Pause",
    "Ratio",
    "Shadow",
    "Stage",
    "Watch",
]
