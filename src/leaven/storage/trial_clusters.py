"""What are a trial's totals by cluster, where units of one cluster are alike?"""

# ruff: noqa: S608  # every name of the user's that stands in a query is quoted

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from leaven.experiments.measures import Cell, Kept, Measure
from leaven.stats.comoments import Comoments, comoments
from leaven.storage.trial_columns import TrialCells
from leaven.storage.trial_units import Numbers, Units, moments_of

Totals = dict[str, NDArray[np.float64]]  # by cluster: a row of numbers


def cluster_cells(cells: TrialCells, units: Units) -> Iterator[Cell]:
    """Yield the sums of every metric over clusters: over all units, then by slice. They are held in memory.

    A metric is its total by its units, or a ratio's denominators, whatever the sizes of the clusters.
    """
    for measure, numbers in zip(moments_of(cells), units.numbers, strict=True):
        yield from _cells(cells, units, measure, numbers, None)
        for by in range(len(units.parts)):
            yield from _cells(cells, units, measure, numbers, by)


def _cells(cells: TrialCells, units: Units, measure: Measure, numbers: Numbers, by: int | None) -> Iterator[Cell]:
    by_part: dict[str, dict[str, Totals]] = {}
    part = "''" if by is None else units.parts[by]
    for arm, value, cluster, *totals in cells.rows(_query(units, numbers, part)):
        by_part.setdefault(value, {}).setdefault(arm, {})[cluster] = np.array(totals, dtype=np.float64)
    for value, arms in by_part.items():
        kept: dict[str, Kept] = {arm: _comoments(list(totals.values())) for arm, totals in arms.items()}
        shared: dict[str, dict[str, Comoments]] = {}
        for one, other in combinations(arms, 2):
            both = [np.concatenate([arms[one][name], arms[other][name]]) for name in arms[one].keys() & arms[other]]
            shared.setdefault(one, {})[other] = _comoments(both)
        yield Cell(measure.name, None if by is None else f"{cells.columns.slices[by]}={value}", kept, shared)


def _query(units: Units, numbers: Numbers, part: str) -> str:
    """Totals by arm, part and cluster: of the metric and what it is divided by, then of the covariate and its own."""
    measured = " AND ".join(f"({number}) IS NOT NULL" for number in numbers.own)
    chosen = ", ".join(f"{sql} AS n{k}" for k, sql in enumerate((*numbers.own, *numbers.covariate)))
    judged = (
        f"SELECT CAST({units.arm} AS VARCHAR) AS arm, {part} AS part, {units.cluster} AS cluster, {chosen} "
        f"FROM {units.source} WHERE {measured}{f' AND {units.mature}' if units.mature else ''}"
    )
    own = len(numbers.own)
    # What is not known is the mean of those known: from before the exposure, so this favours no arm.
    known = (f"coalesce(n{k}, (SELECT favg(n{k}) FROM judged))" for k in range(own, own + len(numbers.covariate)))
    sums = [f"fsum({each})" for each in (*(f"n{k}" for k in range(own)), *known)]
    totals = sums if own > 1 else [each for total in sums for each in (total, "count(*)")]
    return (
        f"WITH judged AS ({judged}) SELECT arm, part, cluster, {', '.join(totals)} FROM judged "
        "GROUP BY arm, part, cluster ORDER BY part, arm, cluster"
    )


def _comoments(rows: list[NDArray[np.float64]]) -> Comoments:
    return comoments(*np.array(rows).T) if rows else Comoments()
