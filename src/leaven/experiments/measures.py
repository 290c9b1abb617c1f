"""What is measured on each unit of a trial, and what is kept of it?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import msgspec

from leaven.errors import BadDefinition
from leaven.stats.clustered_auc import AucCohorts
from leaven.stats.comoments import Comoments
from leaven.stats.quantiles import QuantileCounts

Kept = Comoments | QuantileCounts | AucCohorts
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Measure:
    """One metric: the mean of a column per unit, the ratio of the totals of two, or a quantile over rows.

    `covariate` names what adjusts it, as many columns as the metric itself has: known before the exposure.
    """

    numerator: str
    denominator: str | None = None
    covariate: tuple[str, ...] = ()
    quantile: float | None = None  # in (0, 1)
    lower_is_better: bool = False
    margin: float | None = None  # of a guardrail: the share of the control by which it may be worse
    called: str | None = None  # where its columns do not name it

    @property
    def name(self) -> str:
        """As an owner writes it: `revenue`, `clicks/views`."""
        if self.called is not None:
            return self.called
        if self.quantile is not None:
            return f"{self.numerator} p{100 * self.quantile:g}"
        return self.numerator if self.denominator is None else f"{self.numerator}/{self.denominator}"

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of the metric itself."""
        return (self.numerator,) if self.denominator is None else (self.numerator, self.denominator)

    @property
    def estimator(self) -> str:
        """How it is estimated."""
        if self.quantile is not None:
            return "quantile (over units)"
        kind = "mean" if self.denominator is None else "ratio (delta method)"
        return f"{kind}, adjusted by {'/'.join(self.covariate)}" if self.covariate else kind


class Cell(msgspec.Struct, frozen=True):
    """What is kept of one metric in one slice, by arm: sums that add up over days of entry, never over one unit twice.

    The numbers per unit are those of `Measure.columns`, then those of its covariate. Where units live in clusters, they
    are totals per cluster, and a mean is a ratio too: total and units.
    """

    measure: str
    slice: str | None  # `country=DE`; None for all units
    arms: dict[str, Kept]
    # By two arms in the order of `arms`: of clusters in both, the numbers of one, then of the other. None: no clusters.
    shared: dict[str, dict[str, Comoments]] | None = None

    def __add__(self, other: Cell) -> Cell:
        return Cell(self.measure, self.slice, _merged(self.arms, other.arms, _added), self._shared_with(other))

    def _shared_with(self, other: Cell) -> dict[str, dict[str, Comoments]] | None:
        if self.shared is None or other.shared is None:
            return self.shared if other.shared is None else other.shared
        return _merged(self.shared, other.shared, lambda one, two: _merged(one, two, Comoments.__add__))

    def both(self, control: str, arm: str) -> Comoments:
        """Return what clusters in both arms say: the control's numbers first."""
        pairs = self.shared or {}
        if control in pairs and arm in pairs[control]:
            return pairs[control][arm]
        found = pairs.get(arm, {}).get(control, Comoments())
        k = len(found.centres) // 2
        return found.reordered([*range(k, 2 * k), *range(k)])


def _merged(one: dict[str, T], other: dict[str, T], add: Callable[[T, T], T]) -> dict[str, T]:
    merged = {**one, **other}
    for name in one.keys() & other.keys():
        merged[name] = add(one[name], other[name])
    return merged


def _added(one: Kept, other: Kept) -> Kept:
    if isinstance(one, Comoments) and isinstance(other, Comoments):
        return one + other
    if isinstance(one, QuantileCounts) and isinstance(other, QuantileCounts):
        return one + other
    if isinstance(one, AucCohorts) and isinstance(other, AucCohorts):
        return one + other
    raise BadDefinition("evidence", "two kinds of sums do not add up", "Add cells of one metric.")


class Sums(msgspec.Struct, frozen=True):
    """All that the analysis of a trial needs, however many rows it comes from."""

    units: dict[str, int]  # assigned, by arm
    mature: dict[str, int]  # of these, those whose outcome is final
    cells: tuple[Cell, ...]
