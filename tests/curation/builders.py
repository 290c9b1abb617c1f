"""Examples made of a few columns; a test names only what matters to it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np

from leaven.duration import instant
from leaven.events.columns import Examples, Labels, Pairs, Predictions, column_time
from leaven.events.labels import LabelRule
from leaven.events.meetings import Arms, Crowd, Newcomers, crowds, newcomers
from leaven.events.source import Marks, Span

START = datetime(2026, 1, 1, tzinfo=UTC)


def day(count: float) -> datetime:
    return START + timedelta(days=count)


def objects(values: Any) -> Any:
    out = np.empty(len(values), dtype=object)
    out[:] = list(values)
    return out


def some_examples(
    label: Any,
    *,
    answer: Any = None,
    unit: Any = None,
    arm: Any = "champion",
    version: Any = "1",
    days: Any = None,
    mature: Any = True,
    ids: Any = None,
    exposed: Any = False,
    features: dict[str, Any] | None = None,
) -> Examples:
    """One example per label, an hour apart where `days` does not say otherwise; each of a unit of its own.

    An answer of NaN is a failure, but for rows that are `exposed`.
    """
    rows = len(label)

    def every(value: Any) -> Any:
        return objects([value] * rows if isinstance(value, str) else value)

    elapsed = np.arange(rows) / 24 if days is None else np.asarray(days, dtype=float)
    at = column_time(START) + (elapsed * 86_400_000_000).astype("m8[us]")
    answers = np.where(exposed, np.nan, 0.5) if answer is None else np.asarray(answer, dtype=float)
    fine = ~np.isnan(answers) | exposed
    served = Predictions(
        id=every([f"p{row:05d}" for row in range(rows)] if ids is None else ids),
        at=at,
        unit=every([f"u{row:05d}" for row in range(rows)] if unit is None else unit),
        arm=every(arm),
        version=every(version),
        answer=np.broadcast_to(answers, rows),
        propensity=np.ones(rows),
        seconds=np.zeros(rows),
        error=objects([None if each else "failed" for each in np.broadcast_to(fine, rows)]),
        features=features or {"x": np.arange(rows, dtype=float)},
    )
    return Examples(served, Labels(np.asarray(label, dtype=float), np.broadcast_to(mature, rows).copy(), at))


def some_pairs(label: Any, champion: Any, shadow: Any, **other: Any) -> Pairs:
    shadow = np.asarray(shadow, dtype=float)
    return Pairs(
        some_examples(label, answer=champion, **other), shadow, objects([None] * len(shadow)), np.zeros(len(shadow))
    )


class Source:
    """An example source over some examples whose labels are what they are at any time."""

    def __init__(self, examples: Examples) -> None:
        self.examples_given = examples

    def marks(self) -> Marks:
        return Marks(len(self.examples_given), 0)

    def watermark(self) -> datetime:
        return instant(0)

    def first(self) -> datetime | None:
        return instant(int(self.examples_given.predictions.at.min().astype(np.int64)))

    def examples(self, span: Span, rule: LabelRule, *, as_of: datetime, marks: Marks | None = None) -> Examples:
        at = self.examples_given.predictions.at
        known = np.arange(len(at)) < (len(at) if marks is None else marks.predictions)
        return self.examples_given.take(known & (at >= column_time(span.start)) & (at < column_time(span.end)))

    def pairs(self, span: Span, version: str, rule: LabelRule, *, as_of: datetime) -> Pairs:
        raise NotImplementedError

    def erased(self, span: Span, *, as_of: datetime, marks: Marks) -> int:
        return 0

    def crowds(self, span: Span, arms: Arms, *, every: timedelta, as_of: datetime) -> tuple[Crowd, ...]:
        return crowds(self.examples_given.predictions, span, arms, every=every)

    def newcomers(self, span: Span, arms: Arms, *, first_in: Span, as_of: datetime) -> Newcomers:
        return newcomers(self.examples_given.predictions, span, arms, first_in=first_in)
