"""Which stretches of the log does a refresh learn from, and whose rows?"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from datetime import datetime, timedelta
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from leaven.curation.drawing import balanced, in_turn, keys, strata
from leaven.duration import duration
from leaven.errors import BadDefinition
from leaven.events.columns import Column
from leaven.events.labels import Task
from leaven.events.source import Span
from leaven.values import value

Stratum = str  # "month", "week", "day", "label", "feature:NAME"
Arms = Literal["all", "champion", "own"]
_ARMS = ("all", "champion", "own")


@dataclass(frozen=True, slots=True)
class Part:
    """One stretch of the log, whose rows count, and how many of them to keep (None: all), evenly over its strata.

    With `half_life`, a row that is so much older is half as likely; with `balance`, that share of the rows has label 1.
    """

    span: Span
    rows: int | None = None
    by: Stratum | None = None
    arms: Arms = "all"
    half_life: timedelta | None = None
    balance: float | None = None


class Data(Protocol):
    """A choice of examples, relative to the moment of the refresh; choices add up with `+`."""

    def parts(self, *, until: datetime, first: datetime) -> Sequence[Part]:
        """Return the stretches, all before `until`; `first` is the time of the oldest prediction."""
        ...


@value
class Recent:
    """All examples of the latest stretch; with `before`, of the stretch that ends so long before the newest ones.

    `Recent("56d", before="7d")` leaves out the newest week.

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
    before: str | None = None

    def __post_init__(self) -> None:
        duration(self.length, where="Recent(…)")
        if self.before is not None:
            duration(self.before, where="Recent(before=…)")
        check_arms("Recent", self.arms)

    def parts(self, *, until: datetime, first: datetime) -> Sequence[Part]:
        """Return the one stretch that ends at `until`, or `before` it."""
        end = until if self.before is None else until - duration(self.before)
        return [Part(Span(end - duration(self.length), end), arms=self.arms)]

    def __add__(self, other: Data) -> Data:
        return Both(self, other)


@value
class AllHistory:
    """Every example there is; `arms` as of `Recent`."""

    _: KW_ONLY
    arms: Arms = "all"

    def __post_init__(self) -> None:
        check_arms("AllHistory", self.arms)

    def parts(self, *, until: datetime, first: datetime) -> Sequence[Part]:
        """Return the one stretch from the oldest prediction to `until`."""
        return [Part(Span(min(first, until), until), arms=self.arms)]

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

    @property
    def shifts_probabilities(self) -> bool:
        """Whether either choice draws rows by their label."""
        return any(getattr(each, "shifts_probabilities", False) for each in (self.left, self.right))

    def check_fits(self, *, features: Collection[str], task: Task, where: str) -> None:
        """Refuse what either choice would refuse of a loop."""
        for each in (self.left, self.right):
            if hasattr(each, "check_fits"):
                each.check_fits(features=features, task=task, where=where)

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


def check_arms(name: str, arms: object) -> None:
    """Refuse what names no arms."""
    if arms not in _ARMS:
        raise BadDefinition(f"{name}(arms=…)", f"{arms!r} names no arms", f"Use one of {', '.join(map(repr, _ARMS))}.")


def chosen(
    ids: Column,
    at: Column,
    part: Part,
    *,
    seed: int,
    label: Column | None = None,
    features: Mapping[str, Column] | None = None,
) -> NDArray[np.intp]:
    """Return the positions of the examples that `part` keeps, ascending.

    The choice depends on the ids, the times, the seed and what `part` samples by: not on their order, nor on chance.

    Args:
        ids: Of the examples.
        at: When each was served.
        part: How many to keep, and how they are drawn.
        seed: Another one draws others.
        label: Needed where `part` balances, or samples by the label.
        features: Needed where `part` samples by one.

    Raises:
        BadDefinition: what is needed was not given, or is not 0 or 1 where it must be.
    """
    if part.rows is None or (part.balance is None and len(ids) <= part.rows):
        return np.arange(len(ids))
    if (part.by == "label" or part.balance is not None) and label is not None and not np.isin(label, (0, 1)).all():
        raise BadDefinition("Sample(…)", "labels other than 0 and 1 are no classes", "Sample by time or a feature.")
    key = keys(ids, at, seed=seed, half_life=part.half_life)
    stratum = strata(part.by, at, label, features)
    if part.balance is None:
        return in_turn(key, stratum, part.rows)
    if label is None:
        raise BadDefinition(f"balance={part.balance}", "labels are not looked at here", "Sample without balance here.")
    return balanced(key, stratum, label, rows=part.rows, share=part.balance)
