"""What does a file of a trial's units say, in sums?

DuckDB goes over the rows once, to one row per unit, and once over these, to one row per arm; memory does not grow with
the file.
"""

# ruff: noqa: S608  # every name of the user's that stands in a query is quoted

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement
from pathlib import Path
from typing import Any

import numpy as np

from leaven.errors import BadDefinition
from leaven.experiments.measures import Cell, Kept, Measure, Sums
from leaven.stats.comoments import Comoments
from leaven.stats.quantiles import edges_near, quantile_counts
from leaven.storage.data_file import opened
from leaven.storage.tabular import quoted

_ROW = '"leaven: row of the file"'
MAX_SLICES = 200  # values of one slice column; more are no slices


@dataclass(frozen=True, slots=True)
class TrialColumns:
    """Which columns of the file hold what."""

    arm: str
    measures: Sequence[Measure]
    unit: str | None = None  # without it, every row is a unit
    mature: str | None = None  # truth: whether the outcome is final. Without it, all are
    slices: Sequence[str] = ()


def read_sums(path: Path, columns: TrialColumns) -> Sums:
    """Read a Parquet or CSV file into the sums of its arms, metrics and slices.

    A unit with several rows counts once: with the mean of a metric's column, with the totals of a ratio's. A unit is
    mature when all its rows are, and belongs to the slice of its first row. Empty cells are no measurements; a unit
    whose covariate is unknown gets the mean of those known (from before the exposure, so this favours no arm).

    Raises:
        UnreadableFile: there is no such file, or it is neither of the two kinds.
        BadDefinition: a column is not there or holds what it must not, with the row; a unit is in two arms.
    """
    with opened(path, as_text=True) as connection:
        reader = _Reader(connection, str(path), columns)
        reader.check()
        reader.by_unit()
        return Sums(*reader.counts(), tuple(reader.cells()))


