"""Neural networks of PyTorch: fitted, trained on with all their state, changed without being trained, and served."""

from leaven.learners.torch.learner import Torch

__all__ = ["Torch"]
