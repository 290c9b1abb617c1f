"""What was decided, on what evidence, by what rule or person?

A decision is recorded once and never changed. Its rule and its evidence are kept as they were put in, so the rule can
be applied to the evidence again and must give the same outcome.
"""

from __future__ import annotations

from typing import Any

import msgspec
from sqlalchemy import Connection, insert, select

from leaven.errors import LeavenError
from leaven.storage.control.schema import as_record
from leaven.storage.control.schema import decisions as table


class UnknownDecision(LeavenError, LookupError):
    """No decision of this id was recorded."""

    def __init__(self, id: str) -> None:
        super().__init__(id)
        self.id = id

    def __str__(self) -> str:
        return f"no decision {self.id!r} was recorded. List them with: leaven decisions."


class DecisionDiffers(LeavenError, ValueError):
    """A decision was recorded again with another outcome."""

    def __init__(self, id: str, before: str, now: str) -> None:
        super().__init__(id, before, now)
        self.id, self.before, self.now = id, before, now

    def __str__(self) -> str:
        return (
            f"decision {self.id!r} was recorded as {self.before} and now would be {self.now}. "
            "The recorded one stands; act on what decisions.record returned the first time."
        )


class Decision(msgspec.Struct, frozen=True):
    """One decision. `rule` and `evidence` hold JSON values; JSON has no NaN, so say in words what is missing."""

    id: str
    loop: str
    at: int  # micros
    kind: str  # what was asked: "gate", "trial", "promote", "rollback", "pause", …
    outcome: str  # what was answered
    version: int | None = None
    rule: dict[str, Any] = {}
    evidence: dict[str, Any] = {}
    why: str = ""  # in words, with numbers
    by: str = ""  # the rule's name, or a person's
    refresh: str | None = None
    trial: str | None = None


def record(connection: Connection, decision: Decision) -> Decision:
    """Keep `decision`, and return what is kept under its id: after a crash, that is the one recorded before it.

    Raises:
        DecisionDiffers: the id was recorded for another question, or with another outcome.
    """
    row = connection.execute(select(table).where(table.c.id == decision.id)).one_or_none()
    if row is None:
        connection.execute(insert(table).values(**msgspec.structs.asdict(decision)))
        return decision
    before = as_record(row, Decision)
    if _answer(before) != _answer(decision):
        raise DecisionDiffers(decision.id, _answer(before), _answer(decision))
    return before


def decision(connection: Connection, id: str) -> Decision:
    """Return one decision.

    Raises:
        UnknownDecision: there is none of this id.
    """
    row = connection.execute(select(table).where(table.c.id == id)).one_or_none()
    if row is None:
        raise UnknownDecision(id)
    return as_record(row, Decision)


def decisions(
    connection: Connection,
    loop: str | None = None,
    *,
    kind: str | None = None,
    version: int | None = None,
    refresh: str | None = None,
    trial: str | None = None,
    limit: int | None = None,
) -> list[Decision]:
    """Return decisions in the order in which they were recorded; with `limit`, the newest so many of them."""
    wanted = {"loop": loop, "kind": kind, "version": version, "refresh": refresh, "trial": trial}
    query = select(table).order_by(table.c.seq.desc()).limit(limit)
    for name, value in wanted.items():
        if value is not None:
            query = query.where(table.c[name] == value)
    return [as_record(row, Decision) for row in reversed(connection.execute(query).all())]


def _answer(decision: Decision) -> str:
    return f"{decision.loop}/{decision.kind}/{decision.version or '-'}: {decision.outcome}"
