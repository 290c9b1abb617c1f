"""Which examples does a refresh learn from?"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import KW_ONLY, dataclass
from datetime import datetime, timedelta
from hashlib import blake2b
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from leaven.duration import duration
from leaven.errors import BadDefinition
from leaven.events.columns import Column
from leaven.events.source import Span
from leaven.values import value

Stratum = Literal["month", "week", "day"]
Arms = Literal["all", "champion", "own"]
_ARMS = ("all", "champion", "own")


@dataclass(frozen=True, slots=True)
class Part:
    """One stretch of the log, whose rows count, and how many of them to keep (None: all), evenly over its strata."""

    span: Span
    rows: int | None = None
    by: Stratum | None = None
    arms: Arms = "all"


class Data(Protocol):
    """A choice of examples, relative to the moment of the refresh; choices add up with `+`."""

    def parts(self, *, until: datetime, first: datetime) -> Sequence[Part]:
        """Return the stretches, all before `until`; `first` is the time of the oldest prediction."""
        ...


@value
class Recent:
    """All examples of the latest stretch.

    `arms` says by whom they were served, which matters where what is served decides what is learnt: two versions that
    learn from each other's rows grow alike, and a trial of one against the other measures too little.

    - `"all"`: by anybody;
    - `"champion"`: by whoever was champion then, not by a challenger in its trial or a version that a request named;
    - `"own"`: by the champion that is continued or replaced, and by the versions that it continues, whichever arm they
      were then.

    Rows of before Leaven (imported ones) count in each case.
    """

    length: str
    _: KW_ONLY
    arms: Arms = "all"

    def __post_init__(self) -> None:
        duration(self.length, where="Recent(…)")
        _check_arms("Recent", self.arms)

    def parts(self, *, until: datetime, first: datetime) -> Sequence[Part]:
        """Return the one stretch that ends at `until`."""
        return [Part(Span(until - duration(self.length), until), arms=self.arms)]

    def __add__(self, other: Data) -> Data:
        return Both(self, other)


@value
class AllHistory:
    """Every example there is; `arms` as of `Recent`."""

    _: KW_ONLY
    arms: Arms = "all"

    def __post_init__(self) -> None:
        _check_arms("AllHistory", self.arms)

    def parts(self, *, until: datetime, first: datetime) -> Sequence[Part]:
        """Return the one stretch from the oldest prediction to `until`."""
        return [Part(Span(min(first, until), until), arms=self.arms)]

    def __add__(self, other: Data) -> Data:
        return Both(self, other)


@value
class Sample:
    """A number of examples from before the latest stretch, chosen by a hash of their ids.

    `of` is written `"before 28d"`: everything older than that. With `by`, each month, week or day (UTC) gives an equal
    number as far as it has them. `arms` as of `Recent`.
    """

    of: str
    _: KW_ONLY
    rows: int
    by: Stratum | None = None
    arms: Arms = "all"

    def __post_init__(self) -> None:
        self._age()
        _check_arms("Sample", self.arms)
        if not isinstance(self.rows, int) or self.rows < 1:
            raise BadDefinition("Sample(rows=…)", f"{self.rows!r} is no number of rows", "Give 1 or more.")
        if self.by not in (None, "month", "week", "day"):
            raise BadDefinition("Sample(by=…)", f"{self.by!r} is no stratum", 'Use "month", "week" or "day".')

    def _age(self) -> timedelta:
        if not isinstance(self.of, str) or not self.of.startswith("before "):
            raise BadDefinition("Sample(…)", f"{self.of!r} names no stretch", 'Write it as "before 28d".')
        return duration(self.of.removeprefix("before "), where="Sample(…)")

    def parts(self, *, until: datetime, first: datetime) -> Sequence[Part]:
        """Return the one stretch of what is older."""
        end = until - self._age()
        return [Part(Span(first, end), self.rows, self.by, self.arms)] if first < end else []

    def __add__(self, other: Data) -> Data:
        return Both(self, other)


@dataclass(frozen=True, repr=False)
class Both:
    """Two choices together; an example that both choose counts once."""

    left: Data
    right: Data

    def parts(self, *, until: datetime, first: datetime) -> Sequence[Part]:
        """Return the stretches of both."""
        return [*self.left.parts(until=until, first=first), *self.right.parts(until=until, first=first)]

    def __add__(self, other: Data) -> Data:
        return Both(self, other)

    def __repr__(self) -> str:
        return f"{self.left!r} + {self.right!r}"


def served_by(arm: Column, version: Column, arms: Arms, *, lineage: Collection[str]) -> NDArray[np.bool_]:
    """Return which rows `arms` picks.

    Args:
        arm: Name of the arm that answered each row.
        version: Number of the version that did, as text; none where it was nobody of Leaven's.
        arms: Whose rows count.
        lineage: Versions that count as one's own.
    """
    if arms == "all":
        return np.ones(len(arm), dtype=bool)
    nobody = (version == "") | (version == None)  # noqa: E711  # element by element
    mine: NDArray[np.bool_] = arm == "champion" if arms == "champion" else np.isin(version.astype(str), list(lineage))
    return np.asarray(nobody | mine, dtype=bool)


def _check_arms(name: str, arms: object) -> None:
    if arms not in _ARMS:
        raise BadDefinition(f"{name}(arms=…)", f"{arms!r} names no arms", f"Use one of {', '.join(map(repr, _ARMS))}.")


def chosen(ids: Column, at: Column, part: Part, *, seed: int) -> NDArray[np.intp]:
    """Return the positions of the examples that `part` keeps, ascending.

    The choice depends on the ids, the times and the seed alone: not on their order, nor on chance.
    """
    if part.rows is None or len(ids) <= part.rows:
        return np.arange(len(ids))
    drawn = np.array([_draw(example, seed) for example in ids.tolist()], dtype=np.uint64)
    stratum = _strata(at, part.by)
    order = np.lexsort((drawn, stratum))
    starts = np.flatnonzero(np.r_[True, np.diff(stratum[order]) != 0])
    # The place of each example within its stratum: taking places in turn draws evenly from all strata.
    place = np.arange(len(order)) - np.repeat(starts, np.diff(np.r_[starts, len(order)]))
    in_turn = order[np.lexsort((drawn[order], place))]
    return np.sort(in_turn[: part.rows])


def _draw(example: str, seed: int) -> int:
    return int.from_bytes(blake2b(f"{seed}\0{example}".encode(), digest_size=8).digest())


def _strata(at: Column, by: Stratum | None) -> NDArray[np.int64]:
    if by is None:
        return np.zeros(len(at), dtype=np.int64)
    unit = {"month": "M", "week": "W", "day": "D"}[by]
    return at.astype(f"datetime64[{unit}]").astype(np.int64)
