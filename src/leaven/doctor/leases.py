"""How does the doctor make sure that nobody else works on what it mends?"""

from __future__ import annotations

import os
from collections.abc import Callable

from leaven.doctor.finding import Subject
from leaven.errors import LeavenError
from leaven.storage.control.database import ControlDatabase
from leaven.storage.control.leases import Lease


class InUse(LeavenError, RuntimeError):
    """What is to be mended is being worked on."""

    def __init__(self, lease: str) -> None:
        super().__init__(lease)
        self.lease = lease

    def __str__(self) -> str:
        return f"a {self.lease} runs and holds the lease. Stop it first, or let it mend this when it starts anew."


def with_lease(subject: Subject, name: str, act: Callable[[], str]) -> str:
    """Return what `act` returns, done under the lease `name`.

    Raises:
        InUse: another process holds it.
        DatabaseUnavailable: nobody can tell.
    """
    database = ControlDatabase(subject.settings.database)
    try:
        lease = Lease(database, name, f"doctor-{subject.host}-{os.getpid()}", seconds=120.0)
        if not lease.acquire():
            raise InUse(name)
        try:
            return act()
        finally:
            lease.release()
    finally:
        database.dispose()
