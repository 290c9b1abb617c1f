"""Which loops does this installation run, and which of them are paused?"""

from __future__ import annotations

import msgspec
from sqlalchemy import Connection, insert, select, update

from leaven.errors import LeavenError
from leaven.loop import Loop, Schema
from leaven.registry.changes import check_change
from leaven.storage.control.schema import as_record, definitions
from leaven.storage.control.schema import loops as table


class UnknownLoop(LeavenError, LookupError):
    """There is no loop of this name."""

    def __init__(self, name: str, known: tuple[str, ...]) -> None:
        super().__init__(name, known)
        self.name, self.known = name, known

    def __str__(self) -> str:
        there = f"There are {', '.join(self.known)}." if self.known else "Start one first: leaven up LOOP.py."
        return f"no loop {self.name!r} is registered. {there}"


class LoopRecord(msgspec.Struct, frozen=True):
    """A loop as it was last registered."""

    name: str
    path: str  # of the owner's file
    source: str  # that file's text
    digest: str  # of the definition
    definition: str  # the loop as written
    schema: Schema
    salt: str  # of assignment
    paused: bool
    paused_why: str
    registered_at: int  # micros, when this definition came
    looked_at: int | None = None  # micros, the last tick at which a controller looked at the loop


def put(connection: Connection, loop: Loop, *, path: str, source: str, at: int, salt: str | None = None) -> LoopRecord:
    """Register `loop`, or its new definition, and return its record.

    The salt of a loop never changes, since all units would change arms; it is `salt`, or else the loop's name. Whether
    the loop is paused stays as it is.

    Raises:
        ChangeRefused: the new definition cannot take the place of the one before, which stands.
    """
    facts = {"path": path, "source": source, "digest": loop.digest, "definition": repr(loop), "schema": loop.schema}
    found = connection.execute(select(table).where(table.c.name == loop.name)).one_or_none()
    if found is None:
        connection.execute(
            insert(table).values(
                name=loop.name, salt=salt or loop.name, paused=False, paused_why="", registered_at=at, **facts
            )
        )
    elif (found.path, found.source, found.digest) != (path, source, loop.digest):
        check_change(connection, loop, task_before=as_record(found, LoopRecord).schema.task, before=found.definition)
        since = found.registered_at if found.digest == loop.digest else at
        connection.execute(update(table).where(table.c.name == loop.name).values(registered_at=since, **facts))
    key = {"loop": loop.name, "digest": loop.digest}
    if definition(connection, loop.name, loop.digest) is None:
        connection.execute(insert(definitions).values(definition=repr(loop), source=source, at=at, **key))
    return _found(connection, loop.name)


def definition(connection: Connection, loop: str, digest: str) -> str | None:
    """Return the definition of this digest as written, or None where the loop never had it."""
    found = select(definitions.c.definition).where(definitions.c.loop == loop, definitions.c.digest == digest)
    return connection.execute(found).scalar()


def loop(connection: Connection, name: str) -> LoopRecord:
    """Return the loop of this name.

    Raises:
        UnknownLoop: there is none.
    """
    return _found(connection, name)


def loops(connection: Connection) -> list[LoopRecord]:
    """Return all loops, by name."""
    return [as_record(row, LoopRecord) for row in connection.execute(select(table).order_by(table.c.name))]


def looked(connection: Connection, name: str, *, at: int) -> None:
    """Note that a controller looked at the loop at the tick `at`; an earlier tick than noted before changes nothing."""
    later = (table.c.looked_at.is_(None)) | (table.c.looked_at < at)
    connection.execute(update(table).where(table.c.name == name, later).values(looked_at=at))


def pause(connection: Connection, name: str, *, why: str) -> bool:
    """Let nothing start by itself until `resume`; the versions serve on. False where the loop was paused before.

    Raises:
        UnknownLoop: there is no such loop.
    """
    return _set_paused(connection, name, paused=True, why=why)


def resume(connection: Connection, name: str) -> bool:
    """Let the loop act by itself again; False where it was not paused.

    Raises:
        UnknownLoop: there is no such loop.
    """
    return _set_paused(connection, name, paused=False, why="")


def _set_paused(connection: Connection, name: str, *, paused: bool, why: str) -> bool:
    if _found(connection, name).paused == paused:
        return False
    connection.execute(update(table).where(table.c.name == name).values(paused=paused, paused_why=why))
    return True


def _found(connection: Connection, name: str) -> LoopRecord:
    row = connection.execute(select(table).where(table.c.name == name)).one_or_none()
    if row is None:
        raise UnknownLoop(name, tuple(connection.execute(select(table.c.name).order_by(table.c.name)).scalars()))
    return as_record(row, LoopRecord)
