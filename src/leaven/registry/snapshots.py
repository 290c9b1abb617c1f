"""Which sets of examples were versions trained on?"""

from __future__ import annotations

from typing import Any

import msgspec
from sqlalchemy import Connection, insert, select

from leaven.errors import LeavenError
from leaven.storage.control.schema import as_record
from leaven.storage.control.schema import snapshots as table


class UnknownSnapshot(LeavenError, LookupError):
    """No snapshot of this id is registered."""

    def __init__(self, id: str) -> None:
        super().__init__(id)
        self.id = id

    def __str__(self) -> str:
        return f"no snapshot {self.id!r} is registered. Register the snapshot before the version trained on it."


class SnapshotDiffers(LeavenError, ValueError):
    """A snapshot was registered again with other content."""

    def __init__(self, id: str, before: str, now: str) -> None:
        super().__init__(id, before, now)
        self.id, self.before, self.now = id, before, now

    def __str__(self) -> str:
        return (
            f"snapshot {self.id!r} was registered with digest {self.before} and now has {self.now}. "
            "Its rows no longer read as they did: some may have been erased (`leaven events erasures`). The old "
            "registration stands; start a new refresh."
        )


class SnapshotRecord(msgspec.Struct, frozen=True):
    """An exact, named, replayable set of examples."""

    id: str
    loop: str
    definition: dict[str, Any]  # marks, spans, rule, seed: what reads the same rows again
    rows: int
    digest: str  # of the rows
    created_at: int  # micros


def put(connection: Connection, record: SnapshotRecord) -> SnapshotRecord:
    """Register a snapshot, and return what is registered under its id (the first registration stays).

    Raises:
        SnapshotDiffers: the id is registered with another digest.
    """
    row = connection.execute(select(table).where(table.c.id == record.id)).one_or_none()
    if row is None:
        connection.execute(insert(table).values(**msgspec.structs.asdict(record)))
        return record
    if row.digest != record.digest:
        raise SnapshotDiffers(record.id, row.digest, record.digest)
    return as_record(row, SnapshotRecord)


def snapshot(connection: Connection, id: str) -> SnapshotRecord:
    """Return one snapshot.

    Raises:
        UnknownSnapshot: there is none of this id.
    """
    row = connection.execute(select(table).where(table.c.id == id)).one_or_none()
    if row is None:
        raise UnknownSnapshot(id)
    return as_record(row, SnapshotRecord)


def snapshots(connection: Connection, loop: str) -> list[SnapshotRecord]:
    """Return the loop's snapshots, oldest first."""
    found = connection.execute(select(table).where(table.c.loop == loop).order_by(table.c.created_at, table.c.id))
    return [as_record(row, SnapshotRecord) for row in found]
