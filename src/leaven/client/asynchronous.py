"""How does an application with asyncio talk to its gateway?"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

from leaven.client.errors import BadCall
from leaven.client.parts import (
    BETWEEN_DELIVERIES,
    CONNECTIONS,
    LOOK_EVERY,
    RETRIES,
    SPOOL_LIMIT,
    TIMEOUT,
    machine_chance,
    parts_from,
    told_by,
)
from leaven.client.replies import Assignment, Prediction
from leaven.client.requests import Kind, Report
from leaven.client.retries import Pause, Send, Steps
from leaven.client.transports import TransportPool
from leaven.clock import Clock, SystemClock
from leaven.errors import LeavenError

if TYPE_CHECKING:
    import ssl

T = TypeVar("T")


class AsyncClient:
    """What `Client` is, to be awaited; it takes the same arguments, and belongs to the event loop that first uses it.

    A call that is cancelled gives up its connection; feedback that is cancelled may have been kept or not, so repeat
    it with the same id. Use it as `async with AsyncClient(url) as client`, or await `close` at the end.
    """

    def __init__(
        self,
        url: str,
        *,
        token: str | None = None,
        timeout: float = TIMEOUT,
        retries: int = RETRIES,
        spool: Path | str | None = None,
        spool_limit: int = SPOOL_LIMIT,
        ca: Path | str | ssl.SSLContext | None = None,
        connections: int = CONNECTIONS,
        clock: Clock | None = None,
        rng: Callable[[], float] = machine_chance,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
        timer: Callable[[], float] = time.monotonic,
    ) -> None:
        self._parts = parts_from(
            url, token=token, timeout=timeout, retries=retries, spool=spool, spool_limit=spool_limit, ca=ca,
            clock=clock or SystemClock(), rng=rng, timer=timer,
        )  # fmt: skip
        self._calls, self._sleep, self._rng = self._parts.calls, sleep, rng
        self._pool = TransportPool(self._parts, connections=connections)
        self._closed = False
        self._background: asyncio.Task[None] | None = None

    @classmethod
    def from_environment(
        cls, environment: Mapping[str, str] | None = None, *, timeout: float = TIMEOUT, retries: int = RETRIES
    ) -> Self:
        """Return a client of `LEAVEN_GATEWAY`, with `LEAVEN_TOKEN`, `LEAVEN_SPOOL` and `LEAVEN_CA` if they are set."""
        return cls(**told_by(environment), timeout=timeout, retries=retries)

    async def predict(
        self,
        loop: str,
        row: Mapping[str, Any],
        *,
        unit: str | None = None,
        key: str | None = None,
        timeout: float | None = None,
    ) -> Prediction:
        """Return the prediction for one row; see `Client.predict`."""
        return await self._run(self._calls.predict(loop, row, unit, key, self._parts.end(timeout)))

    async def predict_many(
        self,
        loop: str,
        rows: Sequence[Mapping[str, Any]],
        *,
        units: Sequence[str | None] | None = None,
        key: str | None = None,
        timeout: float | None = None,
    ) -> list[Prediction]:
        """Return the predictions for `rows`, in order; see `Client.predict_many`."""
        return await self._run(self._calls.predict_many(loop, rows, units, key, self._parts.end(timeout)))

    async def assign(
        self,
        loop: str,
        unit: str,
        *,
        context: Mapping[str, Any] | None = None,
        expose: bool = True,
        timeout: float | None = None,
    ) -> Assignment:
        """Return which arm `unit` gets, with its parameters; see `Client.assign`."""
        return await self._run(self._calls.assign(loop, unit, context, expose, self._parts.end(timeout)))

    async def feedback(
        self,
        loop: str,
        *,
        name: str,
        prediction_id: str | None = None,
        unit: str | None = None,
        value: float | str | None = None,
        kind: Kind = "label",
        at: datetime | None = None,
        id: str | None = None,
        source: str = "",
        timeout: float | None = None,
    ) -> str:
        """Report what came back; return the report's id once it is kept. See `Client.feedback`."""
        report = Report(
            name=name, prediction_id=prediction_id, unit=unit, value=value, kind=kind, at=at, id=id, source=source
        )
        (kept,) = await self.feedback_many(loop, [report], timeout=timeout)
        return kept

    async def feedback_many(self, loop: str, reports: Iterable[Report], *, timeout: float | None = None) -> list[str]:
        """Report many; return their ids once all are kept. See `Client.feedback_many`."""
        return await self._run(self._calls.feedback(loop, reports, self._parts.end(timeout)))

    @property
    def spooled(self) -> int:
        """How many reports wait in the spool, those of other processes that share it among them."""
        return 0 if self._calls.spool is None else self._calls.spool.count()

    async def flush(self, timeout: float | None = None) -> None:
        """Deliver what is in the spool, now; see `Client.flush`."""
        await self._run(self._calls.flush(self._parts.end(timeout)))

    async def close(self) -> None:
        """Stop delivering and close the connections. What is in the spool stays there, for the next client of it."""
        self._closed = True
        if self._background is not None:
            self._background.cancel()
            await asyncio.wait([self._background])
        await self._pool.close()

    async def __aenter__(self) -> Self:
        self._ensure()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _run(self, steps: Steps[T]) -> T:
        if self._closed:
            raise BadCall("client", "it is closed", "Make a new one.")
        self._ensure()
        return await self._carry_out(steps)

    async def _carry_out(self, steps: Steps[T]) -> T:
        """Do what `steps` say, one after another, and return what they come to."""
        result: Any = None
        with closing(steps):
            while True:
                try:
                    step = steps.send(result)
                except StopIteration as end:
                    value: T = end.value
                    return value
                if isinstance(step, Send):
                    result = await self._pool.send(step)
                elif isinstance(step, Pause):
                    result = await self._sleep(step.seconds)
                else:
                    result = await asyncio.to_thread(step.call)

    def _ensure(self) -> None:
        """Let the task run that delivers the spool."""
        if self._background is None and self._calls.delivery is not None:
            self._background = asyncio.create_task(self._deliver(), name="leaven-spool")

    async def _deliver(self) -> None:
        from leaven.client.delivery import Troubles

        assert self._calls.delivery is not None
        troubles = Troubles()
        while True:
            try:
                await self._carry_out(self._calls.delivery.deliver())
                troubles.none()
                pause = LOOK_EVERY
            except LeavenError as error:
                pause = BETWEEN_DELIVERIES.pause(troubles.one(error), chance=self._rng())
            await asyncio.sleep(pause)
