"""How does the control database go into a file that any database can be filled from?

Row by row, one line of JSON each, a file per table, all as of one moment. So a backup of an SQLite file fills an empty
PostgreSQL as well, and the other way round; and what an older Leaven wrote is filled into the tables of its time, which
then take the steps that have come since.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
from sqlalchemy import Connection, Integer, MetaData, Table, func, insert, inspect, select, text

from leaven.storage.control import migrate
from leaven.storage.control.database import ControlDatabase
from leaven.storage.control.schema import metadata

_BATCH = 500
# What belongs to processes that will not be there: a restored installation has no gateway yet, and nobody leads.
_OF_PROCESSES = ("gateways",)


def write_rows(connection: Connection, folder: Path) -> tuple[str, dict[str, int]]:
    """Write every table into `folder`, as this transaction sees it; return the revision and the rows of each."""
    revision = migrate.known_revision(connection)
    assert revision is not None  # whoever opened the database has seen that it has tables
    counts: dict[str, int] = {}
    for table in _tables(connection):
        with (folder / f"{table.name}.jsonl").open("wb") as file:
            rows = connection.execution_options(yield_per=_BATCH).execute(select(table).order_by(*table.primary_key))
            counts[table.name] = 0
            for row in rows:
                file.write(msgspec.json.encode(dict(zip(table.columns.keys(), row, strict=True))) + b"\n")
                counts[table.name] += 1
    return revision, counts


def fill(connection: Connection, files: Mapping[str, Path], *, revision: str) -> None:
    """Make the tables of `revision` in an empty database, fill them, and bring them to what this code expects.

    In the transaction of `connection`: all of it, or nothing.

    Args:
        connection: In a transaction that writes, on a database without tables.
        files: What `write_rows` wrote, by table.
        revision: What it returned.
    """
    migrate.upgrade(connection, to=revision)
    for table in _tables(connection):
        if table.name in files and table.name not in _OF_PROCESSES:
            for batch in _batches(files[table.name]):
                connection.execute(insert(table), batch)
            _count_on(connection, table)
    connection.execute(text("UPDATE leases SET holder = '', until = 0"))
    migrate.upgrade(connection)


def is_empty(database: ControlDatabase) -> bool:
    """Return whether the database has no tables of Leaven's."""
    with database.read() as connection:
        return migrate.known_revision(connection) is None


def _tables(connection: Connection) -> list[Table]:
    """The tables as they are in the database now, each after those that it refers to."""
    found = MetaData()
    there = set(inspect(connection).get_table_names())
    found.reflect(connection, only=sorted(there & metadata.tables.keys()))
    return found.sorted_tables


def _batches(file: Path) -> Iterator[list[dict[str, Any]]]:
    with file.open("rb") as lines:
        batch: list[dict[str, Any]] = []
        for line in lines:
            batch.append(msgspec.json.decode(line))
            if len(batch) == _BATCH:
                yield batch
                batch = []
        if batch:
            yield batch


def _count_on(connection: Connection, table: Table) -> None:
    """Let PostgreSQL go on counting after the rows that were filled in; SQLite does by itself."""
    if connection.dialect.name != "postgresql":
        return
    for column in table.primary_key:
        counter = connection.execute(
            text("SELECT pg_get_serial_sequence(:table, :column)"), {"table": table.name, "column": column.name}
        ).scalar()
        if counter is not None and isinstance(column.type, Integer):
            last = connection.execute(select(func.max(column))).scalar()
            if last is not None:
                connection.execute(text("SELECT setval(:counter, :last)"), {"counter": counter, "last": last})
