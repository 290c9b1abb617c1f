"""Which versions of a loop's model exist, and where does each come from?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from sqlalchemy import Connection, func, insert, select

from leaven.errors import LeavenError
from leaven.registry import loops, snapshots
from leaven.storage.control.schema import as_record
from leaven.storage.control.schema import versions as table
from leaven.training.plans import Mode


class UnknownVersion(LeavenError, LookupError):
    """A loop has no version of this number or alias."""

    def __init__(self, loop: str, version: str, known: tuple[str, ...]) -> None:
        super().__init__(loop, version, known)
        self.loop, self.version, self.known = loop, version, known

    def __str__(self) -> str:
        there = f"It has {', '.join(self.known)}." if self.known else "It has none yet: train one, leaven retrain."
        return f"loop {self.loop!r} has no version {self.version!r}. {there}"


class VersionRecord(msgspec.Struct, frozen=True):
    """One trained model, with its lineage."""

    loop: str
    number: int
    artifact: str  # digest of its files
    format: str
    mode: Mode
    definition_digest: str  # of the loop that it was trained for
    created_at: int  # micros
    parent: int | None = None  # the version that it continues
    snapshot: str | None = None  # the examples that it was trained on
    refresh: str | None = None
    lineage: dict[str, Any] = {}  # cause, library versions, metrics, cost: what the refresh knew


def register(
    connection: Connection,
    loop: str,
    *,
    artifact: str,
    format: str,
    mode: Mode,
    definition_digest: str,
    at: int,
    parent: int | None = None,
    snapshot: str | None = None,
    refresh: str | None = None,
    lineage: Mapping[str, Any] | None = None,
) -> int:
    """Add a version to `loop` and return its number, one more than the newest.

    A refresh registers once: with the same `refresh` the number that it got before is returned, and nothing is added.

    Raises:
        UnknownLoop, UnknownVersion, UnknownSnapshot: the loop, the parent or the snapshot is not registered.
    """
    if refresh is not None:
        before = connection.execute(select(table.c.number).where(table.c.refresh == refresh)).scalar()
        if before is not None:
            return int(before)
    loops.loop(connection, loop)
    if parent is not None:
        version(connection, loop, parent)
    if snapshot is not None:
        snapshots.snapshot(connection, snapshot)
    newest = connection.execute(select(func.max(table.c.number)).where(table.c.loop == loop)).scalar()
    number = int(newest or 0) + 1
    record = VersionRecord(loop, number, artifact, format, mode, definition_digest, at, parent, snapshot, refresh,
                           dict(lineage or {}))  # fmt: skip
    connection.execute(insert(table).values(**msgspec.structs.asdict(record)))
    return number


def version(connection: Connection, loop: str, number: int) -> VersionRecord:
    """Return one version.

    Raises:
        UnknownVersion: the loop has no such version; the error lists the newest it has.
    """
    row = connection.execute(select(table).where(table.c.loop == loop, table.c.number == number)).one_or_none()
    if row is None:
        raise UnknownVersion(loop, str(number), known(connection, loop))
    return as_record(row, VersionRecord)


def versions(connection: Connection, loop: str) -> list[VersionRecord]:
    """Return the loop's versions, oldest first."""
    found = connection.execute(select(table).where(table.c.loop == loop).order_by(table.c.number))
    return [as_record(row, VersionRecord) for row in found]


def ancestry(connection: Connection, loop: str, number: int) -> tuple[int, ...]:
    """Return the version and those that it continues, nearest first."""
    parents = {each.number: each.parent for each in versions(connection, loop)}
    line: list[int] = []
    following: int | None = number
    while following is not None:
        line.append(following)
        following = parents[following]
    return tuple(line)


def known(connection: Connection, loop: str) -> tuple[str, ...]:
    """Return the numbers of the newest ten versions as text, oldest first: what an error tells the reader."""
    newest = select(table.c.number).where(table.c.loop == loop).order_by(table.c.number.desc()).limit(10)
    return tuple(str(number) for number in reversed(connection.execute(newest).scalars().all()))
