"""Where can the owner look up what an import did not take?

In an NDJSON file: one line per row, `{"row": 7, "reason": "…", "content": {…}}`, in the order of the file that was
imported. Rows are counted from 1 on, without the header.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from leaven.storage.tabular import ROW, BadLine, PastFile, quoted

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_AT_ONCE = 10_000


def write_rejects(
    connection: DuckDBPyConnection, staged: str, source: PastFile, bad: Sequence[BadLine], path: Path
) -> bool:
    """Write what is wrong in `staged`, and the lines that are no rows, to `path`; False if there is nothing."""
    lines = _merged(_faulty(connection, staged, source, bad), iter(bad))
    first = next(lines, None)
    if first is None:
        return False
    being_written = path.with_name(path.name + ".writing")
    with being_written.open("wb") as file:
        file.write(_line(first))
        for each in lines:
            file.write(_line(each))
        file.flush()
        os.fsync(file.fileno())
    being_written.replace(path)
    return True


def _faulty(connection: DuckDBPyConnection, staged: str, source: PastFile, bad: Sequence[BadLine]) -> Iterator[BadLine]:
    """The rows that have a fault, with their content as JSON text."""
    faulty = f"SELECT row, coalesce(fault, label_fault) AS reason FROM {staged} WHERE reason IS NOT NULL"  # noqa: S608
    if not connection.execute(f"SELECT count(*) FROM ({faulty})").fetchall()[0][0]:  # noqa: S608
        return
    found = connection.execute(
        f"""SELECT f.row, f.reason, c.content FROM ({faulty}) f JOIN ({source.contents()}) c ON c.{quoted(ROW)} = f.row
            ORDER BY f.row"""  # noqa: S608
    )
    while rows := found.fetchmany(_AT_ONCE):
        for row, reason, content in rows:
            yield BadLine(source.number_in_file(row, bad), reason, content)


def _merged(one: Iterator[BadLine], other: Iterator[BadLine]) -> Iterator[BadLine]:
    """Both, in the order of their rows."""
    import heapq

    return heapq.merge(one, other, key=lambda line: line.row)


def _line(bad: BadLine) -> bytes:
    content: Any
    try:
        content = msgspec.json.decode(bad.content)
    except (msgspec.DecodeError, TypeError):
        content = bad.content
    return msgspec.json.encode({"row": bad.row, "reason": bad.reason, "content": content}) + b"\n"
