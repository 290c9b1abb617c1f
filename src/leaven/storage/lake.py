"""What is in the lake, and how is it kept in shape?

A lake is a folder, or a prefix of a bucket, with one folder per loop, and in that two Delta tables, `predictions` and
`feedback`; any engine that reads Delta Lake can read them. Leaven itself reads the list of files of a pinned version
with DuckDB.
"""

from __future__ import annotations

import math
import os
import secrets
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from tempfile import gettempdir
from typing import TYPE_CHECKING, Any

import msgspec

from leaven.duration import instant
from leaven.errors import LeavenError
from leaven.storage.delta import EventTable, LiveFile
from leaven.storage.place import folder_of, place_at
from leaven.storage.readers import Readers
from leaven.storage.rows import TableName
from leaven.storage.scratch import remove_left

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from leaven.storage.reading import LakeSource

_TABLES: tuple[TableName, ...] = ("predictions", "feedback")
_TIMES: dict[TableName, tuple[str, ...]] = {
    "predictions": ("at",), "feedback": ("at", "received_at"), "tombstones": ("at", "first_at", "last_at"),
}  # fmt: skip
ALL_TABLES: tuple[TableName, ...] = (*_TABLES, "tombstones")


class QueryFailed(LeavenError, RuntimeError):
    """DuckDB could not answer a question about the lake."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why

    def __str__(self) -> str:
        return (
            f"a query of the lake failed: {self.why}. If it ran out of memory, raise LEAVEN_QUERY_MEMORY; if a file is "
            "missing, another program removed it, or it was read for longer than LEAVEN_KEEP_FILES: try again."
        )


class TableStats(msgspec.Struct, frozen=True):
    """How one table of a loop stands."""

    rows: int
    files: int
    bytes: int
    version: int  # of the Delta table
    mark: int  # number of the newest row
    first: datetime | None  # earliest and latest `at`
    last: datetime | None


class LoopStats(msgspec.Struct, frozen=True):
    """How the log of one loop stands."""

    loop: str
    predictions: TableStats
    feedback: TableStats


class Lake:
    """The tables in one place; safe to use from several threads."""

    def __init__(
        self, location: str, *, memory: str = "1GB", scratch: Path | None = None, cache_mb: int = 10_240
    ) -> None:
        """Name a lake; nothing is opened before it is needed.

        Args:
            location: Path of a folder, or `s3://bucket/prefix`.
            memory: What a query may take of memory, such as "1GB"; beyond that it spills to the disk.
            scratch: Folder for what queries spill, and for copies of a bucket's files; by default `.spill` in the
                lake's folder, or one of the user's among the system's temporary files.
            cache_mb: Room for copies of a bucket's files.
        Raises:
            BadDefinition: the location is a URL of another kind, or what a bucket needs is not installed.
        """
        folder = folder_of(location)
        self._scratch = scratch or (folder / ".spill" if folder else Path(gettempdir()) / f"leaven-{os.getuid()}")
        self.place = place_at(location, setting="LEAVEN_LAKE", scratch=self._scratch / "files", megabytes=cache_mb)
        self.readers = Readers(folder / ".readers" if folder else self._scratch / "readers")
        self._memory = memory
        self._lock = threading.Lock()
        self._tables: dict[tuple[str, TableName], EventTable] = {}
        self._connection: DuckDBPyConnection | None = None

    def source(self, loop: str, watermark: Callable[[], datetime]) -> LakeSource:
        """Return what answers questions about the log of `loop`.

        Args:
            loop: Name of the loop; it need not have any rows yet.
            watermark: The moment up to which everything that was logged is in the lake.
        """
        from leaven.storage.reading import LakeSource

        return LakeSource(self, loop, watermark)

    def table(self, loop: str, name: TableName) -> EventTable:
        """Return one table of a loop, whether it exists yet or not."""
        with self._lock:
            return self._tables.setdefault((loop, name), EventTable(self.place, loop, name))

    def loops(self) -> list[str]:
        """Return the loops that have a table, by name."""
        return [loop for loop in self.place.folders() if not set(_TABLES).isdisjoint(self.place.at(loop).folders())]

    def table_names(self) -> list[tuple[str, TableName]]:
        """Return loop and name of every table that exists."""
        there = {loop: self.place.at(loop).folders() for loop in self.place.folders()}
        return [(loop, name) for loop, folders in there.items() for name in ALL_TABLES if name in folders]

    def tables(self) -> list[EventTable]:
        """Return every table that exists."""
        return [self.table(*key) for key in self.table_names()]

    def stats(self, loop: str) -> LoopStats:
        """Return how the log of `loop` stands."""
        return LoopStats(loop, *(self._table_stats(loop, name) for name in _TABLES))

    def tail(self, loop: str, n: int, *, table: TableName = "predictions") -> list[dict[str, Any]]:
        """Return the `n` newest rows of a table in the order in which they were committed; times as `datetime`."""
        kept = self.table(loop, table)
        with self.query() as connection:
            kept.refresh()
            files = [file for file in kept.files() if file.last_seq > kept.seq - n]
            if not files:
                return []
            times = _TIMES[table]
            converted = ", ".join(f'epoch_us("{name}") AS "{name}"' for name in times)
            connection.execute(
                f"SELECT * REPLACE ({converted}) FROM {parquet(files)} WHERE seq > ? ORDER BY seq",  # noqa: S608
                [kept.seq - n],
            )
            names = [column[0] for column in connection.description or ()]
            rows = [dict(zip(names, row, strict=True)) for row in connection.fetchall()]
        return [row | {name: instant(row[name]) for name in times} for row in rows]

    def compact(self, loop: str) -> int:
        """Rewrite the loop's small files as few; return how many files that replaced. No row changes."""
        return sum(self.table(loop, name).compact() for name in ALL_TABLES)

    def vacuum(self, loop: str, *, hours: float = 168.0, keep: Sequence[int] = ()) -> int:
        """Delete files that left the loop's tables more than `hours` ago and that no reader is at; return how many.

        Args:
            loop: Name of the loop.
            hours: How long a superseded file is kept for those who still read it (other engines, other machines: reads
                of Leaven's on this machine are waited for however long they take). Files that are in no version are
                taken for those of a commit being made for an hour, however few hours are given.
            keep: Delta versions of the tables whose files are all kept.
        """
        hours = self.hours_to_keep(hours)
        return sum(self.table(loop, name).vacuum(hours=hours, keep=list(keep)) for name in ALL_TABLES)

    def hours_to_keep(self, hours: float) -> int:
        """Return `hours`, or more where somebody on this machine has been reading for longer, in whole hours."""
        oldest = self.readers.oldest()
        reading = 0.0 if oldest is None else max(self.readers.wall() - oldest, 0.0) / 3600 + 1
        return math.ceil(max(hours, reading))

    def superseded(self, loop: str, *, until: float = math.inf) -> int:
        """Return how many data files of the loop are there and in no newest version; those written by `until`."""
        found = (self.table(loop, name).superseded().values() for name in ALL_TABLES)
        return sum(written <= until for times in found for written in times)

    @contextmanager
    def query(self) -> Iterator[DuckDBPyConnection]:
        """Give a DuckDB connection of one's own; all share the memory cap.

        Files of versions that are looked up in here stay until it is closed.

        Raises:
            QueryFailed: DuckDB could not answer.
        """
        import duckdb

        try:
            with self.readers.reading(), self._cursor() as connection:
                yield connection
        except duckdb.Error as error:
            raise QueryFailed(str(error).partition("\n")[0]) from error

    def _cursor(self) -> DuckDBPyConnection:
        with self._lock:
            if self._connection is None:
                self._connection = self._connect()
            return self._connection.cursor()

    def close(self) -> None:
        """Give DuckDB's memory and spill folder back."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def _connect(self) -> DuckDBPyConnection:
        import duckdb

        # Two processes must not spill into one folder: DuckDB numbers its spill files. It makes the folder when it is
        # needed, and removes it in the end.
        spill = self._scratch / f"{os.getpid()}-{secrets.token_hex(4)}"
        spill.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        remove_left(spill.parent)
        connection = duckdb.connect(":memory:", config={"memory_limit": self._memory, "temp_directory": str(spill)})
        connection.execute("SET TimeZone = 'UTC'")
        return connection

    def _table_stats(self, loop: str, name: TableName) -> TableStats:
        table = self.table(loop, name)
        with self.query() as connection:
            table.refresh()
            files = table.files()
            first = last = None
            if files:
                # The log tells times to the millisecond; which files hold the ends is enough to know.
                earliest, latest = min(file.first_at for file in files), max(file.last_at for file in files)
                ends = [file for file in files if file.first_at == earliest or file.last_at == latest]
                asked = f'SELECT epoch_us(min("at")), epoch_us(max("at")) FROM {parquet(ends)}'  # noqa: S608
                first, last = map(instant, connection.execute(asked).fetchall()[0])
        return TableStats(
            sum(file.rows for file in files), len(files), sum(file.bytes for file in files),
            table.version, table.seq, first, last,
        )  # fmt: skip


def parquet(files: Sequence[LiveFile]) -> str:
    """Return the SQL that reads these files of one table, at least one, by column name."""
    paths = files[0].table.local({file.path: file.bytes for file in files})
    listed = ", ".join("'" + path.replace("'", "''") + "'" for path in paths)
    return f"read_parquet([{listed}], union_by_name = true, hive_partitioning = false)"
