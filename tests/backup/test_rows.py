"""Does a control database come out of its rows as it was, whichever kind it is and was?"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from sqlalchemy import select, text

from leaven.backup import rows
from leaven.registry import aliases, decisions, loops, tokens
from leaven.registry.decisions import Decision, record
from leaven.storage.control import migrate
from leaven.storage.control.database import ControlDatabase
from leaven.storage.control.schema import metadata
from tests.control_databases import a_version

NEWEST = migrate.REVISIONS[-1]


def fill_some(database: ControlDatabase) -> None:
    with database.write() as connection:
        first = a_version(connection, "flights", lineage={"why": 'déjà "vu"\n\u2028', "x": [1.5, None]})
        a_version(connection, "flights", parent=first, at=2)
        a_version(connection, "hotels")
        loops.pause(connection, "hotels", why="so")
        aliases.set_alias(connection, "flights", "champion", 2, decision="d", at=5)
        for number in range(1_200):
            record(connection, Decision(f"d{number}", "flights", number, "gate", "pass", by="rule"))
        tokens.create(connection, "me", ["admin"], random=os.urandom(40), by="me", at=3)
        connection.execute(text("INSERT INTO gateways VALUES ('g', 'h', 1, 2, 3, '{}')"))
        connection.execute(text("INSERT INTO leases VALUES ('flusher', 'me', 7, 9000)"))


def content(database: ControlDatabase) -> dict[str, list[tuple[object, ...]]]:
    with database.read() as connection:
        return {
            name: [tuple(row) for row in connection.execute(select(table).order_by(*table.primary_key))]
            for name, table in metadata.tables.items()
            if name not in ("gateways", "leases")
        }


def keep(database: ControlDatabase, folder: Path) -> tuple[str, dict[str, Path]]:
    folder.mkdir()
    with database.read() as connection:
        revision, counts = rows.write_rows(connection, folder)
    assert counts["decisions"] == 1_200
    return revision, {path.stem: path for path in folder.iterdir()}


def refilled(url: str, files: dict[str, Path], revision: str) -> ControlDatabase:
    database = ControlDatabase(url)
    database.create()
    with database.write() as connection:
        rows.fill(connection, files, revision=revision)
    return database


def test_the_rows_of_any_database_fill_a_file(database: ControlDatabase, tmp_path: Path):
    fill_some(database)
    revision, files = keep(database, tmp_path / "rows")
    other = refilled(f"sqlite:///{tmp_path / 'other.db'}", files, revision)
    assert content(other) == content(database)
    with other.read() as connection:
        assert connection.execute(text("SELECT holder, token, until FROM leases")).all() == [("", 7, 0)]
        assert connection.execute(text("SELECT count(*) FROM gateways")).scalar() == 0
    other.dispose()


def test_the_rows_of_a_file_fill_postgresql_which_counts_on_from_there(tmp_path: Path, postgres_url: str):
    database = ControlDatabase(f"sqlite:///{tmp_path / 'control.db'}")
    database.migrate()
    fill_some(database)
    revision, files = keep(database, tmp_path / "rows")
    other = refilled(postgres_url, files, revision)
    assert content(other) == content(database)
    with other.write() as connection:
        record(connection, Decision("later", "flights", 9, "gate", "pass", by="rule"))
        aliases.set_alias(connection, "flights", "champion", 1, decision="later", at=9)
    with other.read() as connection:
        assert len(decisions.decisions(connection, "flights", limit=10_000)) == 1_201
    for each in (database, other):
        each.dispose()


def test_rows_of_an_older_leaven_are_filled_into_the_tables_of_its_time_which_then_go_on(tmp_path: Path):
    old = ControlDatabase(f"sqlite:///{tmp_path / 'old.db'}")
    old.create()
    with old.write() as connection:
        migrate.upgrade(connection, to="0001")
        a_version(connection)
        for number in range(1_200):
            record(connection, Decision(f"d{number}", "flights", number, "gate", "pass", by="rule"))
    revision, files = keep(old, tmp_path / "rows")
    assert (revision, "tokens" in files) == ("0001", False)
    other = refilled(f"sqlite:///{tmp_path / 'other.db'}", files, revision)
    with other.read() as connection:
        assert migrate.known_revision(connection) == NEWEST
        assert [loop.name for loop in loops.loops(connection)] == ["flights"]
        assert tokens.tokens(connection) == []
    for each in (old, other):
        each.dispose()


def test_what_cannot_be_filled_leaves_the_database_empty(tmp_path: Path):
    database = ControlDatabase(f"sqlite:///{tmp_path / 'control.db'}")
    database.create()
    (tmp_path / "aliases.jsonl").write_text('{"loop":"x","alias":"y","version":1,"since":1,"decision":"d"}\n')
    with pytest.raises(Exception, match="FOREIGN KEY"), database.write() as connection:
        rows.fill(connection, {"aliases": tmp_path / "aliases.jsonl"}, revision=NEWEST)
    assert rows.is_empty(database)
    database.dispose()
