"""How a challenger is proven in production: assignment, stages, evidence, verdicts."""

from leaven.experiments.canary import Canary
from leaven.experiments.holding import Approval, Pause
from leaven.experiments.shadow import Shadow
from leaven.experiments.stage import Stage
from leaven.experiments.watch import Watch

STAGES: dict[str, type[Stage]] = {stage.__name__: stage for stage in (Shadow, Canary, Pause, Approval, Watch)}

__all__ = ["STAGES", "Approval", "Canary", "Pause", "Shadow", "Stage", "Watch"]
