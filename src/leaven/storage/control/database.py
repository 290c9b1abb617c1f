"""How does a process read and change the control database?

Every change is one transaction under one writer at a time, on SQLite (a lock file, `BEGIN IMMEDIATE`) as on PostgreSQL
(an advisory lock), so code above may read, decide and write without a race. What differs between databases is here and
in `sqlite.py`, and nowhere else.
"""

from __future__ import annotations

import sqlite3
import weakref
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from threading import RLock

from sqlalchemy import URL, Connection, Engine, create_engine, make_url, text
from sqlalchemy.exc import (
    ArgumentError,
    DatabaseError,
    DataError,
    DisconnectionError,
    IntegrityError,
    InterfaceError,
    NoSuchModuleError,
)
from sqlalchemy.exc import TimeoutError as PoolTimeout

from leaven.errors import BadDefinition, LeavenError
from leaven.storage.control import migrate
from leaven.storage.control.sqlite import WRITES, create, only_writer, sqlite_engine

_WRITER = 0x6C656176  # advisory lock that writers on PostgreSQL share
# Of a writer on PostgreSQL: one that hangs is cut off before those who wait for it give up.
_PATIENCE = {"idle_in_transaction_session_timeout": "20s", "lock_timeout": "30s"}
# A server whose machine is gone does not refuse: without these, a connection to it would wait for many minutes.
_CONNECT = {"connect_timeout": 5, "keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3,
            "tcp_user_timeout": 15_000}  # fmt: skip


class DatabaseUnavailable(LeavenError, RuntimeError):
    """The control database cannot be opened, read or written now."""

    def __init__(self, url: str, why: str) -> None:
        super().__init__(url, why)
        self.url, self.why = url, why

    def __str__(self) -> str:
        mend = "Check LEAVEN_DATABASE, and that something (leaven up) has created it."
        return f"the control database {self.url} cannot be used: {self.why}. {mend}"


class ControlDatabase:
    """The control database at a URL: `sqlite:////path/control.db`, `sqlite://` (in memory) or `postgresql://…`.

    Safe to use from several threads. A database in memory has one connection, which the threads take in turns, and
    lives as long as this value. Nothing is opened before the first use.
    """

    def __init__(self, url: str) -> None:
        try:
            self._url = make_url(url)
        except ArgumentError as error:
            raise BadDefinition("LEAVEN_DATABASE", f"{url!r} is no database URL",
                                "Write one such as sqlite:////var/lib/leaven/control.db.") from error  # fmt: skip
        if self._url.get_backend_name() not in ("sqlite", "postgresql"):
            raise BadDefinition("LEAVEN_DATABASE", f"{self._url.drivername!r} is no database that Leaven knows",
                                "Use sqlite:////path/control.db or postgresql://user@host/database.")  # fmt: skip
        if self._url.drivername == "postgresql":
            self._url = self._url.set(drivername="postgresql+psycopg")  # the driver that leaven[postgres] brings
        self._turn = RLock() if self.in_memory else None
        try:
            self._engine = _engine(self._url)
        except (ModuleNotFoundError, NoSuchModuleError) as error:
            raise BadDefinition("LEAVEN_DATABASE", f"the driver of {self._url.drivername!r} is not installed",
                                'Install it: pip install "leaven[postgres]".') from error  # fmt: skip
        # One that is let go without `dispose` closes its connections all the same, and an in-memory database with them.
        weakref.finalize(self, self._engine.dispose)

    @property
    def url(self) -> str:
        """The URL, without its password."""
        return self._url.render_as_string(hide_password=True)

    @property
    def file(self) -> Path | None:
        """The database's file, where it is one."""
        return _file(self._url)

    @property
    def in_memory(self) -> bool:
        """Whether the database lives in this process's memory."""
        return self._url.get_backend_name() == "sqlite" and self.file is None

    def migrate(self) -> None:
        """Create the tables, or bring them to what this code expects; many processes may do so at once.

        Raises:
            DatabaseNewer: the tables were made by a newer Leaven.
            DatabaseUnavailable: the database cannot be opened.
        """
        self.create()
        with self.write() as connection:
            migrate.upgrade(connection, at_once=self.in_memory)

    def create(self) -> None:
        """See that the database's file is there, where it is one; many processes may do so at once.

        Raises:
            DatabaseUnavailable: it cannot be made, or was made before and is gone.
        """
        if self.file is not None:
            try:
                create(self.file)
            except (OSError, sqlite3.Error) as error:
                raise DatabaseUnavailable(self.url, str(error)) from error

    def check(self) -> None:
        """See that the tables are there and not newer than this code; for those who only look.

        Raises:
            DatabaseNewer: the tables were made by a newer Leaven.
            DatabaseUnavailable: the database cannot be opened, or has no tables.
        """
        with self.read() as connection:
            revision = migrate.known_revision(connection)
        if revision is None:
            raise DatabaseUnavailable(self.url, "it has no tables of Leaven's")

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """Open a transaction that is the only writer; committed at the end, rolled back by an exception.

        Raises:
            DatabaseUnavailable: the database cannot be opened, or another writer held it for too long.
        """
        with self._alone(), self._open(writes=True) as connection, connection.begin():
            if connection.dialect.name == "postgresql":
                _be_only_writer(connection)
            yield connection

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Open a transaction that sees one moment of the database and changes nothing.

        Raises:
            DatabaseUnavailable: the database cannot be opened.
        """
        with self._open(writes=False) as connection:
            yield connection

    def dispose(self) -> None:
        """Close all connections; a database in memory is gone."""
        self._engine.dispose()

    @contextmanager
    def _open(self, *, writes: bool) -> Iterator[Connection]:
        with self._said(), _held(self._turn), self._engine.connect() as connection:
            yield _prepared(connection, writes=writes)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """On a file, hold the right to write to it."""
        with ExitStack() as holding:
            if self.file is not None:
                try:
                    holding.enter_context(only_writer(self._engine, self.file))
                except OSError as error:  # a TimeoutError is one
                    raise DatabaseUnavailable(self.url, str(error)) from error
            yield

    @contextmanager
    def _said(self) -> Iterator[None]:
        """Turn what the database says of itself into our own words."""
        try:
            yield
        except (IntegrityError, DataError):
            raise  # a rule of the tables was broken: the caller's doing, not the database's
        except (DatabaseError, InterfaceError, DisconnectionError, PoolTimeout) as error:
            why = " ".join(str(getattr(error, "orig", None) or error).split())
            raise DatabaseUnavailable(self.url, why) from error


def _be_only_writer(connection: Connection) -> None:
    """Wait for the right to write until the transaction ends, for a while: one whose holder hangs is taken away."""
    for name, value in _PATIENCE.items():
        connection.execute(text(f"SET LOCAL {name} = '{value}'"))
    connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _WRITER})


def _prepared(connection: Connection, *, writes: bool) -> Connection:
    if connection.dialect.name == "postgresql":
        return connection if writes else connection.execution_options(isolation_level="REPEATABLE READ")
    return connection.execution_options(**{WRITES: writes})


@contextmanager
def _held(turn: RLock | None) -> Iterator[None]:
    if turn is None:
        yield
        return
    with turn:
        yield


def _file(url: URL) -> Path | None:
    if url.get_backend_name() != "sqlite" or url.database in (None, "", ":memory:"):
        return None
    return Path(str(url.database)).absolute()


def _engine(url: URL) -> Engine:
    if url.get_backend_name() == "sqlite":
        return sqlite_engine(_file(url))
    return create_engine(url, pool_pre_ping=True, connect_args=_CONNECT)
