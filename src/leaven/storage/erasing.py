"""How are all rows of a unit taken out of a loop's tables, and those of days that grew too old?

Tombstones first, then the rows: killed anywhere in between, the next try finds the rows that are left, and the
tombstones that are there. Partitions are rewritten, which is dear, so many units are erased in one go. The rows leave
the newest version at once; the files that hold them leave the disk with a vacuum.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING

from leaven.duration import EPOCH
from leaven.storage.delta import LiveFile
from leaven.storage.lake import Lake, parquet
from leaven.storage.rows import TableName
from leaven.storage.tombstones import Tombstone, bury, counted

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_KEY = "substr(sha256(w.salt || '/' || {id}), 1, 32)"
# Feedback first: as long as a prediction is there, what came of it is found by its id.
_TABLES: tuple[TableName, ...] = ("feedback", "predictions")


@dataclass(frozen=True, slots=True)
class Unit:
    """A unit that is to be erased."""

    request: str  # id of the erasure
    unit: str
    salt: str
    feedback_mark: int = 0  # feedback up to this number was looked at in an earlier round


@dataclass(frozen=True, slots=True)
class Erased:
    """What a round has done."""

    rows: Mapping[str, tuple[int, int]]  # by request: predictions and feedback erased, in all rounds so far
    feedback_mark: int  # up to which feedback was looked at


def erase_units(lake: Lake, loop: str, units: Sequence[Unit], *, at: int, hold: Callable[[], bool]) -> Erased:
    """Take out all predictions of these units, the feedback on them, and the feedback on the units themselves.

    Args:
        lake: Where the tables are.
        loop: Whose tables.
        units: The units. Feedback on predictions that an earlier round erased is recognised by their keys.
        at: When this is, micros.
        hold: Whether this process may write to the lake; asked before each commit.
    Raises:
        LeaseNotHeld: `hold` said no. What is done stays so, and the next round does the rest.
        TableContended: others were always faster.
    """
    with lake.query() as connection:
        connection.execute("CREATE TEMP TABLE wanted (request VARCHAR, unit VARCHAR, salt VARCHAR, mark BIGINT)")
        connection.executemany(
            "INSERT INTO wanted VALUES (?, ?, ?, ?)",
            [[each.request, each.unit, each.salt, each.feedback_mark] for each in units],
        )
        _find_predictions(connection, lake, loop)
        mark = _find_feedback(connection, lake, loop)
        stones = [Tombstone(*facts) for facts in connection.execute(_STONES).fetchall()]
        days = {name: connection.execute(_ROWS, [name]).fetchall() for name in _TABLES}
    bury(lake, loop, stones, at=at, hold=hold)
    for name in _TABLES:
        lake.table(loop, name).remove(days[name], hold=hold)
    return Erased(_counts(lake, loop, [each.request for each in units]), mark)


_STONES = """SELECT "table", seq, seq, 1, moment, moment, 'unit', request, key FROM found ORDER BY "table", seq"""
_ROWS = """SELECT CAST(make_timestamptz(moment) AS DATE), seq FROM found WHERE "table" = ? ORDER BY seq"""


def _find_predictions(connection: DuckDBPyConnection, lake: Lake, loop: str) -> None:
    """Put the units' predictions into `found`, shadows too, and their ids into `ids`."""
    connection.execute(
        """CREATE TEMP TABLE found ("table" VARCHAR, seq BIGINT, moment BIGINT, request VARCHAR, key VARCHAR);
           CREATE TEMP TABLE ids (id VARCHAR, request VARCHAR)"""
    )
    files = _files(lake, loop, "predictions")
    if not files:
        return
    connection.execute(
        f"""CREATE TEMP TABLE served AS SELECT p.seq, epoch_us(p."at") AS moment, p.id, w.request,
                {_KEY.format(id="p.id")} AS key
            FROM {parquet(files)} p JOIN wanted w ON p.unit = w.unit"""  # noqa: S608
    )
    connection.execute("INSERT INTO found SELECT 'predictions', seq, moment, request, key FROM served")
    connection.execute("INSERT INTO ids SELECT id, min(request) FROM served GROUP BY id")


def _find_feedback(connection: DuckDBPyConnection, lake: Lake, loop: str) -> int:
    """Add the feedback on the units and on their predictions to `found`; return up to which number it was looked at.

    Of feedback that an earlier round has looked at, none is on a prediction that an earlier round has erased.
    """
    files = _files(lake, loop, "feedback")
    if not files:
        return 0
    buried = _files(lake, loop, "tombstones")
    keys = f"SELECT request, key FROM {parquet(buried)}" if buried else "SELECT request, key FROM found WHERE false"  # noqa: S608
    connection.execute(
        f"""INSERT INTO found SELECT 'feedback', seq, any_value(moment), min(request), NULL FROM (
                SELECT f.seq, epoch_us(f."at") AS moment, w.request
                FROM {parquet(files)} f JOIN wanted w ON f.unit = w.unit
                UNION ALL
                SELECT f.seq, epoch_us(f."at"), i.request FROM {parquet(files)} f JOIN ids i ON f.prediction = i.id
                UNION ALL
                SELECT f.seq, epoch_us(f."at"), k.request FROM {parquet(files)} f
                JOIN (SELECT * FROM wanted SEMI JOIN ({keys}) USING (request)) w ON f.seq > w.mark
                JOIN ({keys}) k ON k.request = w.request AND k.key = {_KEY.format(id="f.prediction")}
            ) GROUP BY seq"""  # noqa: S608
    )
    return max(file.last_seq for file in files)


def _files(lake: Lake, loop: str, name: TableName) -> list[LiveFile]:
    table = lake.table(loop, name)
    return table.files() if table.refresh() else []


def _counts(lake: Lake, loop: str, requests: Sequence[str]) -> dict[str, tuple[int, int]]:
    with lake.query() as connection:
        files = _files(lake, loop, "tombstones")
        return {each: counted(connection, parquet(files), each) if files else (0, 0) for each in requests}


def drop_days(lake: Lake, loop: str, *, before: date, at: int, hold: Callable[[], bool]) -> int:
    """Take out all rows of the days (UTC) before `before`; return how many there were. Raises as `erase_units` does."""
    stones = [stone for name in _TABLES for stone in _old_days(lake, loop, name, before)]
    bury(lake, loop, stones, at=at, hold=hold)
    for name in _TABLES:
        lake.table(loop, name).remove_days(before, hold=hold)
    return sum(stone.rows for stone in stones)


def _old_days(lake: Lake, loop: str, name: TableName, before: date) -> list[Tombstone]:
    with lake.query() as connection:
        old = [file for file in _files(lake, loop, name) if file.day < before]
        if not old:
            return []
        found = connection.execute(
            f"""SELECT min(seq), max(seq), count(*), min(epoch_us("at")), max(epoch_us("at"))
                FROM {parquet(old)} GROUP BY epoch_us("at") // 86400000000 ORDER BY 1"""  # noqa: S608
        ).fetchall()
    return [Tombstone(name, first, last, rows, since, until, "age") for first, last, rows, since, until in found]


def day_of(micros_since_epoch: int) -> date:
    """Return the day (UTC) that a moment lies in."""
    return date.fromordinal(EPOCH.toordinal() + micros_since_epoch // 86_400_000_000)
