"""How does history come into the lake, whole, and each row once?

A row of a file, a past request with its outcome, becomes a live prediction of the arm `imported` and the feedback on
it. The rows are read into a file of DuckDB's first, so that memory stays within its bound however long the file is, and
then committed in parts of whole days where these are not too long: each part is looked for among what those days hold,
so what came before (another file, an earlier try that was killed) is left out.
"""

from __future__ import annotations

import os
import secrets
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from leaven.duration import EPOCH, instant
from leaven.loop import Loop
from leaven.storage.delta import EventTable, Rows
from leaven.storage.incoming import FEEDBACK_ID, Incoming
from leaven.storage.lake import Lake, parquet
from leaven.storage.rejects import write_rejects
from leaven.storage.rows import MICROS_PER_DAY
from leaven.storage.scratch import remove_left
from leaven.storage.tabular import literal, past_file

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

Progress = Callable[[str, int, int], None]  # what is being done, rows done, rows in all

PART_ROWS = 250_000  # that share a commit; bounds the memory of the writer
_LOOK_SECONDS = 0.2


class ImportReport(msgspec.Struct, frozen=True):
    """What became of the rows of an imported file."""

    rows: int
    predictions: int  # new in the lake
    feedback: int  # new in the lake
    already: int  # rows whose prediction was there, or came twice in the file
    unlabelled: int  # rows without an outcome
    without_unit: int  # rows whose unit is missing: each counts as a unit of its own
    rejected: dict[str, int]  # by reason; a rejected label leaves its prediction
    absent: tuple[str, ...]  # features that the file has no column for
    rejects: str | None = None  # the file that holds what was rejected


def import_history(
    lake: Lake,
    loop: Loop,
    file: Path,
    *,
    time: str,
    label_time: str | None = None,
    unit: str | None = None,
    rejects: Path | None = None,
    progress: Progress = lambda stage, done, rows: None,
) -> ImportReport:
    """Bring past requests with their outcomes into the lake, each once.

    Args:
        lake: Where to.
        loop: Whose requests these are; features and label are the columns of these names.
        file: A Parquet, CSV or NDJSON file, the latter two also compressed.
        time: Column of the moment of the request; without a time zone it is UTC.
        label_time: Column of the moment the outcome became known; without it, that of the request.
        unit: Column of the unit; the loop's own by default. A row without one is a unit of its own.
        rejects: File for the rows that are not taken, with number, reason and content; written if there are any.
        progress: Told how far it is.
    Raises:
        BadDefinition: the file cannot be read, or a column that is needed is missing or of a wrong type.
    """
    with lake.query() as connection, _staging(connection) as staged:
        source = past_file(connection, file)
        predictions, feedback = lake.table(loop.name, "predictions"), lake.table(loop.name, "feedback")
        predictions.refresh()
        plan = Incoming(loop, source, time, label_time or time, unit or loop.unit, predictions.kinds())
        plan.check(unit_given=unit is not None)
        progress("counting", 0, 0)
        rows = source.rows(connection)
        with _watched(connection, lambda share: progress("reading", int(share * rows), rows)):
            connection.execute(f"CREATE TABLE {staged} AS {plan.sql()}")
        bad = source.bad_lines(connection)
        served = heard = done = 0
        for part in _parts(connection, staged):
            progress("writing", done, rows)
            served += predictions.append(lambda table, part=part: part.predictions(table, plan), transactions={})  # type: ignore[misc]
            heard += feedback.append(lambda table, part=part: part.feedback(table, plan), transactions={})  # type: ignore[misc]
            done += part.rows
        progress("writing", rows, rows)
        for table in (predictions, feedback):
            if table.crowded():  # many parts have feedback on the same days
                progress("putting files together", rows, rows)
                table.compact()
        counted = _report(connection, staged, served, heard)
        for line in bad:
            counted.rejected[line.reason] = counted.rejected.get(line.reason, 0) + 1
        written = rejects is not None and write_rejects(connection, staged, source, bad, rejects)
        return msgspec.structs.replace(
            counted, rows=counted.rows + len(bad), absent=plan.absent, rejects=str(rejects) if written else None
        )


