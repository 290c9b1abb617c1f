"""How does the control database get the tables that this code expects?

By the steps in `migrations/`, in one transaction. Alembic is loaded only where there is a step to take.
"""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection, inspect, text

from leaven.errors import LeavenError
from leaven.storage.control.schema import metadata

REVISIONS = ("0001", "0002", "0003", "0004", "0005")  # every step of `migrations/`, oldest first
FOLDER = Path(__file__).parent / "migrations"


class DatabaseNewer(LeavenError, RuntimeError):
    """The control database was made by a newer Leaven, whose tables this code does not know."""

    def __init__(self, revision: str, known: str) -> None:
        super().__init__(revision, known)
        self.revision, self.known = revision, known

    def __str__(self) -> str:
        return (
            f"the control database is at revision {self.revision}, and this Leaven knows revisions up to {self.known}. "
            "Install the newer Leaven that made it, or name another database in LEAVEN_DATABASE."
        )


def upgrade(connection: Connection, *, at_once: bool = False, to: str = REVISIONS[-1]) -> None:
    """Take the steps that the database has not seen yet, in the transaction of `connection`.

    With `at_once` an empty database gets the newest tables without the steps between; `to` an older revision it gets
    the tables of that one, for what was kept when it was the newest.

    Raises:
        DatabaseNewer: the database's revision is not one of ours.
    """
    revision = known_revision(connection)
    if revision is not None and REVISIONS.index(revision) >= REVISIONS.index(to):
        return
    if at_once and to == REVISIONS[-1] and revision is None:
        metadata.create_all(connection)
        connection.execute(text("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL PRIMARY KEY)"))
        connection.execute(text("INSERT INTO alembic_version VALUES (:revision)"), {"revision": REVISIONS[-1]})
        return
    _take_steps(connection, to)


def known_revision(connection: Connection) -> str | None:
    """Return the last step that the database has seen, or None where it has seen none.

    Raises:
        DatabaseNewer: the database's revision is not one of ours.
    """
    if not inspect(connection).has_table("alembic_version"):
        return None
    found = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    if found is not None and found not in REVISIONS:
        raise DatabaseNewer(str(found), REVISIONS[-1])
    return None if found is None else str(found)


def _take_steps(connection: Connection, to: str) -> None:
    from alembic.config import Config
    from alembic.runtime.environment import EnvironmentContext
    from alembic.script import ScriptDirectory

    script = ScriptDirectory(str(FOLDER), version_locations=[str(FOLDER)])
    environment = EnvironmentContext(Config(), script, fn=lambda revision, _: script._upgrade_revs(to, revision))
    with environment:
        environment.configure(connection=connection, target_metadata=metadata, render_as_batch=True)
        environment.run_migrations()
