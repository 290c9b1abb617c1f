"""What did the first tables look like?"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_serial = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    """Create all tables."""
    _loops_and_versions()
    _decisions_and_aliases()
    _routing()
    _leases()
    _refreshes_and_trials()


def _text(name: str, *, null: bool = False) -> sa.Column[str]:
    return sa.Column(name, sa.Text, nullable=null)


def _micros(name: str, *, null: bool = False) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger, nullable=null)


def _number(name: str, *, null: bool = False) -> sa.Column[int]:
    return sa.Column(name, sa.Integer, nullable=null)


def _version_of(column: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(["loop", column], ["versions.loop", "versions.number"])


def _loop() -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(["loop"], ["loops.name"])


def _loops_and_versions() -> None:
    op.create_table(
        "loops",
        _text("name"),
        _text("path"),
        _text("source"),
        _text("digest"),
        _text("definition"),
        _text("schema"),
        _text("salt"),
        sa.Column("paused", sa.Boolean, nullable=False),
        _text("paused_why"),
        _micros("registered_at"),
        _micros("looked_at", null=True),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "definitions",
        _text("loop"),
        _text("digest"),
        _text("definition"),
        _text("source"),
        _micros("at"),
        sa.PrimaryKeyConstraint("loop", "digest"),
        _loop(),
    )
    op.create_table(
        "snapshots",
        _text("id"),
        _text("loop"),
        _text("definition"),
        sa.Column("rows", sa.BigInteger, nullable=False),
        _text("digest"),
        _micros("created_at"),
        sa.PrimaryKeyConstraint("id"),
        _loop(),
    )
    op.create_index("snapshots_by_loop", "snapshots", ["loop", "created_at"])
    op.create_table(
        "versions",
        _text("loop"),
        _number("number"),
        _text("artifact"),
        _text("format"),
        _number("parent", null=True),
        _text("snapshot", null=True),
        _text("refresh", null=True),
        _text("mode"),
        _text("definition_digest"),
        _text("lineage"),
        _micros("created_at"),
        sa.PrimaryKeyConstraint("loop", "number"),
        sa.UniqueConstraint("refresh"),
        sa.ForeignKeyConstraint(["snapshot"], ["snapshots.id"]),
        _loop(),
        _version_of("parent"),
    )


def _decisions_and_aliases() -> None:
    op.create_table(
        "decisions",
        sa.Column("seq", _serial, primary_key=True, autoincrement=True),
        _text("id"),
        _text("loop"),
        _micros("at"),
        _text("kind"),
        _text("outcome"),
        _number("version", null=True),
        _text("rule"),
        _text("evidence"),
        _text("why"),
        _text("by"),
        _text("refresh", null=True),
        _text("trial", null=True),
        sa.UniqueConstraint("id"),
        _loop(),
        sqlite_autoincrement=True,
    )
    op.create_index("decisions_by_loop", "decisions", ["loop", "seq"])
    op.create_index("decisions_by_refresh", "decisions", ["refresh"])
    op.create_index("decisions_by_trial", "decisions", ["trial"])
    op.create_table(
        "aliases",
        _text("loop"),
        _text("alias"),
        _number("version"),
        _micros("since"),
        _text("decision"),
        sa.PrimaryKeyConstraint("loop", "alias"),
        _version_of("version"),
    )
    op.create_table(
        "alias_history",
        sa.Column("id", _serial, primary_key=True, autoincrement=True),
        _text("loop"),
        _text("alias"),
        _number("version"),
        _micros("since"),
        _micros("until", null=True),
        _text("decision"),
        _text("ended_by", null=True),
        _version_of("version"),
    )
    op.create_index("alias_history_by_alias", "alias_history", ["loop", "alias", "since"])


def _routing() -> None:
    op.create_table(
        "routing_tables",
        _text("loop"),
        _number("revision"),
        _micros("at"),
        _text("body"),
        sa.PrimaryKeyConstraint("loop", "revision"),
    )
    op.create_table(
        "gateways",
        _text("id"),
        _text("host"),
        _number("pid"),
        _micros("started_at"),
        _micros("seen_at"),
        _text("revisions"),
        sa.PrimaryKeyConstraint("id"),
    )


def _leases() -> None:
    op.create_table(
        "leases",
        _text("name"),
        _text("holder"),
        sa.Column("token", sa.BigInteger, nullable=False),
        _micros("until"),
        sa.PrimaryKeyConstraint("name"),
    )


def _refreshes_and_trials() -> None:
    op.create_table(
        "refreshes",
        _text("id"),
        _text("loop"),
        _text("cause"),
        _micros("as_of"),
        _text("state"),
        _text("step"),
        _text("payload"),
        _text("error", null=True),
        _micros("created_at"),
        _micros("updated_at"),
        _micros("ended_at", null=True),
        _text("active", null=True),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("active"),
        _loop(),
    )
    op.create_index("refreshes_by_loop", "refreshes", ["loop", "created_at"])
    op.create_table(
        "trials",
        _text("id"),
        _text("loop"),
        _text("refresh", null=True),
        _number("challenger"),
        _number("champion", null=True),
        _text("stages"),
        _number("stage"),
        _micros("stage_since"),
        _text("state"),
        _number("looks"),
        _text("facts"),
        _micros("opened_at"),
        _micros("ended_at", null=True),
        _text("active", null=True),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("active"),
        _loop(),
        _version_of("challenger"),
        _version_of("champion"),
    )
    op.create_index("trials_by_loop", "trials", ["loop", "opened_at"])
