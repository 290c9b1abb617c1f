"""Do the steps lead from nothing to the tables that the code expects, and is a newer database left alone?"""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import Connection, MetaData, Table, insert, inspect, select, text

from leaven.registry import loops
from leaven.storage.control.database import ControlDatabase
from leaven.storage.control.migrate import FOLDER, REVISIONS, DatabaseNewer
from leaven.storage.control.schema import metadata
from leaven.storage.control.sqlite import create
from tests.control_databases import a_version, migrated

MIGRATE = """
import sys
from leaven.storage.control.database import ControlDatabase
ControlDatabase(sys.argv[1]).migrate()
"""


def told(connection: Connection) -> dict[str, object]:
    """All that the database itself says of its tables."""
    asked = inspect(connection)
    return {
        table: (
            [(c["name"], str(c["type"]), c["nullable"]) for c in asked.get_columns(table)],
            asked.get_pk_constraint(table)["constrained_columns"],
            sorted((f["constrained_columns"], f["referred_table"], f["referred_columns"])
                   for f in asked.get_foreign_keys(table)),
            sorted((i["column_names"], bool(i["unique"])) for i in asked.get_indexes(table)),
            sorted(u["column_names"] for u in asked.get_unique_constraints(table)),
        )
        for table in asked.get_table_names()
    }  # fmt: skip


def test_the_steps_make_exactly_the_tables_of_the_schema(database: ControlDatabase, tmp_path: Path):
    stepped = migrated(f"sqlite:///{tmp_path / 'stepped.db'}") if database.in_memory else database
    with stepped.read() as connection:
        by_steps = told(connection)
    with stepped.write() as connection:
        metadata.drop_all(connection)
        metadata.create_all(connection)
        assert told(connection) == by_steps
    assert set(by_steps) == {*metadata.tables, "alembic_version"}
    stepped.dispose()


def test_alembic_too_sees_nothing_left_to_do(database: ControlDatabase):
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    with database.read() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []


def test_the_code_knows_every_step_there_is():
    from alembic.script import ScriptDirectory

    script = ScriptDirectory(str(FOLDER), version_locations=[str(FOLDER)])
    assert tuple(step.revision for step in reversed(list(script.walk_revisions()))) == REVISIONS


def test_migrating_again_changes_nothing_and_needs_no_alembic(tmp_path: Path):
    url = f"sqlite:///{tmp_path / 'new' / 'control.db'}"
    database = migrated(url)
    with database.write() as connection:
        a_version(connection)
    database.migrate()
    with database.read() as connection:
        assert [loop.name for loop in loops.loops(connection)] == ["flights"]
    script = MIGRATE + "sys.exit('alembic' in sys.modules)"
    subprocess.run([sys.executable, "-c", script, url], check=True)
    database.dispose()


def stepped_to(database: ControlDatabase, revision: str) -> None:
    """Take the steps up to `revision` on an empty database, as a Leaven of that time did."""
    from alembic.config import Config
    from alembic.runtime.environment import EnvironmentContext
    from alembic.script import ScriptDirectory

    script = ScriptDirectory(str(FOLDER), version_locations=[str(FOLDER)])
    with database.write() as connection:
        steps = EnvironmentContext(Config(), script, fn=lambda now, _: script._upgrade_revs(revision, now))
        with steps:
            steps.configure(connection=connection, render_as_batch=True)
            steps.run_migrations()


def a_row(table: Table) -> dict[str, object]:
    """Some value for each column of a table, whatever it is that the table had at the time."""
    return {
        column.name: {int: 7, float: 0.5, bool: True}.get(column.type.python_type, "[]") for column in table.columns
    }


@pytest.mark.parametrize("revision", REVISIONS)
def test_from_every_earlier_state_the_steps_lead_to_the_newest_and_keep_every_row(shared_url: str, revision: str):
    database = ControlDatabase(shared_url)
    if database.file is not None:
        create(database.file)
    stepped_to(database, revision)
    then, rows = MetaData(), {}
    with database.write() as connection:
        then.reflect(connection)
        for table in then.sorted_tables:
            if not table.foreign_keys and table.name != "alembic_version":
                rows[table.name] = a_row(table)
                connection.execute(insert(table).values(rows[table.name]))
    assert "loops" in rows
    database.migrate()
    with database.read() as connection:
        for name, row in rows.items():
            (kept,) = connection.execute(select(then.tables[name])).mappings().all()
            assert dict(kept) == row
    with database.write() as connection:
        for name in rows:
            connection.execute(then.tables[name].delete())
        found = told(connection)
        metadata.drop_all(connection)
        metadata.create_all(connection)
        assert told(connection) == found
    database.dispose()


def test_a_newer_database_is_refused_with_what_to_do(database: ControlDatabase):
    with database.write() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(DatabaseNewer, match=r"at revision 9999, and this Leaven knows .* Install the newer Leaven"):
        database.migrate()
    with pytest.raises(DatabaseNewer):
        database.check()
    error = DatabaseNewer("9", "1")
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_a_migration_that_is_broken_off_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from alembic import op

    create = op.create_table

    def break_off(name: str, *columns: object, **options: object) -> object:
        if name == "trials":
            raise OSError("the disk is full")
        return create(name, *columns, **options)

    database = ControlDatabase(f"sqlite:///{tmp_path / 'control.db'}")
    with monkeypatch.context() as patched:
        patched.setattr(op, "create_table", break_off)
        with pytest.raises(OSError, match="the disk is full"):
            database.migrate()
    with database.read() as connection:
        assert inspect(connection).get_table_names() == []
    database.migrate()
    with database.read() as connection:
        assert set(metadata.tables) < set(inspect(connection).get_table_names())
    database.dispose()


def test_processes_that_start_together_on_nothing_all_succeed(shared_url: str):
    processes = [subprocess.Popen([sys.executable, "-c", MIGRATE, shared_url]) for _ in range(4)]
    assert [process.wait(180) for process in processes] == [0] * 4
    database = ControlDatabase(shared_url)
    with database.write() as connection:
        assert a_version(connection) == 1
    database.dispose()
