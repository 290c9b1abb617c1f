"""Which process may act?

A lease is a row with a holder and an end in real time. Its token grows each time the holder changes; a write that
checks the token inside its own transaction (`fenced`) can never be made by a process that lost the lease unawares.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from sqlalchemy import Connection, insert, select, update

from leaven.errors import LeavenError
from leaven.storage.control.database import ControlDatabase, DatabaseUnavailable
from leaven.storage.control.schema import leases

_log = logging.getLogger(__name__)


class LeaseLost(LeavenError, RuntimeError):
    """A process acted under a lease that another one holds by now."""

    def __init__(self, name: str, token: int) -> None:
        super().__init__(name, token)
        self.name, self.token = name, token

    def __str__(self) -> str:
        return (
            f"the lease {self.name!r} is no longer held under token {self.token}: another process took it over. "
            "Nothing was written; stop this process, or let it acquire the lease again."
        )


class Lease:
    """The right of one `holder` (a name that no other process start shares) to do what `name` stands for.

    `wall` tells real time in seconds, the same for all contenders to well within `seconds`.
    """

    def __init__(
        self,
        database: ControlDatabase,
        name: str,
        holder: str,
        *,
        seconds: float = 10.0,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._database, self._name, self._holder, self._seconds, self._wall = database, name, holder, seconds, wall
        self._until = 0.0
        self._token = 0

    @property
    def token(self) -> int:
        """Number of the holding that `acquire` last won; 0 before the first."""
        return self._token

    def acquire(self) -> bool:
        """Take the lease if it is free or has run out, or prolong it if it is ours; False where another holds it.

        Raises:
            DatabaseUnavailable: nobody can tell now.
        """
        # Counted from before the write, so our own idea of the end is never later than the others'.
        now = self._wall()
        until = now + self._seconds
        with self._database.write() as connection:
            token = _take(connection, self._name, self._holder, now=_micros(now), until=_micros(until))
        if token is None:
            self._until = 0.0
            return False
        self._until, self._token = until, token
        return True

    def held(self) -> bool:
        """Whether the lease is ours for certain, by our own clock; asks no database."""
        return self._wall() < self._until

    def keep(self) -> bool:
        """Prolong the lease if a third of it has passed, and return whether it is ours; cheap enough for every step.

        While the database is away, a lease that has not run out stays ours.
        """
        if self._wall() < self._until - self._seconds * 2 / 3:
            return True
        try:
            return self.acquire()
        except DatabaseUnavailable as error:
            _log.warning("lease %r could not be prolonged: %s", self._name, error)
            return self.held()

    def release(self) -> None:
        """Give the lease back, if it is ours, so that another process need not wait for its end."""
        self._until = 0.0
        ours = (leases.c.name == self._name) & (leases.c.holder == self._holder) & (leases.c.token == self._token)
        with self._database.write() as connection:
            connection.execute(update(leases).where(ours).values(holder="", until=0))


def fenced(connection: Connection, name: str, token: int) -> None:
    """Return if `token` is the current one of the lease `name`; call it in the transaction that it protects.

    Raises:
        LeaseLost: another process has taken the lease since.
    """
    current = connection.execute(select(leases.c.token, leases.c.holder).where(leases.c.name == name)).one_or_none()
    if current is None or current.token != token or not current.holder:
        raise LeaseLost(name, token)


def _take(connection: Connection, name: str, holder: str, *, now: int, until: int) -> int | None:
    """Token of the lease after taking or prolonging it; None where another holds it."""
    row = connection.execute(select(leases).where(leases.c.name == name)).one_or_none()
    if row is None:
        connection.execute(insert(leases).values(name=name, holder=holder, token=1, until=until))
        return 1
    if row.holder != holder and row.until > now:
        return None
    token: int = row.token + (row.holder != holder)
    connection.execute(update(leases).where(leases.c.name == name).values(holder=holder, token=token, until=until))
    return token


def _micros(seconds: float) -> int:
    return round(seconds * 1_000_000)
