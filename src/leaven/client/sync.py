"""How does an application without asyncio talk to its gateway?"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

from leaven.client.errors import BadCall
from leaven.client.forks import tell_after_fork
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
from leaven.client.sockets import SocketPool
from leaven.clock import Clock, SystemClock
from leaven.errors import LeavenError

if TYPE_CHECKING:
    import ssl

    from leaven.client.delivery import Delivery

T = TypeVar("T")


class Client:
    """Talks to a gateway: predictions, assignments, feedback.

    Safe between threads; make one and share it. After a fork, the child's copy makes connections of its own.

    Args:
        url: Where the gateway is: `http[s]://HOST[:PORT][/PREFIX]`. Proxies and redirections are not followed.
        token: Sent as `Authorization: Bearer TOKEN`.
        timeout: Seconds that a call may take, all attempts and pauses among them.
        retries: Attempts after the first. What is tried again: a connection that cannot be made or breaks, and the
            statuses 408, 425, 429, 502, 503, 504. Nothing is counted twice by it, for every request carries an id.
        spool: A folder in which feedback waits while the gateway is away; a background thread delivers it. Several
            processes may share one. Without it, feedback that cannot be delivered is an error.
        spool_limit: Bytes that the folder may hold.
        ca: A file of certificates to trust in place of the system's, or a TLS context of your own.
        connections: How many are open at once, at most; further calls wait for one.
        clock: Tells when feedback happened that had to be spooled.
        rng: Draws evenly from [0, 1), for the jitter of pauses.
        sleep: Waits so many seconds.
        timer: Seconds on a clock that never goes back.
    Raises:
        BadCall: an argument makes no client.
        SpoolFailed: the spool's folder cannot be written.
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
        sleep: Callable[[float], object] = time.sleep,
        timer: Callable[[], float] = time.monotonic,
    ) -> None:
        self._parts = parts_from(
            url, token=token, timeout=timeout, retries=retries, spool=spool, spool_limit=spool_limit, ca=ca,
            clock=clock or SystemClock(), rng=rng, timer=timer,
        )  # fmt: skip
        self._calls, self._sleep = self._parts.calls, sleep
        self._pool = SocketPool(self._parts, connections=connections)
        self._closed = False
        self._background = None if self._calls.delivery is None else _Background(self, self._calls.delivery, rng)

    @classmethod
    def from_environment(
        cls, environment: Mapping[str, str] | None = None, *, timeout: float = TIMEOUT, retries: int = RETRIES
    ) -> Self:
        """Return a client of `LEAVEN_GATEWAY`, with `LEAVEN_TOKEN`, `LEAVEN_SPOOL` and `LEAVEN_CA` if they are set."""
        return cls(**told_by(environment), timeout=timeout, retries=retries)

    def predict(
        self,
        loop: str,
        row: Mapping[str, Any],
        *,
        unit: str | None = None,
        key: str | None = None,
        timeout: float | None = None,
    ) -> Prediction:
        """Return the prediction for one row.

        Args:
            loop: The loop's name.
            row: Values by feature; None, NaN or absent is missing.
            unit: Whom it is for; the same unit gets the same arm. None: a unit of its own.
            key: A name of your own for this request: asked again with it, it is the same prediction. None: a fresh one.
            timeout: Seconds that it may take; None for the client's.
        Raises:
            GatewayUnavailable: no answer in time.
            Refused: the gateway said no, and what was wrong.
            BadCall: it cannot be sent.
            UnreadableReply: whatever answered is no gateway.
        """
        return self._run(self._calls.predict(loop, row, unit, key, self._parts.end(timeout)))

    def predict_many(
        self,
        loop: str,
        rows: Sequence[Mapping[str, Any]],
        *,
        units: Sequence[str | None] | None = None,
        key: str | None = None,
        timeout: float | None = None,
    ) -> list[Prediction]:
        """Return the predictions for `rows`, in order; `units` has one per row.

        They are asked for a thousand at a time, within one `timeout`. One bad row refuses its thousand. Asked again
        with the same `key` and rows, those that were answered before are the same predictions.

        Raises as `predict` does.
        """
        return self._run(self._calls.predict_many(loop, rows, units, key, self._parts.end(timeout)))

    def assign(
        self,
        loop: str,
        unit: str,
        *,
        context: Mapping[str, Any] | None = None,
        expose: bool = True,
        timeout: float | None = None,
    ) -> Assignment:
        """Return which arm `unit` gets, with its parameters, for those who use the arm themselves.

        Args:
            loop: The loop's name.
            unit: Whom it is for; the same unit gets the same arm.
            context: What is known of the unit, by feature of the loop; kept with the exposure, to tell segments apart.
            expose: Whether the unit meets its arm now. False: nothing is written down; ask again when the arm is used.
            timeout: Seconds that it may take; None for the client's.
        Raises as `predict` does.
        """
        return self._run(self._calls.assign(loop, unit, context, expose, self._parts.end(timeout)))

    def feedback(
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
        """Report what came back; `Report` explains the arguments. Return the report's id once it is kept.

        Kept means on the gateway's disk, or, if the client has a spool and the gateway is away, on this one's.

        Raises:
            GatewayUnavailable: no answer in time, and there is no spool. Report it again with the same `id`.
            Refused: the gateway said no, and what was wrong.
            BadCall: it cannot be sent.
            SpoolFull, SpoolFailed: no answer in time, and the spool does not take it.
        """
        report = Report(
            name=name, prediction_id=prediction_id, unit=unit, value=value, kind=kind, at=at, id=id, source=source
        )
        (kept,) = self.feedback_many(loop, [report], timeout=timeout)
        return kept

    def feedback_many(self, loop: str, reports: Iterable[Report], *, timeout: float | None = None) -> list[str]:
        """Report many; return their ids once all are kept.

        They are sent a thousand at a time, in order, within one `timeout`. One that the gateway refuses stops it there
        (the index that it names counts within its thousand): give the reports ids of your own, and what was kept before
        will not count twice when you repeat them.

        Raises as `feedback` does.
        """
        if self._background is not None:
            self._background.ensure()
        return self._run(self._calls.feedback(loop, reports, self._parts.end(timeout)))

    @property
    def spooled(self) -> int:
        """How many reports wait in the spool, those of other processes that share it among them."""
        return 0 if self._calls.spool is None else self._calls.spool.count()

    def flush(self, timeout: float | None = None) -> None:
        """Deliver what is in the spool, now.

        Raises:
            GatewayUnavailable, Refused: the gateway does not take it; it stays in the spool.
        """
        self._run(self._calls.flush(self._parts.end(timeout)))

    def close(self) -> None:
        """Stop delivering and close the connections. What is in the spool stays there, for the next client of it."""
        if not self._closed:
            self._closed = True
            if self._background is not None:
                self._background.stop(self._parts.timeout)
            self._pool.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run(self, steps: Steps[T]) -> T:
        if self._closed:
            raise BadCall("client", "it is closed", "Make a new one.")
        return self.carry_out(steps, self._sleep)

    def carry_out(self, steps: Steps[T], sleep: Callable[[float], object]) -> T:
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
                    result = self._pool.send(step)
                elif isinstance(step, Pause):
                    result = sleep(step.seconds)
                else:
                    result = step.call()


class _Background:
    """The thread that delivers a client's spool."""

    def __init__(self, client: Client, delivery: Delivery, rng: Callable[[], float]) -> None:
        self._client, self._delivery, self._rng = client, delivery, rng
        self.forked()
        tell_after_fork(self)
        self.ensure()

    def forked(self) -> None:
        """In a forked child: there is no thread; the first feedback starts one."""
        self._lock, self._told = threading.Lock(), threading.Event()
        self._thread: threading.Thread | None = None

    def ensure(self) -> None:
        """Let the thread run."""
        with self._lock:
            if not self._told.is_set() and (self._thread is None or not self._thread.is_alive()):
                self._thread = threading.Thread(target=self._deliver, name="leaven-spool", daemon=True)
                self._thread.start()

    def stop(self, seconds: float) -> None:
        """End the thread; a request under way is waited for, at most so many seconds."""
        self._told.set()
        if self._thread is not None:
            self._thread.join(seconds)

    def _deliver(self) -> None:
        from leaven.client.delivery import Troubles

        troubles, pause = Troubles(), 0.0
        while not self._told.wait(pause):
            try:
                self._client.carry_out(self._delivery.deliver(), self._told.wait)
                troubles.none()
                pause = LOOK_EVERY
            except LeavenError as error:
                if not self._told.is_set():
                    pause = BETWEEN_DELIVERIES.pause(troubles.one(error), chance=self._rng())
