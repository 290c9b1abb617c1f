"""Which processes of this installation live, and does each do what it should?"""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path

from sqlalchemy import Connection, select

from leaven.doctor.finding import Examined, Subject
from leaven.registry import loops, routing
from leaven.runfile import StoredPart, stored_parts
from leaven.storage.control.database import ControlDatabase
from leaven.storage.control.schema import leases

SILENT_SECONDS = 15.0  # after which a gateway that has not reported counts as gone; they report every two
_FOLLOW_SECONDS = 2.0  # within which a gateway takes a table whose versions it can load


def check_parts(subject: Subject) -> Examined:
    """Look at what runs: here by its files, elsewhere by what it wrote into the control database."""
    found = Examined()
    stored = stored_parts(subject.settings.run)
    for part in stored:
        if not part.lives:
            found.note(
                f"a {part.facts.part} (pid {part.facts.pid}) was killed and left its file",
                where=part.path,
                mend="Remove it.",
                act=partial(_forgotten, part),
            )
    living = [f"{part.facts.part} (pid {part.facts.pid})" for part in stored if part.lives]
    database = ControlDatabase(subject.settings.database)
    try:
        with database.read() as connection:
            held = _leases(connection, subject)
            served = [loop.name for loop in loops.loops(connection)]
        found.summary = ", ".join([*living, *held]) or "nothing runs"
        if living and served:
            for name in ("flusher", "controller"):
                if not lives(subject, name) and not any(each.startswith(name) for each in held):
                    found.problem(f"no {name} runs", where=subject.host, mend=f"leaven {name}, or run all: leaven up.")
        _check_gateways(subject, database, found)
    finally:
        database.dispose()
    return found


def lives(subject: Subject, part: str) -> bool:
    """Return whether such a process lives on this machine."""
    return any(each.lives and each.facts.part == part for each in stored_parts(subject.settings.run))


def _leases(connection: Connection, subject: Subject) -> list[str]:
    rows = connection.execute(select(leases).order_by(leases.c.name)).all()
    return [f"{row.name}'s lease held by {row.holder}" for row in rows if row.holder and row.until > subject.now]


def _check_gateways(subject: Subject, database: ControlDatabase, found: Examined) -> None:
    since = subject.now - round(SILENT_SECONDS * 1e6)
    behind = _behind(database, since)
    if behind:
        time.sleep(_FOLLOW_SECONDS)
        again = _behind(database, since)
        for gateway, loop in sorted(behind.keys() & again.keys()):
            runs, newest = again[gateway, loop]
            found.problem(
                f"it routes {loop} by table {runs or 'none'}, and {newest} is published",
                where=f"gateway {gateway}",
                mend="It cannot load a version of the new table: see its log; roll back if that version is broken.",
            )
    with database.read() as connection:
        silent = [one for one in routing.gateways(connection) if one.seen_at < since]
    for one in silent:
        gone = one.host == subject.host and not Path(f"/proc/{one.pid}").exists()
        ago = (subject.now - one.seen_at) / 1e6
        found.note(
            f"it has not reported for {ago:,.0f} s{' and its process is gone' if gone else ''}",
            where=f"gateway {one.id} on {one.host}",
            mend="It is forgotten a day after it was last heard of.",
            act=partial(_left, subject, one.id) if gone else None,
        )


def _behind(database: ControlDatabase, since: int) -> dict[tuple[str, str], tuple[int, int]]:
    """Gateways that live and run an older table than the newest: which they run, and which is published."""
    with database.read() as connection:
        newest = {loop.name: routing.latest(connection, loop.name) for loop in loops.loops(connection)}
        living = routing.gateways(connection, since=since)
    return {
        (one.id, loop): (one.revisions.get(loop, 0), table.revision)
        for one in living
        for loop, table in newest.items()
        if table is not None and one.revisions.get(loop, 0) < table.revision
    }


def _forgotten(part: StoredPart) -> str:
    part.path.unlink(missing_ok=True)
    return f"removed {part.path.name}"


def _left(subject: Subject, gateway: str) -> str:
    database = ControlDatabase(subject.settings.database)
    try:
        routing.leave(database, gateway)
    finally:
        database.dispose()
    return "removed its entry"
