"""What if this past had been served by Leaven?

A log that is filled as virtual time passes: each stretch of the past is answered by the versions that the routing table
of that moment names, vectorised. Reading it is like reading the real log, as of a moment.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leaven.duration import instant
from leaven.events.columns import IMPORTED, Column, Examples, Matched, Pairs, Predictions, column_time
from leaven.events.labels import LabelRule
from leaven.events.meetings import Arms, Crowd, Newcomers, crowds, newcomers
from leaven.events.source import Marks, Span
from leaven.experiments.assignment import position
from leaven.experiments.routing import RoutingTable
from leaven.gateway.answering import Answers as Model
from leaven.stats.answers import given, none, padded
from leaven.storage.history_file import History

Answers = Callable[[str], Model]  # by version


class HistoryLog:
    """Implements `ExampleSource` over a past that is served stretch by stretch."""

    def __init__(
        self, history: History, *, ids: NDArray[Any] | None = None, label: str | None = None, classes: int = 0
    ) -> None:
        """Read `history`; its outcomes are feedback of the name `label`, or of whichever is asked for.

        `classes` says how many the label tells apart, 0 where answers are numbers.
        """
        self._classes = classes
        rows = len(history)
        self._history, self._label = history, label
        numbered = ids if ids is not None else np.array([f"{row:012d}" for row in range(rows)], dtype=object)
        self._served = Predictions(
            id=numbered,
            at=history.at,
            unit=history.unit,
            arm=np.full(rows, IMPORTED, dtype=object),
            version=np.full(rows, "", dtype=object),
            answer=none(rows, classes),
            propensity=np.ones(rows),
            seconds=np.zeros(rows),
            error=np.full(rows, None, dtype=object),
            features=history.features,
        )
        self._shadows: dict[str, tuple[Column, Column]] = {}  # version: answers, and which rows were asked
        self._until = 0  # rows before it have passed

    def serve(self, until: datetime, table: RoutingTable | None, answers: Answers) -> None:
        """Let time pass up to `until`: all requests before it are routed by `table`."""
        start, end = self._until, int(np.searchsorted(self._history.at, column_time(until), side="left"))
        self._until = max(start, end)
        if table is None or end <= start:
            return
        units = self._history.unit[start:end].tolist()
        places = {unit: position(unit, salt=table.salt) for unit in set(units)}
        place = np.array([places[unit] for unit in units])
        for route in table.arms:
            rows = start + np.flatnonzero((place >= route.low) & (place < route.high))
            self._served.answer[rows] = self._answer(answers(route.version), rows)
            self._served.arm[rows] = route.arm
            self._served.version[rows] = route.version
            self._served.propensity[rows] = route.propensity
            self._served.error[rows[~given(self._served.answer[rows])]] = "the answer is no number"
        for shadow in table.shadows:
            rows = start + np.flatnonzero(place < shadow.high)
            if shadow.version not in self._shadows:
                asked = np.zeros(len(self._history), dtype=bool)
                self._shadows[shadow.version] = (none(len(self._history), self._classes), asked)
            answered, asked = self._shadows[shadow.version]
            answered[rows] = self._answer(answers(shadow.version), rows)
            asked[rows] = True

    def _answer(self, model: Model, rows: Column) -> Column:
        if not len(rows):
            return none(0, self._classes)
        answer = model.answer({name: column[rows] for name, column in self._history.features.items()})
        return padded(np.where(np.isfinite(answer), answer, np.nan), self._classes)

    def marks(self) -> Marks:
        """Return how many rows have passed; feedback is counted with its prediction."""
        return Marks(self._until, self._until)

    def watermark(self) -> datetime:
        """Return the time of the end: nothing is ever under way here."""
        return instant(int(self._history.at[-1].astype(np.int64)) + 1)

    def first(self) -> datetime | None:
        """Return the time of the oldest request."""
        return instant(int(self._history.at[0].astype(np.int64))) if len(self._history) else None

    def examples(self, span: Span, rule: LabelRule, *, as_of: datetime, marks: Marks | None = None) -> Examples:
        """Return the requests of `span` that have passed, with their labels at `as_of`."""
        start, end = np.searchsorted(self._history.at, [column_time(span.start), column_time(span.end)], side="left")
        end = min(int(end), self._until if marks is None else marks.predictions)
        return self._examples(np.arange(start, max(int(start), end)), rule, as_of=as_of)

    def erased(self, span: Span, *, as_of: datetime, marks: Marks) -> int:
        """Return 0: nothing is erased from a past that is replayed."""
        return 0

    def pairs(self, span: Span, version: str, rule: LabelRule, *, as_of: datetime) -> Pairs:
        """Return the requests of `span` that `version` shadowed."""
        start, end = np.searchsorted(self._history.at, [column_time(span.start), column_time(span.end)], side="left")
        nobody = np.zeros(len(self._history), dtype=bool)
        answered, asked = self._shadows.get(version, (self._served.answer, nobody))
        rows = int(start) + np.flatnonzero(asked[int(start) : min(int(end), self._until)])
        failed = ~given(answered[rows])
        errors = np.full(len(rows), None, dtype=object)
        errors[failed] = "the answer is no number"
        return Pairs(self._examples(rows, rule, as_of=as_of), answered[rows], errors, np.zeros(len(rows)))

    def crowds(self, span: Span, arms: Arms, *, every: timedelta, as_of: datetime) -> tuple[Crowd, ...]:
        """Return how many units met which of `arms` in `span` and came first in which stretch of length `every`."""
        return crowds(self._numbered(span), span, arms, every=every)

    def newcomers(self, span: Span, arms: Arms, *, first_in: Span, as_of: datetime) -> Newcomers:
        """Return the units whose first meeting of all `span` lies in `first_in` and that met one arm in `span`."""
        found = newcomers(self._numbered(span), span, arms, first_in=first_in)
        return replace(found, unit=self._units[0][found.unit])

    def _numbered(self, span: Span) -> Predictions:
        """What has passed of `span`, with the units' numbers for their names: texts are slow to sort."""
        start, end = np.searchsorted(self._history.at, [column_time(span.start), column_time(span.end)], side="left")
        rows = slice(int(start), min(int(end), self._until))
        return replace(self._served.take(rows), unit=self._units[1][rows])  # type: ignore[arg-type]

    @cached_property
    def _units(self) -> tuple[Column, Column]:
        """The units' names in alphabetical order, and the number of each row's."""
        names, number = np.unique(self._history.unit.astype(str), return_inverse=True)
        return names.astype(object), number

    def _examples(self, rows: Column, rule: LabelRule, *, as_of: datetime) -> Examples:
        # A slice is a view; an index is a copy of every feature: contiguous rows are the common case.
        whole = len(rows) and len(rows) == rows[-1] - rows[0] + 1
        served = self._served.take(slice(rows[0], rows[-1] + 1) if whole else rows)  # type: ignore[arg-type]
        label_at, outcome = self._history.label_at[rows], self._history.outcome[rows]
        told = np.flatnonzero(~np.isnan(outcome) & ~np.isnat(label_at))
        feedback = Matched(
            row=told,
            at=label_at[told],
            received_at=label_at[told],
            name=np.full(len(told), self._label or rule.name, dtype=object),
            kind=np.full(len(told), "label", dtype=object),
            value=outcome[told],
        )
        return Examples(served, rule.resolve(served.at, feedback, as_of=as_of))
