"""Is the control database there, whole, and at the tables that this Leaven expects?"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

from sqlalchemy import text

from leaven.doctor.finding import Examined, Subject
from leaven.storage.control import migrate
from leaven.storage.control.database import ControlDatabase

_LONG_LOG = 64 * 2**20  # bytes of SQLite's write-ahead log beyond which something keeps it from being taken in


def check_database(subject: Subject) -> Examined:
    """Look at the control database, and at the durable engine's."""
    database = ControlDatabase(subject.settings.database)
    found = Examined(database.url)
    try:
        if database.file is not None:
            if not _is_there(database.file, database, found):
                return found
            _check_file(database.file, found, deep=subject.deep)
        _check_tables(database, found)
        steps = subject.settings.home / "workflows.db"
        if database.file is not None and steps.exists():
            _check_whole(steps, found, deep=subject.deep)
    finally:
        database.dispose()
    return found


def _is_there(file: Path, database: ControlDatabase, found: Examined) -> bool:
    if file.exists():
        return True
    lock = file.with_name(f"{file.name}.lock")
    if lock.exists() and lock.read_text():
        found.problem(
            "it was here and is gone",
            where=file,
            mend=f"Bring it back (leaven restore), or remove {lock.name} to begin anew.",
        )
    else:
        found.problem(
            "there is none yet",
            where=file,
            mend="leaven up LOOP.py makes it.",
            act=lambda: _migrated(str(database.url)),
        )
    return False


def _check_file(file: Path, found: Examined, *, deep: bool) -> None:
    mode = _check_whole(file, found, deep=deep)
    if mode not in (None, "wal"):
        found.problem(
            f"it keeps no write-ahead log (its mode is {mode}): readers and writers wait for each other",
            where=file,
            mend="leaven doctor --mend",
            act=lambda: _write_ahead(file),
        )
    log = file.with_name(f"{file.name}-wal")
    if log.exists() and log.stat().st_size > _LONG_LOG:
        found.note(
            f"its write-ahead log has {log.stat().st_size / 2**20:,.0f} MiB",
            where=log,
            mend="A process reads it without an end; restart the parts one by one.",
        )
    found.summary += f", SQLite {sqlite3.sqlite_version}, {file.stat().st_size / 2**20:,.1f} MiB"


def _check_whole(file: Path, found: Examined, *, deep: bool) -> str | None:
    """Let SQLite look for damage; return how it keeps its journal, None where it cannot be read."""
    restore = "Stop all parts, keep a copy of it, and restore a backup: leaven restore."
    try:
        with closing(sqlite3.connect(f"file:{quote(str(file))}?mode=ro", uri=True, timeout=5)) as opened:
            mode = str(opened.execute("PRAGMA journal_mode").fetchone()[0])
            said = opened.execute(f"PRAGMA {'integrity_check' if deep else 'quick_check'}(5)").fetchall()
            broken = [str(row[0]) for row in said if row[0] != "ok"]
            if not broken:
                broken = [
                    f"a row of {row[0]} refers to none of {row[2]}"
                    for row in opened.execute("PRAGMA foreign_key_check").fetchmany(3)
                ]
    except sqlite3.Error as error:
        found.problem(f"it cannot be read: {error}", where=file, mend=restore)
        return None
    if broken:
        found.problem(f"it is damaged: {'; '.join(broken)}", where=file, mend=restore)
    return mode


def _check_tables(database: ControlDatabase, found: Examined) -> None:
    if found.troubles and any("cannot be read" in trouble.finding.what for trouble in found.troubles):
        return
    url = database.url
    try:
        with database.read() as connection:
            revision = migrate.known_revision(connection)
            if connection.dialect.name == "postgresql":
                found.summary += f", PostgreSQL {connection.execute(text('SHOW server_version')).scalar()}"
    except migrate.DatabaseNewer as newer:
        found.problem(str(newer), where=url, mend="Install the newer Leaven that made it.")
        return
    found.summary += f", tables {revision or 'none'}"
    if revision is None:
        found.problem(
            "it has no tables yet",
            where=url,
            mend="leaven up LOOP.py makes them.",
            act=lambda: _migrated_here(database),
        )
    elif revision != migrate.REVISIONS[-1]:
        found.problem(
            f"its tables are those of revision {revision}; this Leaven expects {migrate.REVISIONS[-1]}",
            where=url,
            mend="leaven up takes the steps between; keep a backup before.",
            act=lambda: _migrated_here(database),
        )


def _migrated(url: str) -> str:
    database = ControlDatabase(url)
    try:
        return _migrated_here(database)
    finally:
        database.dispose()


def _migrated_here(database: ControlDatabase) -> str:
    database.migrate()
    database.dispose()
    return f"brought its tables to revision {migrate.REVISIONS[-1]}"


def _write_ahead(file: Path) -> str:
    with closing(sqlite3.connect(file, timeout=5, isolation_level=None)) as opened:
        opened.execute("PRAGMA journal_mode = WAL")
    return "switched the write-ahead log on"
