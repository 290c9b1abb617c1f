"""Leaven keeps a production model fresh and proves every update in production before people depend on it."""

from leaven.events import Happens, Label
from leaven.loop import Feature, Loop

__version__ = "0.1.0"
__all__ = ["Feature", "Happens", "Label", "Loop", "__version__"]
