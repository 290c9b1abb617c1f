"""How do several processes share one SQLite file?

Reading needs nothing special: the file keeps a write-ahead log, and readers see one moment of it. Writing and moving
the log back into the file (the checkpoint) are done under a lock file by one process at a time, because SQLite before
3.51.3 can damage a file where one process checkpoints while another one writes (its "WAL-reset bug").
"""

from __future__ import annotations

import fcntl
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import IO
from urllib.parse import quote

from sqlalchemy import Connection, Engine, QueuePool, StaticPool, create_engine, event
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.pool import ConnectionPoolEntry

BUSY_SECONDS = 5.0  # how long a writer waits for another one
CHECKPOINT_BYTES = 4 * 1024**2  # of write-ahead log, after which it is moved into the file
WRITES = "leaven_writes"  # execution option of a connection that will write


def sqlite_engine(file: Path | None) -> Engine:
    """Return an engine on `file`, which must exist when it is used, or on a database in memory with one connection."""
    if file is None:
        engine = create_engine("sqlite://", poolclass=StaticPool, creator=_opener("file::memory:"))
    else:
        # mode=rw: a reader must not make an empty database where the file has gone; `create` makes it.
        engine = create_engine("sqlite://", poolclass=QueuePool, creator=_opener(f"file:{quote(str(file))}?mode=rw"))
        _follow(engine, file)
    event.listen(engine, "begin", _begin)
    return engine


def create(file: Path) -> None:
    """See that `file` exists and keeps a write-ahead log; many processes may do so at once.

    Raises:
        FileNotFoundError: it was made before and is gone. An empty one in its place would hide that, and what is
            written to it would be lost, or mixed into the file's own log, when the file comes back.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    with _locked(file) as lock:
        lock.seek(0)
        made = bool(lock.read())
        if made and not file.exists():
            raise FileNotFoundError(f"it was here and is gone; bring it back, or remove {lock.name} to begin anew")
        with closing(sqlite3.connect(file, timeout=BUSY_SECONDS, isolation_level=None)) as opened:
            if opened.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
                opened.execute("PRAGMA journal_mode = WAL")
        if not made:
            lock.write("the database beside this file was made\n")


@contextmanager
def only_writer(engine: Engine, file: Path) -> Iterator[None]:
    """Hold the right to write to `file`; afterwards the log is moved into the file, where it has grown long.

    Raises:
        TimeoutError: another process held the right for too long.
    """
    if not file.exists():  # opening it will say so; a lock file would be litter
        yield
        return
    with _locked(file):
        yield
        log = file.with_name(f"{file.name}-wal")
        if log.exists() and log.stat().st_size > CHECKPOINT_BYTES:
            with closing(engine.raw_connection()) as raw:
                raw.cursor().execute("PRAGMA wal_checkpoint(PASSIVE)")


@contextmanager
def _locked(file: Path) -> Iterator[IO[str]]:
    with file.with_name(f"{file.name}.lock").open("a+") as lock:
        end = time.monotonic() + BUSY_SECONDS
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if time.monotonic() > end:
                    raise TimeoutError(f"another process is writing since {BUSY_SECONDS:g} seconds") from error
                time.sleep(0.002)
        yield lock


def _opener(uri: str) -> Callable[[], sqlite3.Connection]:
    def open_one() -> sqlite3.Connection:
        # No isolation level: the driver must not begin transactions of its own; `_begin` does.
        opened = sqlite3.connect(uri, uri=True, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
        try:
            for setting in ("foreign_keys = ON", "synchronous = FULL", "wal_autocheckpoint = 0", "secure_delete = ON"):
                opened.execute(f"PRAGMA {setting}")
        except sqlite3.Error:
            opened.close()  # what it was opened on is no database
            raise
        return opened

    return open_one


def _begin(connection: Connection) -> None:
    writes = connection.get_execution_options().get(WRITES, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _follow(engine: Engine, file: Path) -> None:
    """Drop a pooled connection whose file was moved away or replaced: it would read what nobody else writes."""

    def opened(connection: DBAPIConnection, entry: ConnectionPoolEntry) -> None:
        entry.info["inode"] = _inode(file)

    def taken(connection: DBAPIConnection, entry: ConnectionPoolEntry, proxy: object) -> None:
        if entry.info["inode"] != _inode(file):
            raise DisconnectionError(f"{file} is another file than before")

    event.listen(engine, "connect", opened)
    event.listen(engine, "checkout", taken)


def _inode(file: Path) -> int | None:
    try:
        return file.stat().st_ino
    except FileNotFoundError:
        return None
