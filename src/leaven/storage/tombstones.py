"""What was taken out of a loop's tables, and when?

A third table of the loop, `tombstones`, keeps one row per erased row, and one per day that grew too old: of which
table, which numbers, when it had happened and when it was taken out (`at`), but not whom it was about, nor what it
said. A tombstone is written before the row goes; one whose row is still there after a crash is recognised by the row's
number, which is never used again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Literal

import msgspec
from arro3.core import Table

from leaven.events.source import Marks, Span
from leaven.storage.delta import EventTable, Rows
from leaven.storage.rows import MICROS_PER_DAY, TableName, tombstones_table

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from leaven.storage.lake import Lake

Why = Literal["unit", "age"]


class Tombstone(msgspec.Struct, frozen=True):
    """Rows that are to go: one of a unit, or those of a day. Times are micros."""

    table: TableName
    first_row: int
    last_row: int
    rows: int
    first_at: int
    last_at: int
    why: Why
    request: str | None = None  # the erasure that it belongs to
    key: str | None = None  # of the prediction's id, with the erasure's salt


def bury(lake: Lake, loop: str, stones: Sequence[Tombstone], *, at: int, hold: Callable[[], bool]) -> int:
    """Write the tombstones that are not there yet; return how many these were.

    Raises:
        LeaseNotHeld: this process may not write to the lake.
    """
    if not stones:
        return 0

    def rows(table: EventTable) -> Rows | None:
        known = _known(lake, table)
        new = [stone for stone in stones if (stone.table, stone.first_row) not in known]
        return (_arrow(new, first_seq=table.seq + 1, at=at), len(new)) if new else None

    return lake.table(loop, "tombstones").append(rows, transactions={}, hold=hold)


def _known(lake: Lake, table: EventTable) -> set[tuple[str, int]]:
    from leaven.storage.lake import parquet

    files = table.files()
    if not files:
        return set()
    with lake.query() as connection:
        return set(connection.execute(f'SELECT "table", first_row FROM {parquet(files)}').fetchall())  # noqa: S608


def _arrow(stones: Sequence[Tombstone], *, first_seq: int, at: int) -> Table:
    return tombstones_table(stones, first_seq=first_seq, at=at, day=at // MICROS_PER_DAY)


def counted(connection: DuckDBPyConnection, tombstones: str, request: str) -> tuple[int, int]:
    """Return how many predictions and pieces of feedback a request has erased so far."""
    found = connection.execute(
        f'SELECT "table", sum(rows) FROM {tombstones} WHERE request = ? GROUP BY 1',  # noqa: S608
        [request],
    )
    rows = {name: int(count) for name, count in found.fetchall()}
    return rows.get("predictions", 0), rows.get("feedback", 0)


def erased_since(connection: DuckDBPyConnection, tombstones: str, span: Span, marks: Marks, as_of: datetime) -> int:
    """Return how many rows that a reader of `span` could see at `marks` were taken out later.

    Of a day that was dropped as a whole, all rows count if some could be seen: an upper bound.
    """
    found = connection.execute(
        f"""SELECT coalesce(sum(rows), 0) FROM {tombstones} WHERE seq > ? AND last_at >= ? AND (
                "table" = 'predictions' AND first_row <= ? AND first_at < ?
                OR "table" = 'feedback' AND first_row <= ? AND first_at <= ?)""",  # noqa: S608
        [marks.tombstones, span.start, marks.predictions, span.end, marks.feedback, as_of],
    )
    return int(found.fetchall()[0][0])
