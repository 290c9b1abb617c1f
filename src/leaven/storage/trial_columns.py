"""Which columns of a trial's file hold what, and which of their cells cannot be meant?"""

# ruff: noqa: S608  # every name of the user's that stands in a query is quoted

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from leaven.errors import BadDefinition
from leaven.experiments.measures import Measure
from leaven.storage.tabular import quoted

ROW = '"leaven: row of the file"'
NUMBERED = f"(SELECT *, row_number() OVER () AS {ROW} FROM data)"
MAX_SLICES = 200  # values of one slice column; more are no slices
_WHOLE = {f"{sign}{size}INT" for sign in ("", "U") for size in ("TINY", "SMALL", "BIG", "HUGE")}
_WHOLE |= {"INTEGER", "UINTEGER", "BOOLEAN"}  # types whose cells are finite numbers, all of them
_FLOATING = {"FLOAT", "DOUBLE"}


@dataclass(frozen=True, slots=True)
class TrialColumns:
    """Which columns of the file hold what."""

    arm: str
    measures: Sequence[Measure]
    unit: str | None = None  # without it, every row is a unit
    mature: str | None = None  # truth: whether the outcome is final. Without it, all are
    slices: Sequence[str] = ()
    cluster: str | None = None  # whose units are alike (a village, a shop): errors count clusters

    @property
    def numeric(self) -> list[str]:
        """The columns of all metrics and covariates."""
        return sorted({name for measure in self.measures for name in (*measure.columns, *measure.covariate)})


class TrialCells:
    """The cells of the view `data` as SQL, and refusals of those that cannot be meant."""

    def __init__(self, connection: Any, where: str, columns: TrialColumns) -> None:
        self._connection, self._where, self.columns = connection, where, columns

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """Return what a query answers."""
        found: list[tuple[Any, ...]] = self._connection.execute(query).fetchall()
        return found

    def arrays(self, query: str) -> dict[str, Any]:
        """Return what a query answers, a NumPy array per column."""
        found: dict[str, Any] = self._connection.execute(query).fetchnumpy()
        return found

    def run(self, statement: str) -> None:
        """Carry out a statement."""
        self._connection.execute(statement)

    @cached_property
    def types(self) -> dict[str, str]:
        """The file's columns with DuckDB's names of their types."""
        return {str(name): str(kind) for name, kind, *_ in self.rows("DESCRIBE data")}

    def plain(self, name: str) -> str:
        """A column as a number, as it stands: NaN is NaN."""
        kind, cell = self.types[name], quoted(name)
        if kind == "DOUBLE":
            return cell
        return f"CAST({cell} AS DOUBLE)" if kind in _WHOLE or kind == "FLOAT" else self.number(name)

    def number(self, name: str) -> str:
        """A column as a number, NULL where there is none."""
        cell = quoted(name)
        cast = f"TRY_CAST({cell} AS DOUBLE)"
        if self.types[name] == "VARCHAR":
            cast = f"coalesce({cast}, CAST(TRY_CAST({cell} AS BOOLEAN) AS DOUBLE))"
        return cast if self.types[name] in _WHOLE else f"nullif({cast}, 'nan'::DOUBLE)"

    def truth(self, name: str) -> str:
        """A column as true or false, NULL where it is neither."""
        return f"TRY_CAST({quoted(name)} AS BOOLEAN)"

    def text(self, name: str) -> str:
        """A column as text."""
        return f"CAST({quoted(name)} AS VARCHAR)"

    def check(self) -> None:
        """Refuse columns that are not there, and cells that no number or name can be made of, by column and row."""
        columns = self.columns
        asked = (columns.unit, columns.mature, columns.cluster)
        needed = [columns.arm, *columns.numeric, *columns.slices, *(name for name in asked if name is not None)]
        missing = [name for name in dict.fromkeys(needed) if name not in self.types]
        if missing:
            raise BadDefinition(
                self._where, f"it has no column {', '.join(missing)}", f"It has {', '.join(self.types)}."
            )
        if columns.cluster is not None and any(measure.quantile is not None for measure in columns.measures):
            self.refuse("a quantile over clusters is not known", "Leave it out, or name the cluster as the unit.")
        self._refuse_any(list(self._wrongs()))

    def check_finite(self) -> None:
        """Refuse infinite cells of columns whose type allows for them: looked for where a sum is not finite."""
        floating = [name for name in self.columns.numeric if self.types[name] in _FLOATING]
        self._refuse_any([(name, f"coalesce(isinf({quoted(name)}), FALSE)", "is not finite") for name in floating])

    def check_arms(self, arms: Sequence[str | None]) -> None:
        """Refuse arms without a name, of a file whose rows are units: seen when they are counted."""
        if not all(arms):
            self._refuse_first(self.columns.arm, self._blank(self.columns.arm), "names no arm")

    def check_slices(self, source: str, parts: Sequence[str]) -> None:
        """Refuse slices of too many values."""
        for name, part in zip(self.columns.slices, parts, strict=True):
            found = self.rows(f"SELECT count(DISTINCT {part}) FROM {source}")[0][0]
            if found > MAX_SLICES:
                self.refuse(f"column {name} has {found:,} values", f"Slice by at most {MAX_SLICES}: group the values.")

    def refuse(self, what: str, remedy: str) -> None:
        """Raise for the file."""
        raise BadDefinition(self._where, what, remedy)

    def _wrongs(self) -> Iterator[tuple[str, str, str]]:
        """Column, the SQL of what its cells must not be, and what to say of such a cell."""
        columns = self.columns
        arm = columns.arm if columns.unit is not None else None
        for empty, what in (
            (arm, "names no arm"),
            (columns.unit, "names no unit"),
            (columns.cluster, "names no cluster"),
        ):
            if empty is not None:
                yield empty, self._blank(empty), what
        if columns.mature is not None:
            yield columns.mature, f"{self.truth(columns.mature)} IS NULL", "is neither true nor false"
        for name in columns.numeric:
            if self.types[name] in _WHOLE | _FLOATING:
                continue
            number, cell = self.number(name), quoted(name)
            nan = f"coalesce(isnan(TRY_CAST({cell} AS DOUBLE)), FALSE)"
            yield name, f"{cell} IS NOT NULL AND ({number}) IS NULL AND NOT {nan}", "is no number"
            yield name, f"coalesce(isinf({number}), FALSE)", "is not finite"

    def _blank(self, name: str) -> str:
        cell = quoted(name)
        return f"{cell} IS NULL OR {cell} = ''" if self.types[name] == "VARCHAR" else f"{cell} IS NULL"

    def _refuse_any(self, wrongs: Sequence[tuple[str, str, str]]) -> None:
        if not wrongs:
            return
        # One pass for all of them; only a file that has something wrong is searched for where.
        found = self.rows("SELECT " + ", ".join(f"bool_or({wrong})" for _, wrong, _ in wrongs) + " FROM data")[0]
        for (name, wrong, what), any_row in zip(wrongs, found, strict=True):
            if any_row:
                self._refuse_first(name, wrong, what)

    def _refuse_first(self, name: str, wrong: str, what: str) -> None:
        """Raise for the first row where `wrong` holds."""
        cell = self.text(name)
        row, value, count = self.rows(
            f"SELECT min({ROW}), arg_min({cell}, {ROW}), count(*) FROM {NUMBERED} WHERE {wrong}"
        )[0]
        shown = "an empty cell" if value in (None, "") else repr(value)
        more = f" (and {count - 1:,} more)" if count > 1 else ""
        self.refuse(f"column {name}, row {row}: {shown} {what}{more}", "Mend the cell, or leave the row out.")
