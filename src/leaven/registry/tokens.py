"""Which tokens has this installation given out?

A token is shown once, when it is made; the database keeps its hash. Revoking one takes effect at every gateway with its
next look at the database.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import date
from typing import Any

import msgspec
from sqlalchemy import Connection, func, insert, select, update

from leaven.errors import BadDefinition, LeavenError
from leaven.registry import loops
from leaven.storage.control.database import ControlDatabase
from leaven.storage.control.schema import as_record
from leaven.storage.control.schema import tokens as table
from leaven.tokens import ROLES, Role, TokenEntry, TokenSet, digest_of, made_of, token_set


class UnknownToken(LeavenError, LookupError):
    """There is no token of this id."""

    def __init__(self, id: str, known: tuple[str, ...]) -> None:
        super().__init__(id, known)
        self.id, self.known = id, known

    def __str__(self) -> str:
        there = f"There are {', '.join(self.known)}." if self.known else "None was made yet: leaven token create."
        return f"no token has the id {self.id!r}. {there}"


class TokenRecord(msgspec.Struct, frozen=True):
    """One token as it may be shown; times are micros."""

    id: str
    name: str
    roles: tuple[Role, ...]
    loops: tuple[str, ...] | None
    created_at: int
    created_by: str
    expires_at: int | None
    revoked_at: int | None
    used_on: str | None  # the last day (UTC) on which a gateway let it through

    def state(self, *, now: int) -> str:
        """Return `revoked`, `expired` or `valid`."""
        if self.revoked_at is not None:
            return "revoked"
        return "expired" if self.expires_at is not None and now >= self.expires_at else "valid"


def create(
    connection: Connection,
    name: str,
    roles: Sequence[Role],
    *,
    random: bytes,
    by: str,
    at: int,
    only: Sequence[str] | None = None,
    expires: int | None = None,
) -> tuple[str, TokenRecord]:
    """Make a token and return it, which is the only time that it can be seen, with its record.

    Args:
        connection: In a transaction that writes.
        name: Who or what will use it, for people.
        roles: What it is good for.
        random: 40 bytes from the system's random source.
        by: Who made it.
        at: The present moment, micros.
        only: The loops that it is good for; None for all, also future ones.
        expires: The moment from which on it is no longer good, micros; None for never.
    Raises:
        BadDefinition: no name, no role, an unknown role, or it would have expired already.
        UnknownLoop: there is no such loop.
    """
    _check(name, roles, expires, at)
    for loop in only or ():
        loops.loop(connection, loop)
    token, id = made_of(random)
    facts = {
        "id": id, "name": name.strip(), "digest": digest_of(token), "roles": sorted(set(roles), key=ROLES.index),
        "loops": None if only is None else sorted(set(only)), "created_at": at, "created_by": by, "expires_at": expires,
        "revision": _revision(connection) + 1,
    }  # fmt: skip
    connection.execute(insert(table).values(**facts))
    return token, _found(connection, id)


def revoke(connection: Connection, id: str, *, at: int) -> TokenRecord:
    """Let a token be good for nothing from now on, for ever; one that is revoked already stays as it is.

    Raises:
        UnknownToken: there is no such token.
    """
    found = _found(connection, id)
    if found.revoked_at is None:
        changed = {"revoked_at": at, "revision": _revision(connection) + 1}
        connection.execute(update(table).where(table.c.id == id).values(**changed))
    return _found(connection, id)


def tokens(connection: Connection) -> list[TokenRecord]:
    """Return every token there ever was, oldest first."""
    rows = connection.execute(select(table).order_by(table.c.created_at, table.c.id))
    return [as_record(row, TokenRecord) for row in rows]


def current(connection: Connection) -> TokenSet:
    """Return what a gateway needs to check tokens; revoked ones are in it, so that it can say so."""
    columns = (table.c.id, table.c.digest, table.c.roles, table.c.loops, table.c.expires_at, table.c.revoked_at)
    rows = connection.execute(select(*columns).order_by(table.c.id))
    return token_set(_revision(connection), map(_entry, rows))


def newer(database: ControlDatabase, known: int | None) -> TokenSet | None:
    """Return the present tokens, or None where they are those of revision `known`; one short query then.

    Raises:
        DatabaseUnavailable: the database cannot be read now.
    """
    with database.read() as connection:
        return None if _revision(connection) == known else current(connection)


def used(connection: Connection, ids: Iterable[str], *, day: date) -> None:
    """Note that these tokens were let through on `day`; an earlier day than is known changes nothing."""
    on = day.isoformat()
    unknown = (table.c.used_on.is_(None)) | (table.c.used_on < on)
    connection.execute(update(table).where(table.c.id.in_(list(ids)), unknown).values(used_on=on))


def _check(name: str, roles: Sequence[Role], expires: int | None, at: int) -> None:
    if not name.strip() or len(name) > 200 or not name.isprintable():
        raise BadDefinition(
            "the token's name", f"{name!r} says nobody", "Say who will use it: leaven token create NAME."
        )
    wrong = [role for role in roles if role not in ROLES]
    if wrong or not roles:
        raise BadDefinition("the token's roles", f"{', '.join(wrong) or 'none'} given", f"Take of {', '.join(ROLES)}.")
    if expires is not None and expires <= at:
        raise BadDefinition("the token's end", "it has passed already", "Give a time to come, such as --expires 90d.")


def _revision(connection: Connection) -> int:
    """Of the last change; 0 before the first token."""
    return int(connection.execute(select(func.max(table.c.revision))).scalar() or 0)


def _found(connection: Connection, id: str) -> TokenRecord:
    row = connection.execute(select(table).where(table.c.id == id)).one_or_none()
    if row is None:
        raise UnknownToken(id, tuple(connection.execute(select(table.c.id).order_by(table.c.id)).scalars()))
    return as_record(row, TokenRecord)


def _entry(row: Any) -> TokenEntry:
    return TokenEntry(
        row.id, row.digest, tuple(row.roles), None if row.loops is None else tuple(row.loops), row.expires_at,
        row.revoked_at,
    )  # fmt: skip
