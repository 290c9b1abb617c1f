"""What makes a refresh due: a schedule, new labels, falling performance, a person."""

from leaven.triggers.drops import Drops
from leaven.triggers.every import Every
from leaven.triggers.facts import Cause, Facts, Trigger
from leaven.triggers.labels_grow import LabelsGrow

__all__ = ["Cause", "Drops", "Every", "Facts", "LabelsGrow", "Trigger"]
