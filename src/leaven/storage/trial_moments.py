"""What are the means and products of a trial's numbers, by arm and slice, in one pass over the file?

The quick pass adds up numbers and their products as they stand. It counts where nothing is missing and no mean is far
from zero beside its spread; metrics of which this is not so are read again, as deviations from their means.
"""

# ruff: noqa: S608  # every name of the user's that stands in a query is quoted

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement

from leaven.stats.comoments import Comoments
from leaven.storage.trial_columns import TrialCells
from leaven.storage.trial_units import Numbers, Units

Part = tuple[int, str] | None  # the number of a slice column and a value of it; None for all units
_FAR = 1e4  # the squared mean in variances: from here on the sum of squares has lost more than four digits


@dataclass(frozen=True, slots=True)
class _Found:
    """One metric in one arm and part: sums of `k` numbers and their products, about `centres`."""

    part: Part
    arm: str
    units: int
    counts: Sequence[int]  # of units that have each number
    sums: Sequence[float]
    products: Sequence[float]  # the upper triangle by rows

    def trusted(self) -> bool:
        """Whether nothing was missing and the digits are there."""
        if any(count != self.units for count in self.counts) or not self.finite():
            return False
        squares = [self.products[place] for place in _diagonal(len(self.sums))]
        means = [each * each / self.units for each in self.sums]
        return all(mean <= _FAR * (square - mean) for square, mean in zip(squares, means, strict=True))

    def finite(self) -> bool:
        return all(map(math.isfinite, (*self.sums, *self.products)))

    def comoments(self, centres: Sequence[float]) -> Comoments:
        n, pairs = self.counts[0], combinations_with_replacement(self.sums, 2)
        products = [total - one * other / n for total, (one, other) in zip(self.products, pairs, strict=True)]
        for place in _diagonal(len(self.sums)):
            products[place] = max(0.0, products[place])
        means = (centre + each / n for centre, each in zip(centres, self.sums, strict=True))
        return Comoments(n, tuple(means), tuple(products))


@dataclass(frozen=True, slots=True)
class Moments:
    """What one pass tells."""

    judged: dict[str, int]  # units that are compared, by arm
    by_metric: list[dict[Part, dict[str, Comoments]]]  # a unit without the metric is not counted in it


def moments(cells: TrialCells, units: Units) -> Moments:
    """Return the comoments of each metric's numbers, by part and arm.

    An unknown covariate is the mean of those known: from before the exposure, so this favours no arm.

    Raises:
        BadDefinition: a number is infinite.
    """
    quick = _asked(cells, units, [numbers.plain for numbers in units.numbers])
    if not all(found.finite() for rows in quick for found in rows):
        cells.check_finite()
    again = [index for index, rows in enumerate(quick) if not all(found.trusted() for found in rows)]
    result = [_by_part(rows, [0.0] * len(numbers.plain)) for rows, numbers in zip(quick, units.numbers, strict=True)]
    chosen = [units.numbers[index] for index in again]
    centres = _centres(cells, units, chosen)
    careful = [_deviations(numbers, own) for numbers, own in zip(chosen, centres, strict=True)]
    for index, rows, own in zip(again, _asked(cells, units, careful), centres, strict=True):
        result[index] = _by_part(rows, own)
    return Moments({found.arm: found.units for found in quick[0] if found.part is None} if quick else {}, result)


def _asked(cells: TrialCells, units: Units, numbers: Sequence[Sequence[str]]) -> list[list[_Found]]:
    """One pass: sums of every metric's numbers and of their products, by part and arm."""
    if not numbers:
        return []
    columns: dict[str, str] = {}
    aggregates: dict[str, int] = {}
    places = []
    for expressions in numbers:
        names = [columns.setdefault(expression, f"d{len(columns)}") for expression in expressions]
        wanted = (
            [f"count({name})" for name in names],
            [f"sum({name})" for name in names],
            [f"sum({one} * {other})" for one, other in combinations_with_replacement(names, 2)],
        )
        places.append([[aggregates.setdefault(each, len(aggregates)) for each in kind] for kind in wanted])
    parts = [f"p{i}" for i in range(len(units.parts))]
    inner = [f"{units.arm} AS arm", *(f"{sql} AS {name}" for sql, name in zip(units.parts, parts, strict=True))]
    inner += [f"{sql} AS {name}" for sql, name in columns.items()]
    group = ", ".join(["(arm)", *(f"(arm, {part})" for part in parts)])
    outer = ", ".join(["CAST(arm AS VARCHAR)", *parts, "count(*)", *aggregates])
    rows = cells.rows(
        f"SELECT {outer} FROM (SELECT {', '.join(inner)} FROM {units.judged}) "
        f"GROUP BY {f'GROUPING SETS ({group})' if parts else 'arm'} ORDER BY ALL"
    )
    cells.check_arms([row[0] for row in rows])
    return [[_found(row, len(parts), kinds) for row in rows] for kinds in places]


def _found(row: Sequence[object], parts: int, places: Sequence[Sequence[int]]) -> _Found:
    arm, values, units, numbers = row[0], row[1 : 1 + parts], row[1 + parts], row[2 + parts :]
    part = next(((i, str(value)) for i, value in enumerate(values) if value is not None), None)
    counts, sums, products = ([numbers[place] or 0 for place in kind] for kind in places)
    return _Found(part, str(arm), units, counts, sums, products)  # type: ignore[arg-type]  # as DuckDB answers


def _by_part(rows: Sequence[_Found], centres: Sequence[float]) -> dict[Part, dict[str, Comoments]]:
    result: dict[Part, dict[str, Comoments]] = {}
    for found in rows:
        if found.counts[0]:
            result.setdefault(found.part, {})[found.arm] = found.comoments(centres)
    return result


def _centres(cells: TrialCells, units: Units, chosen: Sequence[Numbers]) -> list[list[float]]:
    """Mean of each number over all units that are judged."""
    asked = [f"favg({number})" for numbers in chosen for number in (*numbers.own, *_known(numbers.covariate))]
    if not asked:
        return []
    found = iter(cells.rows(f"SELECT {', '.join(asked)} FROM {units.judged}")[0])
    return [[next(found) or 0.0 for _ in numbers.plain] for numbers in chosen]


def _deviations(numbers: Numbers, centres: Sequence[float]) -> list[str]:
    away = [f"({sql}) - '{centre!r}'::DOUBLE" for sql, centre in
            zip((*numbers.own, *_known(numbers.covariate)), centres, strict=True)]  # fmt: skip
    filled = [*away[: len(numbers.own)], *(f"coalesce({each}, 0)" for each in away[len(numbers.own) :])]
    measured = " AND ".join(f"({number}) IS NOT NULL" for number in numbers.own)
    return [f"CASE WHEN {measured} THEN {each} END" for each in filled]


def _known(covariate: Sequence[str]) -> list[str]:
    """A covariate of two numbers is known where both are."""
    if len(covariate) < 2:
        return list(covariate)
    both = " AND ".join(f"({number}) IS NOT NULL" for number in covariate)
    return [f"CASE WHEN {both} THEN {number} END" for number in covariate]


def _diagonal(k: int) -> list[int]:
    """Where the squares stand in the upper triangle by rows."""
    return [row * k - row * (row - 1) // 2 for row in range(k)]
