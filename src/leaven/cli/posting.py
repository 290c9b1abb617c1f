"""How does a command put feedback into the log, so that what it acknowledges is kept?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, cast

from leaven.app import App, this_process
from leaven.cli.output import messages
from leaven.events.records import FeedbackReceived

_LEASE_SECONDS = 60.0
_AT_ONCE = 10_000


def post(installed: App, reports: Sequence[FeedbackReceived]) -> bool:
    """Keep `reports` in the write-ahead log, as a gateway does, and return whether the lake has them now.

    Where no flusher runs, this process brings the log into the lake; else the running one does so within seconds.

    Raises:
        LogUnavailable: the disk does not take them; what was kept before stays kept, and sending all again is safe.
    """
    if not reports:
        return True
    from leaven.storage.wal import WriteAheadLog

    durability = cast(Literal["fsync", "os"], installed.settings.durability)
    log = WriteAheadLog(installed.settings.wal, clock=installed.clock, durability=durability)
    try:
        for first in range(0, len(reports), _AT_ONCE):
            log.append_durably(reports[first : first + _AT_ONCE]).result()
    finally:
        log.close()
    return _flushed(installed)


def _flushed(installed: App) -> bool:
    from leaven.storage.control.leases import Lease
    from leaven.storage.delta import LeaseNotHeld
    from leaven.storage.flusher import Flusher, FlushIncomplete

    lease = Lease(installed.database, "flusher", this_process("label"), seconds=_LEASE_SECONDS)
    if not lease.acquire():
        return False
    try:
        Flusher(installed.settings.wal, installed.lake, hold=lease.keep).flush_once()
    except (FlushIncomplete, LeaseNotHeld) as error:  # what is in the log stays kept: another round brings it
        messages().print(str(error), markup=False)
        return False
    finally:
        lease.release()
    return True
