"""How does the asynchronous client reach the gateway over connections that are kept alive?"""

from __future__ import annotations

import asyncio
from typing import cast

from leaven.client.http1 import Broken, Reply, ReplyReader, to_bytes
from leaven.client.parts import IDLE, Parts
from leaven.client.retries import Send


class TransportPool:
    """Connections to one gateway, of one event loop."""

    def __init__(self, parts: Parts, *, connections: int) -> None:
        """Make at most `connections` at once; more requests wait for one."""
        self._address, self._tls, self._headers = parts.address, parts.tls, parts.headers
        self._timer, self._connections = parts.calls.asking.timer, connections
        self._slots = asyncio.Semaphore(connections)
        self._idle: list[_Connection] = []

    async def send(self, step: Send) -> Reply | Broken:
        """Carry out one step: the reply, or why there is none. Cancelled, it leaves no connection half used."""
        try:
            async with asyncio.timeout(max(step.deadline - self._timer(), 0)):
                async with self._slots:
                    return await self._exchange(step)
        except Broken as broken:
            return broken
        except TimeoutError:
            return Broken("it did not answer in time")

    async def close(self) -> None:
        """Close what is idle, and wait until it is closed."""
        idle, self._idle = self._idle, []
        for connection in idle:
            await connection.close()

    async def _exchange(self, step: Send) -> Reply:
        data = to_bytes(
            step.request, host=self._address.authority, prefix=self._address.prefix, common=self._headers
        )  # fmt: skip
        connection = (None if step.fresh else self._kept()) or await self._connect()
        try:
            reply = await connection.exchange(data)
        except BaseException:
            connection.abort()
            raise
        connection.used_at = self._timer()
        if reply.reusable and not connection.ended:
            self._idle.append(connection)
        else:
            connection.abort()
        return reply

    def _kept(self) -> _Connection | None:
        """The connection that was used last and is still open; those found closed are dropped."""
        while self._idle:
            connection = self._idle.pop()
            if not connection.ended and self._timer() - connection.used_at < IDLE:
                return connection
            connection.abort()
        return None

    async def _connect(self) -> _Connection:
        try:
            _, connection = await asyncio.get_running_loop().create_connection(
                _Connection, self._address.host, self._address.port, ssl=self._tls
            )
        except OSError as error:
            raise Broken(f"no connection: {error}") from None
        return connection


class _Connection(asyncio.Protocol):
    """One connection, used by one request at a time."""

    used_at: float = 0.0
    ended = False  # nothing can be sent over it any more
    _transport: asyncio.Transport

    def __init__(self) -> None:
        self._gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._reader: ReplyReader | None = None
        self._reply: asyncio.Future[Reply] | None = None
        self._used = False

    async def exchange(self, data: bytes) -> Reply:
        """Send a request and return the reply.

        Raises:
            Broken: there was none.
        """
        self._reader, self._reply = ReplyReader(), asyncio.get_running_loop().create_future()
        if self.ended:
            self._fail("the connection ended before the request was sent")
        else:
            self._transport.write(data)
        try:
            return await self._reply
        finally:
            self._reader = self._reply = None
            self._used = True

    def abort(self) -> None:
        """Close it at once."""
        self.ended = True
        self._transport.abort()

    async def close(self) -> None:
        """Close it, and wait until it is closed."""
        self.abort()
        await self._gone

    # What the event loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one in all but name

    def data_received(self, data: bytes) -> None:
        if self._reader is None:  # nobody asked: it cannot be trusted with the next request
            self.abort()
            return
        try:
            self._reader.feed(data)
        except Broken as broken:
            self._fail(broken.why)
        self._settle()

    def eof_received(self) -> None:
        self._end("the connection ended before the reply did")

    def connection_lost(self, error: Exception | None) -> None:
        self._end(f"the connection broke: {error}" if error else "the connection ended before the reply did")
        if not self._gone.done():
            self._gone.set_result(None)

    def _end(self, why: str) -> None:
        self.ended = True
        if self._reader is not None:
            try:
                self._reader.end()
            except Broken:
                self._fail(why)
            self._settle()

    def _settle(self) -> None:
        """Hand the reply over, if it is whole."""
        if self._reader is not None and self._reader.reply is not None and self._reply and not self._reply.done():
            self._reply.set_result(self._reader.reply)

    def _fail(self, why: str) -> None:
        self.ended = True
        if self._reader is not None and self._reply is not None and not self._reply.done():
            self._reply.set_exception(Broken(why, stale=self._used and not self._reader.touched))
