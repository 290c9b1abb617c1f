"""How is a Parquet or CSV file of the user's read with SQL?"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from leaven.errors import LeavenError
from leaven.storage.tabular import literal

_TEXT = (".csv", ".gz", ".tsv", ".txt")


class UnreadableFile(LeavenError, ValueError):
    """A data file could not be read as what it was given for."""

    def __init__(self, path: str, why: str) -> None:
        super().__init__(path, why)
        self.path, self.why = path, why

    def __str__(self) -> str:
        return f"{self.path}: {self.why}. Give a Parquet or CSV file with a header."


@contextmanager
def opened(path: Path, *, as_text: bool = False) -> Iterator[Any]:
    """Yield a DuckDB connection that has the file as the view `data`; times are UTC.

    Args:
        path: A Parquet file, or a CSV file by the end of its name.
        as_text: Leave all columns of a CSV file as text, so that what a cell holds cannot fail the whole file.
    Raises:
        UnreadableFile: there is no such file, or it is neither of the two kinds; also for whatever else DuckDB finds
            wrong while it is open.
    """
    import duckdb

    if not path.is_file():
        raise UnreadableFile(str(path), "there is no such file")
    connection = duckdb.connect()
    try:
        connection.execute("SET TimeZone = 'UTC'")  # else times with a zone are cast to the machine's own
        named = literal(str(path))
        read = f"read_csv({named}{', all_varchar = true' if as_text else ''})"
        read = read if path.suffix.lower() in _TEXT else f"read_parquet({named})"
        connection.execute(f"CREATE VIEW data AS SELECT * FROM {read}")  # noqa: S608
        yield connection
    except duckdb.Error as error:
        raise UnreadableFile(str(path), str(error).splitlines()[0]) from error
    finally:
        connection.close()