class _Reader:
    def __init__(self, connection: Any, where: str, columns: TrialColumns) -> None:
        self._connection, self._where, self._columns = connection, where, columns
        self._types = {str(name): str(kind) for name, kind, *_ in self._rows("DESCRIBE data")}

    def check(self) -> None:
        """Refuse what no number can be made of, by column and row."""
        columns = self._columns
        numeric = {name for measure in columns.measures for name in (*measure.columns, *measure.covariate)}
        needed = [columns.arm, *numeric, *columns.slices, *filter(None, (columns.unit, columns.mature))]
        missing = [name for name in dict.fromkeys(needed) if name not in self._types]
        if missing:
            raise BadDefinition(
                self._where, f"it has no column {', '.join(missing)}", f"It has {', '.join(self._types)}."
            )
        wrongs = list(self._wrongs(sorted(numeric)))
        # One pass for all of them; only a file that has something wrong is searched for where.
        found = self._rows("SELECT " + ", ".join(f"bool_or({wrong})" for _, wrong, _ in wrongs) + " FROM data")[0]
        for (name, wrong, what), any_row in zip(wrongs, found, strict=True):
            if any_row:
                self._refuse(name, wrong, what)

    def _wrongs(self, numeric: Sequence[str]) -> Iterator[tuple[str, str, str]]:
        """Column, the SQL of what its cells must not be, and what to say of such a cell."""
        columns = self._columns
        for empty, what in ((columns.arm, "names no arm"), (columns.unit, "names no unit")):
            if empty is not None:
                yield empty, f"{quoted(empty)} IS NULL OR CAST({quoted(empty)} AS VARCHAR) = ''", what
        if columns.mature is not None:
            yield columns.mature, f"{self._truth(columns.mature)} IS NULL", "is neither true nor false"
        for name in numeric:
            number, cell = self._number(name), quoted(name)
            yield name, f"{cell} IS NOT NULL AND ({number}) IS NULL AND NOT {self._nan(name)}", "is no number"
            yield name, f"coalesce(isinf({number}), FALSE)", "is not finite"

    def by_unit(self) -> None:
        """Make the table `units`: one row per unit with its arm, maturity, slices and numbers."""
        columns = self._columns
        arm = f"CAST({quoted(columns.arm)} AS VARCHAR)"
        chosen = [
            f"{arm if columns.unit is None else f'min({arm})'} AS arm",
            f"{_ROW if columns.unit is None else f'CAST({quoted(columns.unit)} AS VARCHAR)'} AS unit",
            f"{self._mature()} AS mature",
            *(f"{self._first(name)} AS s{i}" for i, name in enumerate(columns.slices)),
            *(f"{expression} AS {name}" for name, expression in self._expressions()),
        ]
        numbered = f"(SELECT *, row_number() OVER () AS {_ROW} FROM data)"
        group = "" if columns.unit is None else f" GROUP BY CAST({quoted(columns.unit)} AS VARCHAR)"
        if columns.unit is not None:
            self._refuse_two_arms(arm)
        self._connection.execute(f"CREATE TEMP TABLE units AS SELECT {', '.join(chosen)} FROM {numbered}{group}")

    def counts(self) -> tuple[dict[str, int], dict[str, int]]:
        """Units by arm: all, and the mature ones."""
        found = self._rows("SELECT arm, count(*), count(*) FILTER (mature) FROM units GROUP BY arm ORDER BY arm")
        return {arm: units for arm, units, _ in found}, {arm: mature for arm, _, mature in found}

    def cells(self) -> Iterator[Cell]:
        """The sums of every metric: over all units, then by slice."""
        for index, measure in enumerate(self._columns.measures):
            sums = self._cells if measure.quantile is None else self._quantiles
            yield from sums(measure, index, None)
            for number, name in enumerate(self._columns.slices):
                self._refuse_many(number, name)
                yield from sums(measure, index, (f"s{number}", name))

    def _quantiles(self, measure: Measure, index: int, by: tuple[str, str] | None) -> Iterator[Cell]:
        """Counts around the quantile, from the rows themselves: these are held in memory."""
        part, number = "''" if by is None else by[0], self._number(measure.numerator)
        unit = _ROW if self._columns.unit is None else f"CAST({quoted(self._columns.unit)} AS VARCHAR)"
        numbered = f"(SELECT *, row_number() OVER () AS {_ROW} FROM data)"
        found = self._connection.execute(
            f"SELECT v, arm, part, dense_rank() OVER (PARTITION BY arm, part ORDER BY u) - 1 AS u FROM "
            f"(SELECT {number} AS v, {unit} AS u FROM {numbered}) JOIN "
            f"(SELECT unit AS u, arm, {part} AS part FROM units WHERE mature) USING (u) WHERE v IS NOT NULL"
        ).fetchnumpy()
        values, arms, parts = found["v"], found["arm"].astype(str), found["part"].astype(str)
        edges = edges_near(values, measure.quantile or 0.5)
        for value in np.unique(parts):
            kept: dict[str, Kept] = {
                str(arm): quantile_counts(values[mine], found["u"][mine].astype(np.int64), edges)
                for arm in np.unique(arms[parts == value])
                if (mine := (parts == value) & (arms == arm)).any()
            }
            yield Cell(measure.name, None if by is None else f"{by[1]}={value}", kept)

    def _cells(self, measure: Measure, index: int, by: tuple[str, str] | None) -> Iterator[Cell]:
        own = [f"m{index}_{i}" for i in range(len(measure.columns))]
        names = [*own, *(f"m{index}_x{i}" for i in range(len(measure.covariate)))]
        filled = [
            name if name in own else f"coalesce({name}, (SELECT favg({name}) FROM units WHERE mature)) AS {name}"
            for name in names
        ]
        known = " AND ".join(f"{name} IS NOT NULL" for name in own)
        part = "NULL" if by is None else by[0]
        inner = f"SELECT arm, {part} AS part, {', '.join(filled)} FROM units WHERE mature AND {known}"
        means = [f"favg({name})" for name in names]
        products = [f"covar_pop({a}, {b}) * count(*)" for a, b in combinations_with_replacement(names, 2)]
        asked = ", ".join(["part", "arm", "count(*)", *means, *products])
        found = self._rows(f"SELECT {asked} FROM ({inner}) GROUP BY part, arm ORDER BY part, arm")
        by_part: dict[str | None, dict[str, Kept]] = {}
        for value, arm, count, *numbers in found:
            kept = Comoments(count, tuple(numbers[: len(names)]), tuple(numbers[len(names) :]))
            by_part.setdefault(None if by is None else f"{by[1]}={value}", {})[arm] = kept
        for value, arms in by_part.items():
            yield Cell(measure.name, value, arms)

    def _expressions(self) -> Iterator[tuple[str, str]]:
        """Name and SQL of each number per unit."""
        for index, measure in enumerate(self._columns.measures):
            for label, names in (("", measure.columns), ("x", measure.covariate)):
                numbers = [self._number(name) for name in names]
                both = " AND ".join(f"({number}) IS NOT NULL" for number in numbers)
                for i, number in enumerate(numbers):
                    how = "favg" if len(numbers) == 1 else "fsum"
                    yield (
                        f"m{index}_{label}{i}",
                        f"CASE WHEN {both} THEN {number} END"
                        if self._columns.unit is None
                        else f"{how}({number}) FILTER ({both})",
                    )

    def _mature(self) -> str:
        if self._columns.mature is None:
            return "TRUE"
        truth = self._truth(self._columns.mature)
        return truth if self._columns.unit is None else f"bool_and({truth})"

    def _first(self, name: str) -> str:
        """A slice's value of the unit; what is empty is a slice of its own."""
        text = f"coalesce(CAST({quoted(name)} AS VARCHAR), '')"
        return text if self._columns.unit is None else f"arg_min({text}, {_ROW})"

    def _number(self, name: str) -> str:
        cell, text = quoted(name), self._types[name] == "VARCHAR"
        if text:
            truth = f"CAST(TRY_CAST({cell} AS BOOLEAN) AS DOUBLE)"
            return f"nullif(coalesce(TRY_CAST({cell} AS DOUBLE), {truth}), 'nan'::DOUBLE)"
        return f"nullif(TRY_CAST({cell} AS DOUBLE), 'nan'::DOUBLE)"

    def _nan(self, name: str) -> str:
        return f"coalesce(isnan(TRY_CAST({quoted(name)} AS DOUBLE)), FALSE)"

    def _truth(self, name: str) -> str:
        return f"TRY_CAST({quoted(name)} AS BOOLEAN)"

    def _refuse(self, name: str, wrong: str, what: str) -> None:
        """Raise for the first row where `wrong` holds."""
        cell = f"CAST({quoted(name)} AS VARCHAR)"
        numbered = f"(SELECT *, row_number() OVER () AS {_ROW} FROM data)"
        found = self._rows(
            f"SELECT min({_ROW}), arg_min({cell}, {_ROW}), count(*) FROM {numbered} WHERE {wrong} HAVING count(*) > 0"
        )
        if found:
            row, value, count = found[0]
            shown = "an empty cell" if value in (None, "") else repr(value)
            more = f" (and {count - 1:,} more)" if count > 1 else ""
            raise BadDefinition(
                self._where, f"column {name}, row {row}: {shown} {what}{more}", "Mend the cell, or leave the row out."
            )

    def _refuse_two_arms(self, arm: str) -> None:
        unit = f"CAST({quoted(str(self._columns.unit))} AS VARCHAR)"
        found = self._rows(
            f"SELECT min(u), count(*) FROM (SELECT {unit} AS u FROM data GROUP BY u HAVING count(DISTINCT {arm}) > 1)"
            " HAVING count(*) > 0"
        )
        if found:
            unit_seen, count = found[0]
            raise BadDefinition(
                self._where,
                f"column {self._columns.arm}: {count:,} units are in more than one arm, {unit_seen!r} for one",
                "Find out why; then leave these units out, of all arms.",
            )

    def _refuse_many(self, number: int, name: str) -> None:
        found = self._rows(f"SELECT count(DISTINCT s{number}) FROM units")[0][0]
        if found > MAX_SLICES:
            raise BadDefinition(
                self._where,
                f"column {name} has {found:,} values",
                f"Slice by at most {MAX_SLICES}: group the values.",
            )

    def _rows(self, query: str) -> list[tuple[Any, ...]]:
        found: list[tuple[Any, ...]] = self._connection.execute(query).fetchall()
        return found
