"""What do many events look like as columns?

Everything downstream of the log (labels, curation, training, gates, evidence) works on these. Times are
`datetime64[us]` in UTC; text is an object array of `str`; a missing number is NaN, a missing text None.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leaven.stats.answers import given

Column = NDArray[Any]
IMPORTED = "imported"  # the arm of requests that another system answered


@dataclass(frozen=True, slots=True)
class Predictions:
    """Served predictions, one per position of every array; all arrays have the same length."""

    id: Column  # object of str
    at: Column  # datetime64[us]
    unit: Column  # object of str
    arm: Column  # object of str
    version: Column  # object of str
    answer: Column  # float64, shape (rows,) or (rows, classes); NaN where the arm failed
    propensity: Column  # float64
    seconds: Column  # float64
    error: Column  # object of str or None
    features: Mapping[str, Column]

    def __len__(self) -> int:
        return len(self.id)

    @property
    def exposed(self) -> Column:
        """Which rows are exposures: a unit met its arm, and nobody was asked for an answer. Shape (rows,), bool."""
        silent = ~given(self.answer)
        if not silent.any():  # as nearly always
            return silent
        rows = zip(self.error.tolist(), self.arm.tolist(), strict=True)
        exposed: Column = silent & np.array([error is None and arm != IMPORTED for error, arm in rows], dtype=bool)
        return exposed

    def take(self, index: Column) -> Predictions:
        """Return the rows that a boolean mask or an array of positions picks, in that order."""
        features = {name: column[index] for name, column in self.features.items()}
        return Predictions(**{name: getattr(self, name)[index] for name in self.__slots__[:-1]}, features=features)


@dataclass(frozen=True, slots=True)
class Matched:
    """Feedback, each piece matched to the position of the prediction it speaks of."""

    row: Column  # int64, position in the Predictions it was matched to
    at: Column  # datetime64[us], when it happened
    received_at: Column  # datetime64[us]
    name: Column  # object of str
    kind: Column  # object of str
    value: Column  # float64

    def __len__(self) -> int:
        return len(self.row)

    def take(self, index: Column) -> Matched:
        """Return the pieces that a boolean mask or an array of positions picks, in that order."""
        return Matched(*(getattr(self, name)[index] for name in self.__slots__))


@dataclass(frozen=True, slots=True)
class Labels:
    """The outcome of each prediction as far as it is known, by position."""

    value: Column  # float64, NaN where there is none
    mature: Column  # bool, True once the label's window has closed
    closes_at: Column  # datetime64[us], when that is


@dataclass(frozen=True, slots=True)
class Examples:
    """Predictions joined with their labels: what training and evaluation read."""

    predictions: Predictions
    labels: Labels

    def __len__(self) -> int:
        return len(self.predictions)

    def take(self, index: Column) -> Examples:
        """Return the rows that a boolean mask or an array of positions picks, in that order."""
        picked = self.labels
        return Examples(
            self.predictions.take(index),
            replace(picked, value=picked.value[index], mature=picked.mature[index], closes_at=picked.closes_at[index]),
        )

    def predicted(self) -> Examples:
        """Return the rows without exposures: what models learn from and are judged by."""
        exposed = self.predictions.exposed
        return self.take(~exposed) if exposed.any() else self

    def mature(self) -> Examples:
        """Return the rows whose label is known and whose window has closed."""
        return self.take(self.labels.mature & ~np.isnan(self.labels.value))


@dataclass(frozen=True, slots=True)
class Pairs:
    """Live examples, each beside the answer that a shadow gave to the same request."""

    live: Examples
    shadow_answer: Column  # float64, as answers are; NaN where the shadow failed
    shadow_error: Column  # object of str or None
    shadow_seconds: Column  # float64

    def __len__(self) -> int:
        return len(self.live)


def column_time(instant: datetime) -> np.datetime64:
    """Return an aware moment as the columns carry it."""
    return np.datetime64(instant.astimezone(UTC).replace(tzinfo=None), "us")
