"""How does a request reach a server over connections that are kept alive, a bounded number of them?

A connection that cannot be made is tried once more. A request of which a byte may have arrived is never sent twice,
with one exception: a kept connection that turns out to have been closed before any byte of a reply. That is how a
server ends an idle connection, and a prediction asked twice changes nothing there, so it is asked again on a new one.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal, cast

from leaven.client.http1 import Broken, Reply, ReplyReader
from leaven.endpoints.failures import EndpointFailed

_IDLE_SECONDS = 30.0  # that a connection is kept without use
_ATTEMPTS = 2  # to connect

Stage = Literal["waiting", "connecting", "answering"]


@dataclass(slots=True)
class Progress:
    """How far a request has come, for whoever runs out of time."""

    stage: Stage = "waiting"


class Pool:
    """Connections to one server, of one event loop; may be made on any thread."""

    def __init__(
        self,
        host: str,
        port: int,
        *,
        tls: ssl.SSLContext | None,
        connect_seconds: float,
        at_once: int,
        waiting: int,
        timer: Callable[[], float],
    ) -> None:
        """Make a pool of at most `at_once` connections, for each of which at most `waiting` requests wait together."""
        self.waiting = 0  # requests that wait for a connection
        self.under_way = 0
        self._host, self._port, self._tls, self._timer = host, port, tls, timer
        self._connect_seconds, self._waiting_limit = connect_seconds, waiting
        self._slots = asyncio.Semaphore(at_once)
        self._idle: list[_Connection] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False

    @property
    def idle(self) -> int:
        """Connections that wait for a request."""
        return len(self._idle)

    async def exchange(self, data: bytes, *, limit: int, progress: Progress) -> Reply:
        """Send a request and return the reply. Cancelled, it leaves no connection half used.

        Args:
            data: The request's bytes.
            limit: Bytes that the reply may have.
            progress: Is told how far it is.
        Raises:
            EndpointFailed: there is no reply.
        """
        if self._slots.locked() and self.waiting >= self._waiting_limit:
            raise EndpointFailed("busy", f"is not asked: {self.waiting} requests wait for it here already")
        self._loop = asyncio.get_running_loop()
        self.waiting += 1
        try:
            await self._slots.acquire()
        finally:
            self.waiting -= 1
        self.under_way += 1
        try:
            return await self._over_a_connection(data, limit, progress)
        finally:
            self.under_way -= 1
            self._slots.release()

    def close(self) -> None:
        """Close what is idle, and keep nothing from now on; may be called from any thread."""
        self._closed = True
        idle, self._idle = self._idle, []
        if self._loop is not None and idle:
            with suppress(RuntimeError):  # the loop has ended, and with it the connections
                self._loop.call_soon_threadsafe(_abort_all, idle)

    async def _over_a_connection(self, data: bytes, limit: int, progress: Progress) -> Reply:
        kept = self._kept()
        if kept is not None:
            try:
                return await self._over(kept, data, limit, progress)
            except _Stale:
                progress.stage = "connecting"
        return await self._over(await self._connect(progress), data, limit, progress)

    async def _over(self, connection: _Connection, data: bytes, limit: int, progress: Progress) -> Reply:
        progress.stage = "answering"
        try:
            reply = await connection.exchange(data, limit)
        except BaseException:
            connection.abort()
            raise
        connection.used_at = self._timer()
        if reply.reusable and not connection.ended and not self._closed:
            self._idle.append(connection)
        else:
            connection.abort()
        return reply

    def _kept(self) -> _Connection | None:
        """The connection that was used last and is still open; those found closed are dropped."""
        while self._idle:
            connection = self._idle.pop()
            if not connection.ended and self._timer() - connection.used_at < _IDLE_SECONDS:
                return connection
            connection.abort()
        return None

    async def _connect(self, progress: Progress) -> _Connection:
        progress.stage = "connecting"
        for left in reversed(range(_ATTEMPTS)):
            try:
                async with asyncio.timeout(self._connect_seconds):
                    _, connection = await asyncio.get_running_loop().create_connection(
                        _Connection, self._host, self._port, ssl=self._tls
                    )
                return connection
            except ssl.SSLCertVerificationError as error:
                raise EndpointFailed("no connection", f"is not trusted: {error.verify_message}") from None
            except (TimeoutError, OSError) as error:
                if left == 0:
                    raise EndpointFailed("no connection", _unreachable(error, self._connect_seconds)) from None
        raise AssertionError("the last attempt returns or raises")


def _unreachable(error: Exception, seconds: float) -> str:
    if isinstance(error, TimeoutError) and not str(error):
        return f"took no connection within {seconds:g} s"
    return f"takes no connection: {str(error) or type(error).__name__}"[:300]


def _abort_all(connections: list[_Connection]) -> None:
    for connection in connections:
        connection.abort()


class _Stale(Exception):  # between a connection and its pool, which makes another
    """A kept connection had been closed before the server read the request."""


class _Connection(asyncio.Protocol):
    """One connection, used by one request at a time."""

    def __init__(self) -> None:
        self.ended = False  # nothing can be sent over it any more
        self.used_at = 0.0
        self._transport: asyncio.Transport | None = None
        self._reader: ReplyReader | None = None
        self._reply: asyncio.Future[Reply] | None = None
        self._used = False

    async def exchange(self, data: bytes, limit: int) -> Reply:
        """Send a request and return the reply.

        Raises:
            EndpointFailed: there was none.
            _Stale: and the request can be sent again.
        """
        if self.ended or self._transport is None:
            raise _Stale if self._used else EndpointFailed("broken off", "closed the connection at once")
        self._reader, self._reply = ReplyReader(limit), asyncio.get_running_loop().create_future()
        self._transport.write(data)
        try:
            return await self._reply
        finally:
            self._reader = self._reply = None
            self._used = True

    def abort(self) -> None:
        """Close it at once."""
        self.ended = True
        if self._transport is not None:
            self._transport.abort()

    # What the event loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if self._reader is None:  # nobody asked: it cannot be trusted with the next request
            self.abort()
            return
        try:
            self._reader.feed(data)
        except Broken as broken:
            self._fail(EndpointFailed("no answer", f"sent what cannot be read: {broken.why}"[:200]))
        self._settle()

    def eof_received(self) -> None:
        self._end(None)

    def connection_lost(self, error: Exception | None) -> None:
        self._end(error)

    def _end(self, error: Exception | None) -> None:
        self.ended = True
        if self._reader is None:
            return
        try:
            self._reader.end()
        except Broken:
            what = f"broke the connection: {error}" if error else "closed the connection before its reply was whole"
            fresh = self._reader.touched or not self._used
            self._fail(EndpointFailed("broken off", what) if fresh else _Stale())
        self._settle()

    def _settle(self) -> None:
        """Hand the reply over, if it is whole."""
        if self._reader is not None and self._reader.reply is not None and self._reply and not self._reply.done():
            self._reply.set_result(self._reader.reply)

    def _fail(self, failed: Exception) -> None:
        self.ended = True
        if self._reply is not None and not self._reply.done():
            self._reply.set_exception(failed)
