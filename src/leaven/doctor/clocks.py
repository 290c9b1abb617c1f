"""Can the clock be relied on?"""

from __future__ import annotations

import struct
import time
from datetime import datetime
from pathlib import Path

from sqlalchemy import func, select, text

from leaven.clock import SystemClock
from leaven.doctor.finding import Examined, Subject
from leaven.duration import instant
from leaven.storage.control.database import ControlDatabase, DatabaseUnavailable
from leaven.storage.control.schema import decisions, gateways

_APART = 2.0  # seconds between two machines' clocks from which on leases are in danger; they last ten
_JUMP = 0.1  # seconds
_FIRST_RELEASE = datetime.fromisoformat("2026-01-01T00:00:00+00:00")


def check_clock(subject: Subject) -> Examined:
    """Compare the machine's clock with itself, with the database's, with what was recorded; look at a clock file."""
    found = Examined(subject.settings.clock)
    _check_pace(found)
    _check_file(subject.settings.clock, found)
    try:
        _check_records(subject, found)
    except DatabaseUnavailable:
        found.summary += "; not compared with the control database, which cannot be read"
    return found


def _check_pace(found: Examined) -> None:
    wall, steady = time.time(), time.monotonic()
    time.sleep(0.2)
    drift = (time.time() - wall) - (time.monotonic() - steady)
    if abs(drift) > _JUMP:
        found.problem(
            f"the machine's clock jumped by {drift:+.1f} s within a moment",
            where="this machine",
            mend="Let it be slewed, not stepped: run one of chrony, systemd-timesyncd, ntpd.",
        )
    if SystemClock().now() < _FIRST_RELEASE:
        found.problem(
            f"it shows {SystemClock().now():%Y-%m-%d}, which has passed",
            where="this machine",
            mend="Set it, and keep it set: chrony.",
        )


def _check_file(setting: str, found: Examined) -> None:
    if not setting.startswith("file:"):
        return
    path = Path(setting.removeprefix("file:"))
    if not path.is_file() or path.stat().st_size != 8:
        found.problem("it is no clock file (eight bytes)", where=path, mend="Unset LEAVEN_CLOCK, or set it to system.")
        return
    shown = int(struct.unpack("<q", path.read_bytes())[0])
    found.summary += f", which shows {instant(shown):%Y-%m-%d %H:%M:%S}"
    if shown == 0:
        found.problem(
            "nobody has ever set it: for every part it is 1970",
            where=path,
            mend="Let a sender move it, or unset LEAVEN_CLOCK.",
        )
    else:
        found.note(
            "time stands still until somebody moves this file",
            where=path,
            mend="For replaying history only: in production unset LEAVEN_CLOCK.",
        )


def _check_records(subject: Subject, found: Examined) -> None:
    database = ControlDatabase(subject.settings.database)
    try:
        with database.read() as connection:
            before = time.time()
            if connection.dialect.name == "postgresql":
                theirs = float(connection.execute(text("SELECT extract(epoch FROM clock_timestamp())")).scalar_one())
                apart = theirs - (before + time.time()) / 2
                found.summary += f", {apart:+.3f} s from the database server's"
                if abs(apart) > _APART:
                    found.problem(
                        f"it is {apart:+.1f} s from the database server's: leases may be held twice",
                        where="this machine",
                        mend="Set both by the same time servers.",
                    )
            latest = connection.execute(select(func.max(gateways.c.seen_at))).scalar() or 0
            if subject.settings.clock == "system":
                latest = max(latest, connection.execute(select(func.max(decisions.c.at))).scalar() or 0)
    finally:
        database.dispose()
    ahead = (latest - SystemClock().micros()) / 1e6
    if ahead > 60:
        found.problem(
            f"something was recorded {ahead:,.0f} s from now: a clock went back, or one is ahead",
            where="control database",
            mend="Set the clocks of all machines by the same time servers.",
        )
