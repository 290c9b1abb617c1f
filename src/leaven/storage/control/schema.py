"""Which tables does the control plane keep?

Times are whole microseconds since the Unix epoch, UTC. JSON is kept as text, in one canonical spelling, so equal values
are equal text. A change here needs a migration beside it; a test compares the two.
"""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec
from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Dialect,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    MetaData,
    Row,
    Table,
    Text,
    TypeDecorator,
)

T = TypeVar("T")

metadata = MetaData()


class Json(TypeDecorator[Any]):
    """Text that holds canonical JSON: keys sorted, no spaces. Structs go in as objects and come out as dicts.

    JSON knows no NaN or infinity; both are kept as null, so put a word beside a number that may be missing.
    """

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> str | None:
        """Return the text to keep."""
        return None if value is None else canonical(value).decode()

    def process_result_value(self, value: str | None, dialect: Dialect) -> Any:
        """Return the value that was kept."""
        return None if value is None else msgspec.json.decode(value)


def canonical(value: Any) -> bytes:
    """Return the one JSON spelling of `value`: equal values give equal bytes."""
    return msgspec.json.encode(value, order="deterministic")


def as_record(row: Row[Any], kind: type[T]) -> T:
    """Return `row` as a struct whose fields are named after columns; other columns are left out."""
    # SQLAlchemy's names are a subclass of str, which msgspec refuses as keys.
    return msgspec.convert({str(name): value for name, value in row._mapping.items()}, kind)


# SQLite counts up by itself only in a column that is called INTEGER.
_Serial = BigInteger().with_variant(Integer, "sqlite")

loops = Table(
    "loops",
    metadata,
    Column("name", Text, primary_key=True),
    Column("path", Text, nullable=False),
    Column("source", Text, nullable=False),
    Column("digest", Text, nullable=False),
    Column("definition", Text, nullable=False),
    Column("schema", Json, nullable=False),
    Column("salt", Text, nullable=False),
    Column("paused", Boolean, nullable=False),
    Column("paused_why", Text, nullable=False),
    Column("registered_at", BigInteger, nullable=False),
    Column("looked_at", BigInteger),
)

# Every definition that a loop ever had, so that a version can tell what it was trained for.
definitions = Table(
    "definitions",
    metadata,
    Column("loop", Text, ForeignKey("loops.name"), primary_key=True),
    Column("digest", Text, primary_key=True),
    Column("definition", Text, nullable=False),
    Column("source", Text, nullable=False),
    Column("at", BigInteger, nullable=False),
)

