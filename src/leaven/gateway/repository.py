"""Which versions are there, in which state, and how does a loop leave service and come back?

The repository extension of the Open Inference Protocol. What it calls a model is a loop; a version is listed once a
routing table names it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import TypeVar

import msgspec

from leaven.gateway.models import ModelHost
from leaven.gateway.refusals import CannotLoad, UnknownModel
from leaven.gateway.watch import TableWatch
from leaven.gateway.withdrawals import Withdrawal, Withdrawals

READY, LOADING, UNAVAILABLE = "READY", "LOADING", "UNAVAILABLE"
T = TypeVar("T")


class Listed(msgspec.Struct, frozen=True):
    """A version, as the repository lists it."""

    name: str
    version: str
    state: str  # READY, LOADING or UNAVAILABLE
    reason: str  # empty where it is ready


class Repository:
    """The versions of this process, and the loops of this home."""

    def __init__(self, host: ModelHost, watch: TableWatch, withdrawals: Withdrawals, *, now: Callable[[], int]) -> None:
        """Join the parts; `now` is the wall clock, in microseconds since the Unix epoch."""
        self._host, self._watch, self._withdrawals, self._now = host, watch, withdrawals, now

    def index(self, *, ready_only: bool = False) -> list[Listed]:
        """Return every version that a table names, by loop and version."""
        listed = {(name, version): Listed(name, version, state, reason) for name, version, state, reason in self._all()}
        rows = [row for row in listed.values() if row.state == READY or not ready_only]
        return sorted(rows, key=lambda row: (row.name, len(row.version), row.version))

    async def unload(self, model: str) -> None:
        """Take a loop out of service, here at once, in the other workers of this home with their next look.

        Raises:
            UnknownModel: no table names it.
            CannotLoad: this could not be written down, so nothing has changed.
        """
        if model in self._host.withdrawn:
            return
        serving = self._host.serving.get(model)
        if serving is None:
            raise UnknownModel(model, self._host.serving.keys())
        classes, versions = serving.table.schema.classes, list(serving.models)
        try:
            said = await _apart(lambda: self._withdrawals.add(model, versions, at=self._now(), classes=classes))
        except OSError as error:
            raise CannotLoad(model, f"its withdrawal cannot be written down: {error}") from error
        self._host.withdraw(said)

    async def load(self, model: str, *, seconds: float = 60.0) -> None:
        """Let a loop be served again, with its newest table, and wait until it is.

        Raises:
            UnknownModel: no table names it.
            CannotLoad: it does not come to serve; the text says why, or that it takes long.
        """
        await _apart(lambda: self._withdrawals.remove(model))
        self._host.put_back(model)
        await _apart(self._watch.look_again)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        while model in self._watch.opening():
            if loop.time() > deadline:
                raise CannotLoad(model, f"it is still being opened after {seconds:g} s")
            await asyncio.sleep(0.02)
        if (refused := self._watch.refused().get(model)) is not None:
            raise CannotLoad(model, refused[1])
        if model not in self._host.serving:
            raise UnknownModel(model, self._host.serving.keys())

    def _all(self) -> Sequence[tuple[str, str, str, str]]:
        """All there is to say; what comes later counts."""
        rows: list[tuple[str, str, str, str]] = []
        for name, withdrawal in list(self._host.withdrawn.items()):
            rows += [(name, version, UNAVAILABLE, _why(withdrawal)) for version in withdrawal.versions]
        for name, (table, why) in self._watch.refused().items():
            rows += [(name, version, UNAVAILABLE, why) for version in table.artifacts()]
        for name, table in self._watch.opening().items():
            about = f"routing table {table.revision} is being opened"
            rows += [(name, version, LOADING, about) for version in table.artifacts()]
        for name, serving in list(self._host.serving.items()):
            rows += [(name, version, READY, "") for version in serving.models]
        return rows


def _why(withdrawal: Withdrawal) -> str:
    moment = datetime.fromtimestamp(withdrawal.at / 1e6, UTC)
    return f"unloaded on request at {moment:%Y-%m-%dT%H:%M:%SZ}"


async def _apart(act: Callable[[], T]) -> T:
    """Do on a thread what a disk or a database may hold up."""
    return await asyncio.get_running_loop().run_in_executor(None, act)
