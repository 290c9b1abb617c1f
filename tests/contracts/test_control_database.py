"""Is every change a transaction of one writer, and does a database that went away say so and come back?"""

from __future__ import annotations

import pickle
import subprocess
import sys
from threading import Thread

import pytest
from sqlalchemy import func, insert, select
from sqlalchemy.exc import IntegrityError

from leaven.errors import BadDefinition
from leaven.registry import aliases, versions
from leaven.registry.routing import newer_tables
from leaven.storage.control import database as database_module
from leaven.storage.control.database import ControlDatabase, DatabaseUnavailable
from leaven.storage.control.schema import gateways, refreshes
from tests.control_databases import a_version, migrated
from tests.servers.postgres import PostgresServer

A_GATEWAY = {"host": "here", "pid": 1, "started_at": 1, "seen_at": 1, "revisions": {}}
WRITER = """
import sys
from leaven.registry import aliases, versions
from leaven.storage.control.database import ControlDatabase

database = ControlDatabase(sys.argv[1])
for turn in range(int(sys.argv[2])):
    with database.write() as connection:
        number = versions.register(
            connection, "flights", artifact="a", format="f", mode="fit", definition_digest="d", at=0
        )
        aliases.set_alias(connection, "flights", "champion", number, decision=f"{sys.argv[3]}-{turn}", at=number)
"""


def test_an_exception_takes_the_whole_transaction_back(database: ControlDatabase):
    def half() -> None:
        with database.write() as connection:
            connection.execute(insert(gateways).values(id="g", **A_GATEWAY))
            raise KeyError("in the middle")

    with pytest.raises(KeyError, match="in the middle"):
        half()
    with database.read() as connection:
        assert connection.execute(select(func.count()).select_from(gateways)).scalar() == 0


def test_what_a_reader_writes_is_not_kept(database: ControlDatabase):
    with database.read() as connection:
        connection.execute(insert(gateways).values(id="g", **A_GATEWAY))
    with database.read() as connection:
        assert connection.execute(select(gateways)).all() == []


def test_a_reader_sees_one_moment_however_long_it_reads(database: ControlDatabase):
    if database.in_memory:
        pytest.skip("in memory, readers and writers take turns")
    with database.write() as connection:
        a_version(connection)
    with database.read() as reading:
        before = len(versions.versions(reading, "flights"))
        with database.write() as connection:
            a_version(connection)
        assert len(versions.versions(reading, "flights")) == before
    with database.read() as reading:
        assert len(versions.versions(reading, "flights")) == before + 1


def test_threads_take_turns_at_writing_and_none_fails(database: ControlDatabase):
    failures: list[BaseException] = []

    def work() -> None:
        try:
            for _ in range(15):
                with database.write() as connection:
                    a_version(connection)
        except BaseException as error:  # the thread's end of the test: the assertion below shows it
            failures.append(error)

    threads = [Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    with database.read() as connection:
        assert [record.number for record in versions.versions(connection, "flights")] == list(range(1, 61))


def test_processes_that_write_at_once_neither_fail_nor_take_a_number_twice(shared: ControlDatabase, shared_url: str):
    with shared.write() as connection:
        a_version(connection)
    processes = [subprocess.Popen([sys.executable, "-c", WRITER, shared_url, "25", str(who)]) for who in range(3)]
    assert [process.wait(180) for process in processes] == [0, 0, 0]
    with shared.read() as connection:
        assert [record.number for record in versions.versions(connection, "flights")] == list(range(1, 77))
        spans = aliases.history(connection, "flights", "champion")
    assert [span.version for span in spans] == list(range(2, 77))
    assert [span.until for span in spans[:-1]] == [span.since for span in spans[1:]]


def test_the_tables_let_one_refresh_per_loop_be_open(database: ControlDatabase):
    facts = {"loop": "flights", "cause": {}, "as_of": 0, "state": "running", "step": "snapshot", "payload": {},
             "created_at": 0, "updated_at": 0}  # fmt: skip
    with database.write() as connection:
        a_version(connection)
        connection.execute(insert(refreshes).values(id="r1", active="flights", **facts))
        for ended in ("r2", "r3"):
            connection.execute(insert(refreshes).values(id=ended, active=None, **facts))

    def open_another() -> None:
        with database.write() as connection:
            connection.execute(insert(refreshes).values(id="r4", active="flights", **facts))

    with pytest.raises(IntegrityError):
        open_another()


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("sqlite:////nowhere/at/all/control.db", "unable to open"),
        ("postgresql://leaven@127.0.0.1:1/x", "refused"),
    ],
)
def test_a_database_that_cannot_be_opened_is_named_with_what_to_do(url: str, why: str):
    with pytest.raises(DatabaseUnavailable, match=f"{why}.*Check LEAVEN_DATABASE"):
        newer_tables(ControlDatabase(url), {})


def test_a_url_that_is_none_is_refused_and_a_password_is_not_shown():
    with pytest.raises(BadDefinition, match="LEAVEN_DATABASE: 'nonsense' is no database URL"):
        ControlDatabase("nonsense")
    with pytest.raises(BadDefinition, match="'mysql' is no database that Leaven knows"):
        ControlDatabase("mysql://leaven@127.0.0.1/x")
    with pytest.raises(BadDefinition, match=r"the driver of 'postgresql\+other' is not installed"):
        ControlDatabase("postgresql+other://leaven@127.0.0.1/x")
    assert ControlDatabase("postgresql://leaven@127.0.0.1:1/x").url.startswith("postgresql+psycopg://")
    assert "secret" not in ControlDatabase("postgresql+psycopg://leaven:secret@127.0.0.1:1/x").url
    error = DatabaseUnavailable("sqlite://", "busy")
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_a_postgresql_that_was_ended_is_said_so_and_used_again_when_it_is_back(postgres_server: PostgresServer):
    postgres_server.empty()
    database = migrated(postgres_server.url)
    with database.write() as connection:
        a_version(connection)
    postgres_server.end()
    try:
        with pytest.raises(DatabaseUnavailable, match="Check LEAVEN_DATABASE"):
            newer_tables(database, {})
    finally:
        postgres_server.start()
    with database.write() as connection:
        a_version(connection)
    with database.read() as connection:
        assert len(versions.versions(connection, "flights")) == 2
    database.dispose()


def test_a_writer_on_postgresql_waits_for_another_only_so_long(postgres_url: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(database_module._PATIENCE, "lock_timeout", "200ms")
    one, two = migrated(postgres_url), ControlDatabase(postgres_url)

    def write() -> None:
        with two.write() as connection:
            a_version(connection)

    with one.write() as connection:
        a_version(connection)
        with pytest.raises(DatabaseUnavailable, match="lock timeout"):
            write()
    write()
    one.dispose()
    two.dispose()


def test_a_writer_on_postgresql_that_hangs_is_cut_off(postgres_url: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(database_module._PATIENCE, "idle_in_transaction_session_timeout", "300ms")
    one, two = migrated(postgres_url), ControlDatabase(postgres_url)

    def hang() -> None:
        with one.write() as connection:
            connection.execute(insert(gateways).values(id="g", **A_GATEWAY))
            with two.write() as other:  # waits until the one that hangs has been cut off
                a_version(other)
            connection.execute(select(gateways))

    with pytest.raises(DatabaseUnavailable):
        hang()
    with two.read() as connection:
        assert connection.execute(select(gateways)).all() == []
        assert len(versions.versions(connection, "flights")) == 1
    one.dispose()
    two.dispose()
