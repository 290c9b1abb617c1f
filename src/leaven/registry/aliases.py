"""Which version is the champion, since when and by which decision, and which ones were before it?"""

from __future__ import annotations

import re
from typing import Any

import msgspec
from sqlalchemy import Connection, delete, insert, select, update

from leaven.registry import versions
from leaven.storage.control.schema import alias_history, as_record
from leaven.storage.control.schema import aliases as table

_NUMBER = re.compile(r"v?(\d{1,9})")


class AliasSpan(msgspec.Struct, frozen=True):
    """A stretch of time in which an alias named one version: from `since` on and before `until` (None: still)."""

    loop: str
    alias: str
    version: int
    since: int  # micros
    until: int | None
    decision: str  # id of the decision that began it
    ended_by: str | None  # id of the decision that ended it


def set_alias(connection: Connection, loop: str, alias: str, version: int | None, *, decision: str, at: int) -> bool:
    """Let `alias` name `version` from `at` on, or nothing (None); False where it does already.

    The history has no overlap, and no gap but where the alias named nothing. A moment before the last change (clocks of
    two machines differ) counts as that change's.

    Raises:
        UnknownVersion: the loop has no such version.
    """
    spans = select(alias_history).where(*_is(alias_history, loop, alias))
    last = connection.execute(spans.order_by(alias_history.c.id.desc()).limit(1)).one_or_none()
    current = last if last is not None and last.until is None else None
    if (None if current is None else current.version) == version:
        return False
    if version is not None:
        versions.version(connection, loop, version)
    if last is not None:
        at = max(at, last.until or last.since)
    if current is not None:
        ended = update(alias_history).where(alias_history.c.id == current.id)
        connection.execute(ended.values(until=at, ended_by=decision))
        connection.execute(delete(table).where(*_is(table, loop, alias)))
    if version is not None:
        began = {"loop": loop, "alias": alias, "version": version, "since": at, "decision": decision}
        connection.execute(insert(table).values(**began))
        connection.execute(insert(alias_history).values(**began))
    return True


def alias(connection: Connection, loop: str, name: str) -> int | None:
    """Return the version that the alias names, or None."""
    found = connection.execute(select(table.c.version).where(*_is(table, loop, name))).scalar()
    return None if found is None else int(found)


def aliases(connection: Connection, loop: str) -> dict[str, int]:
    """Return the version of each alias of the loop that names one."""
    found = connection.execute(select(table.c.alias, table.c.version).where(table.c.loop == loop).order_by("alias"))
    return {str(row.alias): int(row.version) for row in found}


def history(connection: Connection, loop: str, name: str | None = None) -> list[AliasSpan]:
    """Return who was what and when, oldest first, for one alias or for all of the loop's."""
    query = select(alias_history).where(alias_history.c.loop == loop).order_by(alias_history.c.id)
    if name is not None:
        query = query.where(alias_history.c.alias == name)
    return [as_record(row, AliasSpan) for row in connection.execute(query)]


def resolve(connection: Connection, loop: str, text: str) -> int:
    """Return the number of the version that a person means by "7", "v7" or an alias.

    Raises:
        UnknownVersion: there is no such version or alias.
    """
    number = _NUMBER.fullmatch(text)
    if number is not None:
        return versions.version(connection, loop, int(number[1])).number
    named = alias(connection, loop, text)
    if named is None:
        raise versions.UnknownVersion(loop, text, (*versions.known(connection, loop), *aliases(connection, loop)))
    return named


def _is(source: Any, loop: str, alias: str) -> tuple[Any, Any]:
    return source.c.loop == loop, source.c.alias == alias
