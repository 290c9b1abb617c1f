"""Which routing table is each loop's newest, and which gateways run it?"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
from sqlalchemy import Connection, delete, func, insert, select, tuple_, update

from leaven.errors import LeavenError
from leaven.experiments.routing import RoutingTable
from leaven.storage.control.database import ControlDatabase
from leaven.storage.control.schema import as_record, routing_tables
from leaven.storage.control.schema import gateways as gateway_table

FORGET_AFTER = 24 * 3600 * 1_000_000  # micros after which a silent gateway's row goes


class RevisionTaken(LeavenError, ValueError):
    """A routing table was published under a revision that is not newer than the last one."""

    def __init__(self, loop: str, revision: int, newest: int) -> None:
        super().__init__(loop, revision, newest)
        self.loop, self.revision, self.newest = loop, revision, newest

    def __str__(self) -> str:
        return (
            f"routing table {self.revision} of loop {self.loop!r} is not newer than {self.newest}, which is published. "
            f"Read the newest one in the same transaction and publish {self.newest + 1}."
        )


class GatewayRecord(msgspec.Struct, frozen=True):
    """A gateway process and the revision of each loop's routing table that it runs. Times are real time, in micros."""

    id: str
    host: str
    pid: int
    started_at: int
    seen_at: int
    revisions: dict[str, int]


def publish(connection: Connection, table: RoutingTable) -> None:
    """Make `table` its loop's newest; publishing the very same table again does nothing.

    Raises:
        RevisionTaken: a table of this revision, or a later one, is published already.
    """
    newest = latest(connection, table.loop)
    if newest == table:
        return
    if newest is not None and table.revision <= newest.revision:
        raise RevisionTaken(table.loop, table.revision, newest.revision)
    connection.execute(insert(routing_tables).values(loop=table.loop, revision=table.revision, at=table.at, body=table))


def latest(connection: Connection, loop: str) -> RoutingTable | None:
    """Return the loop's newest routing table, or None before the first."""
    newest = select(routing_tables.c.body).where(routing_tables.c.loop == loop)
    body = connection.execute(newest.order_by(routing_tables.c.revision.desc()).limit(1)).scalar()
    return None if body is None else msgspec.convert(body, RoutingTable)


def newer_tables(database: ControlDatabase, known: Mapping[str, int]) -> list[RoutingTable]:
    """Return the newest table of each loop whose revision is above the one in `known` (absent: any), by loop.

    Raises:
        DatabaseUnavailable: the database cannot be read now.
    """
    heads = select(routing_tables.c.loop, func.max(routing_tables.c.revision)).group_by(routing_tables.c.loop)
    with database.read() as connection:
        newer = [(loop, top) for loop, top in connection.execute(heads) if top > known.get(loop, -1)]
        if not newer:
            return []
        key = tuple_(routing_tables.c.loop, routing_tables.c.revision)
        bodies = connection.execute(select(routing_tables.c.body).where(key.in_(newer)).order_by("loop")).scalars()
        return [msgspec.convert(body, RoutingTable) for body in bodies]


def report(
    database: ControlDatabase,
    gateway: str,
    revisions: Mapping[str, int],
    *,
    host: str,
    pid: int,
    started_at: int,
    seen_at: int,
) -> None:
    """Say that the gateway process of this id is alive and which revision of each loop it runs.

    It costs a synced write: call it when a revision changed, and otherwise every few seconds.

    Raises:
        DatabaseUnavailable: the database cannot be written now.
    """
    facts = {"host": host, "pid": pid, "started_at": started_at, "seen_at": seen_at, "revisions": dict(revisions)}
    with database.write() as connection:
        changed = connection.execute(update(gateway_table).where(gateway_table.c.id == gateway).values(**facts))
        if changed.rowcount == 0:
            connection.execute(insert(gateway_table).values(id=gateway, **facts))
            connection.execute(delete(gateway_table).where(gateway_table.c.seen_at < seen_at - FORGET_AFTER))


def leave(database: ControlDatabase, gateway: str) -> None:
    """Take back the report of a gateway process that stops."""
    with database.write() as connection:
        connection.execute(delete(gateway_table).where(gateway_table.c.id == gateway))


def gateways(connection: Connection, *, since: int = 0) -> list[GatewayRecord]:
    """Return the gateways that reported at or after `since` (real time, micros), by id."""
    query = select(gateway_table).where(gateway_table.c.seen_at >= since).order_by(gateway_table.c.id)
    return [as_record(row, GatewayRecord) for row in connection.execute(query)]
