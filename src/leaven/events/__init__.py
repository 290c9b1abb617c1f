"""Predictions, feedback, label rules, maturity and the joined example: the truth that everything else folds over."""

from leaven.events.labels import Happens, Label

__all__ = ["Happens", "Label"]