@dataclass(frozen=True, slots=True)
class _Part:
    """Rows that are committed together: those of some days, or a share of one long day's."""

    connection: DuckDBPyConnection
    staged: str
    first: int  # days since the epoch
    last: int
    rows: int
    share: tuple[int, int] = (0, 1)  # which, of how many

    @property
    def _mine(self) -> str:
        which, of = self.share
        days = f'"at" >= {self.first * MICROS_PER_DAY} AND "at" < {(self.last + 1) * MICROS_PER_DAY}'
        return f"{days} AND hash(id) % {of} = {which}" if of > 1 else days

    def predictions(self, table: EventTable, plan: Incoming) -> Rows | None:
        """Requests that the table does not have yet, as its next rows."""
        known = _ids(table, _day(self.first), _day(self.last))
        return self._new(table, plan.predictions(), "fault IS NULL", "id", "at", known)

    def feedback(self, table: EventTable, plan: Incoming) -> Rows | None:
        """Outcomes that the table does not have yet, as its next rows."""
        asked = f"SELECT min(label_at), max(label_at) FROM {self.staged} WHERE {self._mine} AND {plan.heard}"  # noqa: S608
        first, last = self.connection.execute(asked).fetchall()[0]
        if first is None:
            return None
        known = _ids(table, instant(first).date(), instant(last).date())
        return self._new(table, plan.feedback(), plan.heard, FEEDBACK_ID, "label_at", known)

    def _new(self, table: EventTable, columns: str, taken: str, id: str, at: str, known: str | None) -> Rows | None:
        """The part's rows that are `taken` and whose id is not `known`, one per id, oldest first."""
        absent = f"WHERE id NOT IN (SELECT id FROM ({known}))" if known else ""  # noqa: S608
        self.connection.execute(
            f"""CREATE OR REPLACE TEMP TABLE fresh AS SELECT min(row) AS row
                FROM (SELECT row, {id} AS id FROM {self.staged} WHERE {self._mine} AND {taken}) {absent} GROUP BY id"""  # noqa: S608
        )
        count = int(self.connection.execute("SELECT count(*) FROM fresh").fetchall()[0][0])
        if not count:
            return None
        # In order of time, so by day: each file of the partitioned table is written in one go.
        moment = f'make_timestamptz("{at}")'
        rows = self.connection.sql(
            f"""SELECT row_number() OVER () + {table.seq} AS seq, CAST({moment} AS DATE) AS day, {moment} AS "at",
                       {columns}
                FROM (SELECT * FROM {self.staged} WHERE {self._mine} AND row IN (FROM fresh) ORDER BY "{at}", id)"""  # noqa: S608
        )
        return rows, count


def _parts(connection: DuckDBPyConnection, staged: str) -> Iterator[_Part]:
    """What is committed one after the other: consecutive days up to `PART_ROWS`, longer days in shares."""
    counted = connection.execute(
        f'SELECT "at" // {MICROS_PER_DAY} AS day, count(*) FROM {staged} WHERE fault IS NULL GROUP BY 1 ORDER BY 1'  # noqa: S608
    ).fetchall()
    first = last = rows = 0
    for day, more in counted:
        if rows and rows + more > PART_ROWS:
            yield from _shares(connection, staged, first, last, rows)
            rows = 0
        first, last, rows = first if rows else day, day, rows + more
    if rows:
        yield from _shares(connection, staged, first, last, rows)


def _shares(connection: DuckDBPyConnection, staged: str, first: int, last: int, rows: int) -> Iterator[_Part]:
    of = -(-rows // PART_ROWS)
    for which in range(of):
        yield _Part(connection, staged, first, last, rows // of, (which, of))


def _ids(table: EventTable, first: date, last: date) -> str | None:
    """The SQL of the ids that a table has in these days, or None if it has none there."""
    files = [file for file in table.files() if first <= file.day <= last]
    return f"SELECT id FROM {parquet(files)}" if files else None  # noqa: S608


def _day(days: int) -> date:
    return date.fromordinal(EPOCH.toordinal() + days)


def _report(connection: DuckDBPyConnection, staged: str, served: int, heard: int) -> ImportReport:
    totals = connection.execute(
        f"""SELECT count(*), count(*) FILTER (fault IS NULL), count(*) FILTER (fault IS NULL AND value IS NULL),
                  count(*) FILTER (fault IS NULL AND unit IS NULL) FROM {staged}"""  # noqa: S608
    ).fetchall()
    rows, taken, unlabelled, without_unit = totals[0]
    rejected = connection.execute(
        f"""SELECT reason, count(*) FROM (SELECT coalesce(fault, label_fault) AS reason FROM {staged})
            WHERE reason IS NOT NULL GROUP BY reason ORDER BY reason"""  # noqa: S608
    ).fetchall()
    return ImportReport(rows, served, heard, taken - served, unlabelled, without_unit, dict(rejected), ())


@contextmanager
def _staging(connection: DuckDBPyConnection) -> Iterator[str]:
    """A table that is not made yet, in a file that goes afterwards."""
    folder = Path(connection.execute("SELECT current_setting('temp_directory')").fetchall()[0][0]).parent
    folder.mkdir(parents=True, exist_ok=True)
    remove_left(folder)
    name = f"import-{os.getpid()}-{secrets.token_hex(4)}"
    file = folder / f"{name}.db"
    connection.execute(f'ATTACH {literal(str(file))} AS "{name}"')
    try:
        yield f'"{name}".incoming'
    finally:
        connection.execute(f'DETACH "{name}"')
        for left in folder.glob(f"{name}.db*"):
            left.unlink(missing_ok=True)


@contextmanager
def _watched(connection: DuckDBPyConnection, told: Callable[[float], None]) -> Iterator[None]:
    """While a query runs, tell which share of it is done."""
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(_LOOK_SECONDS):
            told(min(max(connection.query_progress(), 0.0), 100.0) / 100)

    watcher = threading.Thread(target=watch, name="import-progress", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()
