"""How a version is made: the Learner port, the encoding of features, and the plan (from scratch, onwards, or both)."""

from leaven.training.distilling import Distill
from leaven.training.plans import Hybrid, Stateful, Stateless

__all__ = ["Distill", "Hybrid", "Stateful", "Stateless"]
