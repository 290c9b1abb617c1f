"""How long after a prediction is its label heard of?

The label's window says how long one waits; this says how long the feedback really took.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np

from leaven.events.columns import Column, Labels, Matched, column_time
from leaven.events.labels import LabelRule, Task

_DAY_US = 86_400_000_000


@dataclass(frozen=True, slots=True)
class Hearing:
    """A label rule that reads, in place of each label, how many days passed until the first word of it was received.

    NaN where nothing was heard by then. What another rule counts (its name and its window), this one counts.
    """

    of: LabelRule

    @property
    def name(self) -> str:
        """Name that feedback carries to be counted."""
        return self.of.name

    @property
    def task(self) -> Task:
        """A number of days."""
        return "regression"

    @property
    def window(self) -> timedelta:
        """How long after a prediction its feedback counts."""
        return self.of.window

    def resolve(self, predicted_at: Column, feedback: Matched, *, as_of: datetime) -> Labels:
        """Return the days until each prediction's first counted feedback was received."""
        labels = self.of.resolve(predicted_at, feedback, as_of=as_of)
        age = feedback.at - predicted_at[feedback.row]
        counts = (feedback.name == self.name) & (age >= np.timedelta64(0, "us")) & (age <= np.timedelta64(self.window))
        heard = feedback.take(counts & (feedback.received_at <= column_time(as_of)))
        waited = np.full(len(predicted_at), np.inf)
        np.minimum.at(waited, heard.row, (heard.received_at - predicted_at[heard.row]).astype(np.float64) / _DAY_US)
        return Labels(np.where(np.isinf(waited), np.nan, waited), labels.mature, labels.closes_at)
