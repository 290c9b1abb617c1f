"""Does an SQLite file that is away, replaced, or no database at all say so, and does its log stay short?"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from sqlalchemy import insert

from leaven.registry import loops, versions
from leaven.registry.routing import newer_tables
from leaven.storage.control import sqlite
from leaven.storage.control.database import ControlDatabase, DatabaseUnavailable
from leaven.storage.control.schema import gateways
from tests.control_databases import a_version, migrated

A_GATEWAY = {"host": "here", "pid": 1, "started_at": 1, "seen_at": 1, "revisions": {}}


def test_a_file_that_is_away_is_said_so_and_not_made_anew(tmp_path: Path):
    file = tmp_path / "control.db"
    database = migrated(f"sqlite:///{file}")
    with database.write() as connection:
        a_version(connection)
    assert newer_tables(database, {}) == []
    file.rename(tmp_path / "away.db")
    for _ in range(2):
        with pytest.raises(DatabaseUnavailable, match="unable to open database file"):
            newer_tables(database, {})
    assert not file.exists()
    (tmp_path / "away.db").rename(file)
    with database.read() as connection:
        assert len(versions.versions(connection, "flights")) == 1
    database.dispose()


def test_a_process_that_starts_while_the_file_is_away_makes_no_empty_one_in_its_place(tmp_path: Path):
    file = tmp_path / "control.db"
    migrated(f"sqlite:///{file}").dispose()
    file.rename(tmp_path / "elsewhere")
    late = ControlDatabase(f"sqlite:///{file}")
    with pytest.raises(DatabaseUnavailable, match=r"was here and is gone.*control\.db\.lock to begin anew"):
        late.migrate()
    assert not file.exists()
    (tmp_path / "elsewhere").rename(file)
    late.migrate()
    late.dispose()
    file.unlink()
    (tmp_path / "control.db.lock").unlink()
    migrated(f"sqlite:///{file}").dispose()


def test_a_file_that_was_replaced_is_read_anew(tmp_path: Path):
    one, two = migrated(f"sqlite:///{tmp_path / 'one.db'}"), migrated(f"sqlite:///{tmp_path / 'two.db'}")
    with two.write() as connection:
        a_version(connection)
    two.dispose()
    with one.read() as connection:
        assert loops.loops(connection) == []
    one_files = list(tmp_path.glob("one.db-*"))
    shutil.copy(tmp_path / "two.db", tmp_path / "copy.db")
    for file in one_files:
        file.unlink()
    (tmp_path / "copy.db").rename(tmp_path / "one.db")
    with one.read() as connection:
        assert [loop.name for loop in loops.loops(connection)] == ["flights"]
    one.dispose()


def test_looking_at_a_database_without_tables_says_so_and_makes_none(tmp_path: Path):
    (tmp_path / "control.db").touch()
    database = ControlDatabase(f"sqlite:///{tmp_path / 'control.db'}")
    with pytest.raises(DatabaseUnavailable, match="it has no tables of Leaven's"):
        database.check()
    database.migrate()
    database.check()
    database.dispose()


def test_a_file_that_is_no_database_is_refused(tmp_path: Path):
    (tmp_path / "control.db").write_bytes(b"something else entirely, and long enough to be looked at" * 100)
    with pytest.raises(DatabaseUnavailable, match="file is not a database"):
        newer_tables(ControlDatabase(f"sqlite:///{tmp_path / 'control.db'}"), {})


def test_the_log_is_moved_into_the_file_by_writers_alone_and_does_not_grow_forever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(sqlite, "CHECKPOINT_BYTES", 100_000)
    database = migrated(f"sqlite:///{tmp_path / 'control.db'}")
    with database.read() as connection:
        assert connection.exec_driver_sql("PRAGMA wal_autocheckpoint").scalar() == 0
    for place in range(30):
        with database.write() as connection:
            connection.execute(insert(gateways).values(id=str(place), **(A_GATEWAY | {"host": "x" * 20_000})))
        assert (tmp_path / "control.db-wal").stat().st_size < 300_000
    assert (tmp_path / "control.db").stat().st_size > 300_000
    database.dispose()


def test_a_folder_that_cannot_be_written_is_said_so(tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(DatabaseUnavailable, match=r"(Not a directory|File exists).*Check LEAVEN_DATABASE"):
        ControlDatabase(f"sqlite:///{tmp_path / 'file' / 'control.db'}").migrate()


@pytest.mark.slow
def test_a_writer_that_waits_too_long_for_another_is_told(tmp_path: Path):
    url = f"sqlite:///{tmp_path / 'control.db'}"
    one, two = migrated(url), ControlDatabase(url)

    def write() -> None:
        with two.write() as connection:
            a_version(connection)

    with one.write() as connection:
        a_version(connection)
        with pytest.raises(DatabaseUnavailable, match="another process is writing since 5 seconds"):
            write()
    write()
    one.dispose()
    two.dispose()


def test_a_file_keeps_a_write_ahead_log_and_waits_for_the_disk(tmp_path: Path):
    database = migrated(f"sqlite:///{tmp_path / 'control.db'}")
    with database.read() as connection:
        asked = [connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in ("journal_mode", "synchronous")]
    assert asked == ["wal", 2]
    database.dispose()
