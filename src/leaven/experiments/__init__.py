"""How a challenger is proven in production: assignment, stages, evidence, verdicts."""

from leaven.experiments.canary import Canary
from leaven.experiments.shadow import Shadow
from leaven.experiments.stage import Stage

STAGES: dict[str, type[Stage]] = {stage.__name__: stage for stage in (Shadow, Canary)}

__all__ = ["STAGES", "Canary", "Shadow", "Stage"]
