"""Who answers what was served and what came back?"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Protocol

from leaven.events.columns import Examples, Pairs
from leaven.events.labels import LabelRule

if TYPE_CHECKING:
    from leaven.events.meetings import Arms, Crowd, Newcomers


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of time, from `start` on and before `end`; both aware."""

    start: datetime
    end: datetime

    def __contains__(self, moment: datetime) -> bool:
        return self.start <= moment < self.end


@dataclass(frozen=True, slots=True)
class Marks:
    """High-water marks of a loop's tables: every row with a sequence number up to the mark is in."""

    predictions: int
    feedback: int
    tombstones: int = 0  # of the rows that were taken out; those up to here were gone when the marks were taken


class ExampleSource(Protocol):
    """Reads one loop's log. What it answers for an `as_of` never changes later, whatever is appended."""

    def marks(self) -> Marks:
        """Return how far the log reaches now."""
        ...

    def watermark(self) -> datetime:
        """Return the moment up to which every event that was logged can be read."""
        ...

    def first(self) -> datetime | None:
        """Return the time of the oldest prediction or exposure, or None before the first."""
        ...

    def examples(self, span: Span, rule: LabelRule, *, as_of: datetime, marks: Marks | None = None) -> Examples:
        """Return what was served live in `span`, oldest first (ties by id), with the labels at `as_of`.

        That is predictions and exposures (`Predictions.exposed`; `Examples.predicted` leaves these out). With `marks`,
        rows that were appended later than these are left out.
        """
        ...

    def erased(self, span: Span, *, as_of: datetime, marks: Marks) -> int:
        """Return how many rows that a reader of `span` could see at `marks` were erased, or grew too old, since."""
        ...

    def pairs(self, span: Span, version: str, rule: LabelRule, *, as_of: datetime) -> Pairs:
        """Return the live predictions in `span` that `version` shadowed, with its answers."""
        ...

    def crowds(self, span: Span, arms: Arms, *, every: timedelta, as_of: datetime) -> tuple[Crowd, ...]:
        """Return how many units met which of `arms` in `span` and came first in which stretch of length `every`."""
        ...

    def newcomers(self, span: Span, arms: Arms, *, first_in: Span, as_of: datetime) -> Newcomers:
        """Return the units whose first meeting of all `span` lies in `first_in`, by name.

        Those that met two arms in `span` are left out.
        """
        ...
