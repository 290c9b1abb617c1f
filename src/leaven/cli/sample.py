"""What do the columns of a data file hold?"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from leaven.storage.data_file import UnreadableFile, opened
from leaven.storage.tabular import quoted

Kind = Literal["text", "integer", "real", "truth", "time", "other"]

_INTEGERS = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT")
_KINDS: dict[str, Kind] = {
    **{name: "integer" for base in _INTEGERS for name in (base, f"U{base}")},
    "FLOAT": "real",
    "DOUBLE": "real",
    "BOOLEAN": "truth",
    "VARCHAR": "text",
    "DATE": "time",
    "TIMESTAMP": "time",
    "TIMESTAMP_S": "time",
    "TIMESTAMP_MS": "time",
    "TIMESTAMP_NS": "time",
    "TIMESTAMP WITH TIME ZONE": "time",
}
_LOOKED_AT = 50_000  # rows that relations between columns are looked for in


@dataclass(frozen=True, slots=True)
class Column:
    """One column of the file, in numbers."""

    name: str
    kind: Kind
    sql_type: str
    rows: int
    known: int  # rows that are not null
    distinct: int  # among the known
    low: Any  # smallest and largest value; None where all are null
    high: Any

    @property
    def missing(self) -> float:
        """Share of rows that are null."""
        return 1 - self.known / self.rows if self.rows else 0.0

    @property
    def is_flag(self) -> bool:
        """Whether it holds truth values, or 0 and 1."""
        return self.kind == "truth" or (
            self.kind == "integer" and self.distinct == 2 and (self.low, self.high) == (0, 1)
        )


class Sample:
    """An open data file; times are UTC."""

    def __init__(self, connection: Any, path: Path) -> None:
        self._connection, self.path = connection, path
        described = self._rows("DESCRIBE data")
        self.columns = {str(name): self._profile(str(name), str(sql_type)) for name, sql_type, *_ in described}

    @property
    def rows(self) -> int:
        """Rows of the file."""
        return next(iter(self.columns.values())).rows if self.columns else 0

    def value(self, expression: str) -> Any:
        """Return one aggregate over all rows; columns are written with `quoted`."""
        return self._rows(f"SELECT {expression} FROM data")[0][0]  # noqa: S608  # the expressions are ours

    def count(self, query: str) -> int:
        """Return how many rows a query over the view `data` gives."""
        return int(self._rows(f"SELECT count(*) FROM ({query})")[0][0])  # noqa: S608  # the queries are ours

    def numbers(self, *names: str) -> dict[str, NDArray[np.float64]]:
        """Return columns as float64, NaN where null or no number, from the same rows all over the file."""
        step = max(1, self.rows // _LOOKED_AT)
        asked = ", ".join(f"TRY_CAST({quoted(name)} AS DOUBLE) AS c{i}" for i, name in enumerate(names))
        some = f"SELECT {asked} FROM (SELECT *, row_number() OVER () AS n FROM data) WHERE n % {step} = 0"  # noqa: S608
        found = self._connection.execute(some).fetchnumpy()
        return {
            name: np.ma.filled(np.ma.asarray(found[f"c{i}"], dtype=np.float64), np.nan) for i, name in enumerate(names)
        }

    def texts(self, name: str) -> tuple[str, ...]:
        """Return the different values of a column of text, in alphabetical order."""
        q = quoted(name)
        return tuple(
            str(row[0])
            for row in self._rows(f"SELECT DISTINCT {q} FROM data WHERE {q} IS NOT NULL ORDER BY 1")  # noqa: S608
        )

    def words(self, name: str) -> float:
        """Return how many words the values of a column of text have on average."""
        return float(self.value(f"avg(len(string_split(trim({quoted(name)}), ' ')))") or 0.0)

    def _profile(self, name: str, sql_type: str) -> Column:
        kind: Kind = "real" if sql_type.startswith("DECIMAL") else _KINDS.get(sql_type, "other")
        q = quoted(name)
        bounds = f"min({q}), max({q})" if kind != "other" else "NULL, NULL"
        if kind == "time":  # in UTC without a zone, as all times here
            bounds = f"min({q})::TIMESTAMP, max({q})::TIMESTAMP"
        counted = f"approx_count_distinct({q})" if kind in ("real", "other") else f"count(DISTINCT {q})"
        row = self._rows(f"SELECT count(*), count({q}), {counted}, {bounds} FROM data")[0]  # noqa: S608
        return Column(name, kind, sql_type, *row)

    def _rows(self, query: str) -> list[tuple[Any, ...]]:
        found: list[tuple[Any, ...]] = self._connection.execute(query).fetchall()
        return found


@contextmanager
def open_sample(path: Path) -> Iterator[Sample]:
    """Open a Parquet or CSV file.

    Raises:
        UnreadableFile: there is no such file, it is neither of the two kinds, or it has no rows.
    """
    with opened(path) as connection:
        sample = Sample(connection, path)
        if not sample.rows:
            raise UnreadableFile(str(path), "it has no rows")
        yield sample


def days_between(first: datetime, last: datetime) -> float:
    """Return the days from one moment to another, at least a thousandth of one."""
    return max((last - first).total_seconds() / 86_400, 1e-3)