snapshots = Table(
    "snapshots",
    metadata,
    Column("id", Text, primary_key=True),
    Column("loop", Text, ForeignKey("loops.name"), nullable=False),
    Column("definition", Json, nullable=False),
    Column("rows", BigInteger, nullable=False),
    Column("digest", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Index("snapshots_by_loop", "loop", "created_at"),
)

versions = Table(
    "versions",
    metadata,
    Column("loop", Text, ForeignKey("loops.name"), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("artifact", Text, nullable=False),
    Column("format", Text, nullable=False),
    Column("parent", Integer),
    Column("snapshot", Text, ForeignKey("snapshots.id")),
    Column("refresh", Text, unique=True),
    Column("mode", Text, nullable=False),
    Column("definition_digest", Text, nullable=False),
    Column("lineage", Json, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    ForeignKeyConstraint(["loop", "parent"], ["versions.loop", "versions.number"]),
)

decisions = Table(
    "decisions",
    metadata,
    Column("seq", _Serial, primary_key=True, autoincrement=True),
    Column("id", Text, nullable=False, unique=True),
    Column("loop", Text, ForeignKey("loops.name"), nullable=False),
    Column("at", BigInteger, nullable=False),
    Column("kind", Text, nullable=False),
    Column("outcome", Text, nullable=False),
    Column("version", Integer),
    Column("rule", Json, nullable=False),
    Column("evidence", Json, nullable=False),
    Column("why", Text, nullable=False),
    Column("by", Text, nullable=False),
    Column("refresh", Text),
    Column("trial", Text),
    Index("decisions_by_loop", "loop", "seq"),
    Index("decisions_by_refresh", "refresh"),
    Index("decisions_by_trial", "trial"),
    sqlite_autoincrement=True,
)

aliases = Table(
    "aliases",
    metadata,
    Column("loop", Text, primary_key=True),
    Column("alias", Text, primary_key=True),
    Column("version", Integer, nullable=False),
    Column("since", BigInteger, nullable=False),
    Column("decision", Text, nullable=False),
    ForeignKeyConstraint(["loop", "version"], ["versions.loop", "versions.number"]),
)

alias_history = Table(
    "alias_history",
    metadata,
    Column("id", _Serial, primary_key=True, autoincrement=True),
    Column("loop", Text, nullable=False),
    Column("alias", Text, nullable=False),
    Column("version", Integer, nullable=False),
    Column("since", BigInteger, nullable=False),
    Column("until", BigInteger),
    Column("decision", Text, nullable=False),
    Column("ended_by", Text),
    ForeignKeyConstraint(["loop", "version"], ["versions.loop", "versions.number"]),
    Index("alias_history_by_alias", "loop", "alias", "since"),
)

routing_tables = Table(
    "routing_tables",
    metadata,
    Column("loop", Text, primary_key=True),
    Column("revision", Integer, primary_key=True, autoincrement=False),
    Column("at", BigInteger, nullable=False),
    Column("body", Json, nullable=False),
)

gateways = Table(
    "gateways",
    metadata,
    Column("id", Text, primary_key=True),
    Column("host", Text, nullable=False),
    Column("pid", Integer, nullable=False),
    Column("started_at", BigInteger, nullable=False),
    Column("seen_at", BigInteger, nullable=False),
    Column("revisions", Json, nullable=False),
)

leases = Table(
    "leases",
    metadata,
    Column("name", Text, primary_key=True),
    Column("holder", Text, nullable=False),
    Column("token", BigInteger, nullable=False),
    Column("until", BigInteger, nullable=False),
)

# `active` holds the loop's name while the row is open and NULL afterwards: its unique index lets at most one be open
# per loop, on every database, because NULLs never collide.
refreshes = Table(
    "refreshes",
    metadata,
    Column("id", Text, primary_key=True),
    Column("loop", Text, ForeignKey("loops.name"), nullable=False),
    Column("cause", Json, nullable=False),
    Column("as_of", BigInteger, nullable=False),
    Column("state", Text, nullable=False),
    Column("step", Text, nullable=False),
    Column("payload", Json, nullable=False),
    Column("error", Text),
    Column("created_at", BigInteger, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
    Column("ended_at", BigInteger),
    Column("active", Text, unique=True),
    Index("refreshes_by_loop", "loop", "created_at"),
)

trials = Table(
    "trials",
    metadata,
    Column("id", Text, primary_key=True),
    Column("loop", Text, ForeignKey("loops.name"), nullable=False),
    Column("refresh", Text),
    Column("challenger", Integer, nullable=False),
    Column("champion", Integer),
    Column("stages", Json, nullable=False),
    Column("stage", Integer, nullable=False),
    Column("stage_since", BigInteger, nullable=False),
    Column("state", Text, nullable=False),
    Column("looks", Integer, nullable=False),
    Column("facts", Json, nullable=False),
    Column("opened_at", BigInteger, nullable=False),
    Column("ended_at", BigInteger),
    Column("active", Text, unique=True),
    ForeignKeyConstraint(["loop", "challenger"], ["versions.loop", "versions.number"]),
    ForeignKeyConstraint(["loop", "champion"], ["versions.loop", "versions.number"]),
    Index("trials_by_loop", "loop", "opened_at"),
)

# What each step of a trial has seen, as of its last look: a fold over the log that can be made again.
trial_evidence = Table(
    "trial_evidence",
    metadata,
    Column("trial", Text, ForeignKey("trials.id"), primary_key=True),
    Column("step", Integer, primary_key=True),
    Column("evidence", Json, nullable=False),
    Column("at", BigInteger, nullable=False),
)

# How the estimates of a step went, look by look; looks that lie close together for their age are left out.
trial_looks = Table(
    "trial_looks",
    metadata,
    Column("trial", Text, ForeignKey("trials.id"), primary_key=True),
    Column("step", Integer, primary_key=True),
    Column("at", BigInteger, primary_key=True),
    Column("look", Integer, nullable=False),
    Column("outcome", Text, nullable=False),
    Column("rows", Json, nullable=False),
)

# `unit` and `salt` go when the erasure is done: nothing then says whom it was about.
erasures = Table(
    "erasures",
    metadata,
    Column("id", Text, primary_key=True),
    Column("loop", Text, nullable=False),
    Column("unit", Text),
    Column("salt", Text),
    Column("state", Text, nullable=False),
    Column("requested_at", BigInteger, nullable=False),
    Column("requested_by", Text, nullable=False),
    Column("due_at", BigInteger, nullable=False),
    Column("grace_until", BigInteger, nullable=False),
    Column("predictions", BigInteger, nullable=False),
    Column("feedback", BigInteger, nullable=False),
    Column("feedback_mark", BigInteger, nullable=False),
    Column("rewritten_at", BigInteger),
    Column("done_at", BigInteger),
    Column("last", Boolean, nullable=False),
    Index("erasures_by_loop", "loop", "requested_at"),
)

# What is kept of a token is enough to check one, and not to make one. Rows stay when a token is revoked or has run out.
tokens = Table(
    "tokens",
    metadata,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("digest", Text, nullable=False),
    Column("roles", Json, nullable=False),
    Column("loops", Json),
    Column("created_at", BigInteger, nullable=False),
    Column("created_by", Text, nullable=False),
    Column("expires_at", BigInteger),
    Column("revoked_at", BigInteger),
    Column("used_on", Text),
    Column("revision", BigInteger, nullable=False, unique=True),
)
