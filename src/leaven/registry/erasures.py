"""Which erasures were asked for, and how far are they?

requested   nothing was taken out yet
rewritten   no reader of the tables sees the unit any more; what still comes of it is taken out again until the
            grace has passed, and files that hold it may still be on the disk
done        no file of the lake holds it; the request has forgotten whom it was about
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Literal

import msgspec
from sqlalchemy import Connection, insert, select, update

from leaven.storage.control.schema import as_record
from leaven.storage.control.schema import erasures as table

State = Literal["requested", "rewritten", "done"]


class ErasureRecord(msgspec.Struct, frozen=True):
    """One request to erase one unit of a loop. Times are micros by the installation's clock."""

    id: str
    loop: str
    unit: str | None  # None once it is done
    salt: str | None  # of the keys by which feedback on its erased predictions is recognised; None once it is done
    state: State
    requested_at: int
    requested_by: str
    due_at: int  # when it is carried out at the latest, together with whatever else was asked for
    grace_until: int  # what comes of the unit up to here is erased as well
    predictions: int = 0  # rows erased so far
    feedback: int = 0
    feedback_mark: int = 0  # feedback up to this number was looked at
    rewritten_at: int | None = None  # real time at which it was last looked for
    done_at: int | None = None
    last: bool = False  # whether everything that came within the grace was looked at


class ErasureShown(msgspec.Struct, frozen=True):
    """What may be said of a request: not the salt."""

    id: str
    loop: str
    unit: str | None
    state: State
    requested_at: int
    requested_by: str
    due_at: int
    grace_until: int
    predictions: int
    feedback: int
    done_at: int | None

    @classmethod
    def of(cls, record: ErasureRecord) -> ErasureShown:
        """Return what may be said of `record`."""
        return cls(*(getattr(record, name) for name in cls.__struct_fields__))


def ask(
    connection: Connection, loop: str, units: Sequence[str], *, at: int, by: str, due_at: int, grace_until: int
) -> list[ErasureRecord]:
    """Ask for the erasure of units; one that is under way is taken up: made due sooner, its grace made longer."""
    under_way = {each.unit: each for each in open_erasures(connection, loop)}
    asked = []
    for unit in dict.fromkeys(units):
        known = under_way.get(unit)
        if known is None:
            made = ErasureRecord(f"{loop}-e-{secrets.token_hex(6)}", loop, unit, secrets.token_hex(16), "requested",
                                 at, by, due_at, grace_until)  # fmt: skip
            connection.execute(insert(table).values(**msgspec.structs.asdict(made)))
        else:
            # Asked for anew: what came since it was last looked for is looked for again.
            sooner = min(known.due_at, due_at) if known.state == "requested" else due_at
            made = msgspec.structs.replace(
                known, state="requested", last=False, due_at=sooner, grace_until=max(known.grace_until, grace_until)
            )
            save(connection, made)
        asked.append(made)
    return asked


def save(connection: Connection, record: ErasureRecord) -> None:
    """Store a request's new state."""
    connection.execute(update(table).where(table.c.id == record.id).values(**msgspec.structs.asdict(record)))


def open_erasures(connection: Connection, loop: str | None = None) -> list[ErasureRecord]:
    """Return the requests that are not done, oldest first."""
    return [each for each in erasures(connection, loop) if each.state != "done"]


def erasures(connection: Connection, loop: str | None = None) -> list[ErasureRecord]:
    """Return all requests, oldest first."""
    query = select(table).order_by(table.c.requested_at, table.c.id)
    if loop is not None:
        query = query.where(table.c.loop == loop)
    return [as_record(row, ErasureRecord) for row in connection.execute(query)]
