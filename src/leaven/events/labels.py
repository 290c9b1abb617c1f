"""What is the label of a prediction, and is it final?

A label rule folds the feedback about one prediction into one number. Only feedback that happened within the rule's
window after the prediction counts, and only once the window has closed is the label *mature*: a value that comes
early from one arm and late from another would otherwise favour the faster one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY
from datetime import datetime, timedelta
from typing import Literal, Protocol

import numpy as np

from leaven.duration import duration
from leaven.errors import BadDefinition
from leaven.events.columns import Column, Labels, Matched, column_time
from leaven.values import value

Task = Literal["binary", "multiclass", "regression"]


class LabelRule(Protocol):
    """Folds matched feedback into one label per prediction."""

    @property
    def name(self) -> str:
        """Name that feedback carries to be counted."""
        ...

    @property
    def task(self) -> Task:
        """What the label is: 0 or 1, a class by its place, or a number."""
        ...

    @property
    def window(self) -> timedelta:
        """How long after a prediction its feedback counts."""
        ...

    def resolve(self, predicted_at: Column, feedback: Matched, *, as_of: datetime) -> Labels:
        """Return the labels of the predictions made at `predicted_at`, from what was known at `as_of`."""
        ...


@value
class Label:
    """The label is a reported value, whether that value lies above or below a bound, or one of several classes.

    A class is reported by its name; the label is its place in `classes`, so new classes go to the end of that list.
    `take` says which report counts where there are several: the `last`, the `first`, or the `majority` (of values;
    ties go to the value reported last). A correction (feedback of kind "correction", a person's word) wins over all.
    """

    name: str
    _: KW_ONLY
    within: str
    above: float | None = None
    below: float | None = None
    classes: Sequence[str] = ()
    take: Literal["last", "first", "majority"] = "last"

    def __post_init__(self) -> None:
        duration(self.within, where=f"Label({self.name!r}, within=…)")
        if self.above is not None and self.below is not None:
            raise BadDefinition(f"Label({self.name!r})", "both above= and below= are given", "Keep one of them.")
        object.__setattr__(self, "classes", tuple(self.classes) if isinstance(self.classes, list) else self.classes)
        self._check_classes()
        if self.take not in ("last", "first", "majority"):
            raise BadDefinition(f"Label({self.name!r}, take=…)", f"{self.take!r} is none of the ways to choose",
                                'Use "last", "first" or "majority".')  # fmt: skip

    def _check_classes(self) -> None:
        where, mend = f"Label({self.name!r}, classes=…)", 'List two or more names, such as ["cat", "dog", "fox"].'
        if not isinstance(self.classes, tuple) or not all(isinstance(each, str) and each for each in self.classes):
            raise BadDefinition(where, f"{self.classes!r} are no names of classes", mend)
        if not self.classes:
            return
        if len(self.classes) < 2:
            raise BadDefinition(where, "one class alone leaves nothing to predict", mend)
        if len(set(self.classes)) < len(self.classes):
            raise BadDefinition(where, "a class is listed twice", "List each once.")
        if self.above is not None or self.below is not None:
            raise BadDefinition(where, "a bound is given as well", "Keep either classes= or the bound.")

    @property
    def task(self) -> Task:
        """`multiclass` where there are classes, `binary` where a bound is given, `regression` otherwise."""
        if self.classes:
            return "multiclass"
        return "regression" if self.above is None and self.below is None else "binary"

    @property
    def window(self) -> timedelta:
        """How long after a prediction its feedback counts."""
        return duration(self.within)

    def resolve(self, predicted_at: Column, feedback: Matched, *, as_of: datetime) -> Labels:
        """Return one label per prediction; NaN where no report came within the window."""
        counted = _counted(self.name, predicted_at, feedback, self.window, as_of, value_needed=True)
        reported = _majority(counted, len(predicted_at)) if self.take == "majority" else None
        if reported is None:
            reported = _newest(counted, len(predicted_at), first=self.take == "first")
        corrections = counted.take(counted.kind == "correction")
        corrected = _newest(corrections, len(predicted_at), first=False)
        raw = np.where(np.isnan(corrected), reported, corrected)
        if self.above is not None:
            raw = np.where(np.isnan(raw), np.nan, (raw > self.above).astype(np.float64))
        elif self.below is not None:
            raw = np.where(np.isnan(raw), np.nan, (raw < self.below).astype(np.float64))
        elif self.classes:
            raw = np.where(np.isin(raw, np.arange(len(self.classes))), raw, np.nan)
        return _closed(raw, predicted_at, self.window, as_of)


@value
class Happens:
    """The label is 1 if an event comes within the window, 0 once the window has closed without it.

    A correction (1 or 0 in its value) wins over both.
    """

    name: str
    _: KW_ONLY
    within: str

    def __post_init__(self) -> None:
        duration(self.within, where=f"Happens({self.name!r}, within=…)")

    @property
    def task(self) -> Task:
        """Always `binary`."""
        return "binary"

    @property
    def window(self) -> timedelta:
        """How long after a prediction the event counts."""
        return duration(self.within)

    def resolve(self, predicted_at: Column, feedback: Matched, *, as_of: datetime) -> Labels:
        """Return one label per prediction; NaN while the window is open and nothing came."""
        counted = _counted(self.name, predicted_at, feedback, self.window, as_of, value_needed=False)
        happened = np.full(len(predicted_at), np.nan)
        happened[counted.row[counted.kind != "correction"]] = 1.0
        corrections = counted.take((counted.kind == "correction") & ~np.isnan(counted.value))
        corrected = _newest(corrections, len(predicted_at), first=False)
        raw = np.where(np.isnan(corrected), happened, (corrected > 0).astype(np.float64))
        closed = _closed(raw, predicted_at, self.window, as_of)
        return Labels(np.where(closed.mature & np.isnan(raw), 0.0, raw), closed.mature, closed.closes_at)


def _counted(
    name: str, predicted_at: Column, feedback: Matched, window: timedelta, as_of: datetime, *, value_needed: bool
) -> Matched:
    """The feedback that speaks of this label, happened within the window and had arrived by `as_of`.

    A correction counts whenever it comes after the prediction: a person looked, and time does not make that less true.
    """
    age = feedback.at - predicted_at[feedback.row]
    in_window = (age >= np.timedelta64(0, "us")) & (age <= np.timedelta64(window))
    keep = (feedback.name == name) & (feedback.received_at <= column_time(as_of))
    keep &= in_window | ((feedback.kind == "correction") & (age >= np.timedelta64(0, "us")))
    if value_needed:
        keep &= ~np.isnan(feedback.value)
    return feedback.take(keep)


def _newest(feedback: Matched, rows: int, *, first: bool) -> Column:
    """Value of the last (or first) piece per row, by the time it happened, then by arrival; NaN where there is none."""
    order = np.lexsort((feedback.received_at, feedback.at))
    if first:
        order = order[::-1]
    out = np.full(rows, np.nan)
    # Of several assignments to one position NumPy keeps the last, which is the one wanted.
    out[feedback.row[order]] = feedback.value[order]
    return out


def _majority(feedback: Matched, rows: int) -> Column:
    out = np.full(rows, np.nan)
    if not len(feedback):
        return out
    order = np.lexsort((feedback.received_at, feedback.at, feedback.value, feedback.row))
    row, val = feedback.row[order], feedback.value[order]
    starts = np.flatnonzero(np.r_[True, (row[1:] != row[:-1]) | (val[1:] != val[:-1])])
    counts = np.diff(np.r_[starts, len(row)])
    newest = feedback.at[order][starts + counts - 1]
    ranked = np.lexsort((newest, counts, row[starts]))
    out[row[starts][ranked]] = val[starts][ranked]
    return out


def _closed(raw: Column, predicted_at: Column, window: timedelta, as_of: datetime) -> Labels:
    closes_at = predicted_at + np.timedelta64(window)
    return Labels(raw, np.asarray(closes_at <= column_time(as_of)), closes_at)
