"""How a challenger is proven in production: assignment, stages, evidence, verdicts."""

from leaven.experiments.canary import Canary
from leaven.experiments.shadow import Shadow

__all__ = ["Canary", "Shadow"]
