"""How a version is made: the Learner port, the encoding of features, and the plan (from scratch or onwards)."""

from leaven.training.plans import Stateful, Stateless

__all__ = ["Stateful", "Stateless"]
