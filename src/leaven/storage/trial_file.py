"""What does a file of a trial's units say, in sums?

DuckDB goes over the rows, where units have several of them to one row per unit first, and answers with a row per arm;
memory does not grow with a file of one row per unit.
"""

# ruff: noqa: S608  # every name of the user's that stands in a query is quoted

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from leaven.experiments.measures import Cell, Kept, Measure, Sums
from leaven.stats.quantiles import edges_near, quantile_counts
from leaven.storage.data_file import opened
from leaven.storage.trial_clusters import cluster_cells
from leaven.storage.trial_columns import MAX_SLICES, TrialCells, TrialColumns
from leaven.storage.trial_moments import Moments, moments
from leaven.storage.trial_units import Units, moments_of, units_of_many_rows, units_of_rows

__all__ = ["MAX_SLICES", "TrialColumns", "read_sums"]


def read_sums(path: Path, columns: TrialColumns) -> Sums:
    """Read a Parquet or CSV file into the sums of its arms, metrics and slices.

    A unit with several rows counts once: with the mean of a metric's column, with the totals of a ratio's. A unit is
    mature when all its rows are, and belongs to the slice of its first row. Empty cells are no measurements; a unit
    whose covariate is unknown gets the mean of those known (from before the exposure, so this favours no arm). With
    clusters, the sums are over these, and a quantile has none.

    Raises:
        UnreadableFile: there is no such file, or it is neither of the two kinds.
        BadDefinition: a column is not there or holds what it must not, with the row; a unit is in two arms.
    """
    with opened(path, as_text=True) as connection:
        cells = TrialCells(connection, str(path), columns)
        cells.check()
        units = units_of_rows(cells) if columns.unit is None else units_of_many_rows(cells, columns.unit)
        cells.check_slices(units.source, units.parts)
        if columns.cluster is not None:
            return Sums(*_counts(cells, units), tuple(cluster_cells(cells, units)))
        told = moments(cells, units)
        # Where all units are compared, the pass that told the moments has counted them.
        counted = (told.judged, told.judged) if told.judged and not units.mature else _counts(cells, units)
        return Sums(*counted, tuple(_cells(cells, units, told)))


def _counts(cells: TrialCells, units: Units) -> tuple[dict[str, int], dict[str, int]]:
    """Units by arm: all, and the mature ones."""
    mature = f" FILTER ({units.mature})" if units.mature else ""
    found = cells.rows(
        f"SELECT CAST(arm AS VARCHAR), seen, mature FROM (SELECT {units.arm} AS arm, count(*) AS seen, "
        f"count(*){mature} AS mature FROM {units.source} GROUP BY {units.arm}) ORDER BY 1"
    )
    cells.check_arms([arm for arm, *_ in found])
    return {arm: seen for arm, seen, _ in found}, {arm: mature for arm, _, mature in found}


def _cells(cells: TrialCells, units: Units, told: Moments) -> Iterator[Cell]:
    """The sums of every metric: over all units, then by slice."""
    by_name = dict(zip((measure.name for measure in moments_of(cells)), told.by_metric, strict=True))
    for measure in cells.columns.measures:
        if measure.quantile is None:
            for part, arms in sorted(by_name[measure.name].items(), key=lambda item: item[0] or (-1, "")):
                yield Cell(measure.name, part and f"{cells.columns.slices[part[0]]}={part[1]}", dict(arms))
        else:
            yield from _quantiles(cells, units, measure, None)
            for number in range(len(units.parts)):
                yield from _quantiles(cells, units, measure, number)


def _quantiles(cells: TrialCells, units: Units, measure: Measure, by: int | None) -> Iterator[Cell]:
    """Counts around the quantile, from the rows themselves: these are held in memory."""
    number, part = cells.number(measure.numerator), "''" if by is None else units.parts[by]
    if cells.columns.unit is None:
        chosen = f"SELECT {number} AS v, {units.arm} AS arm, {part} AS part, row_number() OVER () AS u"
        rows = f"{chosen} FROM {units.judged}"
    else:
        rows = (
            f"SELECT * FROM (SELECT {number} AS v, {cells.text(cells.columns.unit)} AS u FROM data) JOIN "
            f"(SELECT unit AS u, arm, {part} AS part FROM {units.judged}) USING (u)"
        )
    found = cells.arrays(
        "SELECT v, CAST(arm AS VARCHAR) AS arm, part, dense_rank() OVER (PARTITION BY arm, part ORDER BY u) - 1 AS u "
        f"FROM ({rows}) WHERE v IS NOT NULL"
    )
    values, arms, parts = found["v"], found["arm"].astype(str), found["part"].astype(str)
    edges = edges_near(values, measure.quantile or 0.5)
    for value in np.unique(parts):
        kept: dict[str, Kept] = {
            str(arm): quantile_counts(values[mine], found["u"][mine].astype(np.int64), edges)
            for arm in np.unique(arms[parts == value])
            if (mine := (parts == value) & (arms == arm)).any()
        }
        yield Cell(measure.name, None if by is None else f"{cells.columns.slices[by]}={value}", kept)
