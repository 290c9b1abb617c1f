"""What is measured on each unit of a trial, and what is kept of it?"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from leaven.stats.comoments import Comoments


@dataclass(frozen=True, slots=True)
class Measure:
    """One metric: the mean of a column per unit, or the ratio of the totals of two.

    `covariate` names what adjusts it, as many columns as the metric itself has: known before the exposure.
    """

    numerator: str
    denominator: str | None = None
    covariate: tuple[str, ...] = ()
    lower_is_better: bool = False

    @property
    def name(self) -> str:
        """As an owner writes it: `revenue`, `clicks/views`."""
        return self.numerator if self.denominator is None else f"{self.numerator}/{self.denominator}"

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of the metric itself."""
        return (self.numerator,) if self.denominator is None else (self.numerator, self.denominator)

    @property
    def estimator(self) -> str:
        """How it is estimated."""
        kind = "mean" if self.denominator is None else "ratio (delta method)"
        return f"{kind}, adjusted by {'/'.join(self.covariate)}" if self.covariate else kind


class Cell(msgspec.Struct, frozen=True):
    """What is kept of one metric in one slice, by arm: sums that add up over days of entry, never over one unit twice.

    The numbers per unit are those of `Measure.columns`, then those of its covariate.
    """

    measure: str
    slice: str | None  # `country=DE`; None for all units
    arms: dict[str, Comoments]

    def __add__(self, other: Cell) -> Cell:
        names = [*self.arms, *(name for name in other.arms if name not in self.arms)]
        none = Comoments()
        return Cell(
            self.measure, self.slice, {name: self.arms.get(name, none) + other.arms.get(name, none) for name in names}
        )


class Sums(msgspec.Struct, frozen=True):
    """All that the analysis of a trial needs, however many rows it comes from."""

    units: dict[str, int]  # assigned, by arm
    mature: dict[str, int]  # of these, those whose outcome is final
    cells: tuple[Cell, ...]
