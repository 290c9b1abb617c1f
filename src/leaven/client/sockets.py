"""How does the synchronous client reach the gateway over sockets that are kept alive?

Every wait is bounded by the call's deadline: for a name to be looked up, a connection to be made, a handshake, each
piece of a reply.
"""

from __future__ import annotations

import select
import socket
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from leaven.client.forks import tell_after_fork
from leaven.client.http1 import Broken, Reply, ReplyReader, to_bytes
from leaven.client.parts import IDLE, Parts
from leaven.client.retries import Send

if TYPE_CHECKING:
    import ssl

Timer = Callable[[], float]
_PIECE = 64 * 1024


class SocketPool:
    """Connections to one gateway; safe between threads, and in a forked child, which makes its own."""

    def __init__(self, parts: Parts, *, connections: int) -> None:
        """Make at most `connections` at once; more requests wait for one."""
        self._address, self._tls, self._headers = parts.address, parts.tls, parts.headers
        self._timer, self._connections = parts.calls.asking.timer, connections
        self._begin()
        tell_after_fork(self)

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._slots = threading.BoundedSemaphore(self._connections)
        self._idle: list[_Connection] = []

    def forked(self) -> None:
        """In a forked child: leave the parent's connections to the parent, who still has them open."""
        inherited = self._idle
        self._begin()
        for connection in inherited:
            connection.close()  # sends nothing, neither TCP's farewell nor that of TLS

    def send(self, step: Send) -> Reply | Broken:
        """Carry out one step: the reply, or why there is none."""
        if not self._slots.acquire(timeout=max(step.deadline - self._timer(), 0)):
            return Broken(f"all {self._connections} connections of this client were in use")
        try:
            return self._exchange(step)
        except Broken as broken:
            return broken
        finally:
            self._slots.release()

    def close(self) -> None:
        """Close what is idle."""
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def _exchange(self, step: Send) -> Reply:
        data = to_bytes(
            step.request, host=self._address.authority, prefix=self._address.prefix, common=self._headers
        )  # fmt: skip
        connection = None if step.fresh else self._kept()
        if connection is None:
            address = self._address
            connection = _Connection(
                _connect(address.host, address.port, self._tls, step.deadline, self._timer), self._timer
            )
        try:
            reply = connection.exchange(data, step.deadline)
        except BaseException:
            connection.close()
            raise
        if reply.reusable:
            with self._lock:
                self._idle.append(connection)
        else:
            connection.close()
        return reply

    def _kept(self) -> _Connection | None:
        """The connection that was used last and is still open; those found closed are dropped."""
        while True:
            with self._lock:
                if not self._idle:
                    return None
                connection = self._idle.pop()
            if connection.usable():
                return connection
            connection.close()


class _Connection:
    """One connection, used by one request at a time."""

    def __init__(self, stream: socket.socket, timer: Timer) -> None:
        self._socket, self._timer = stream, timer
        self._used = False
        self._used_at = timer()

    def usable(self) -> bool:
        """Whether it is young enough, and the server has neither closed it nor said anything unasked."""
        return self._timer() - self._used_at < IDLE and not _readable(self._socket)

    def exchange(self, data: bytes, deadline: float) -> Reply:
        """Send a request and return the reply.

        Raises:
            Broken: there was none.
        """
        reader = ReplyReader()
        try:
            self._write(data, deadline)
            while reader.reply is None:
                self._wait_until(deadline)
                received = self._socket.recv(_PIECE)
                if received:
                    reader.feed(received)
                else:
                    reader.end()
        except TimeoutError:
            raise Broken("it did not answer in time") from None
        except (OSError, Broken) as error:
            raise Broken(str(error), stale=self._used and not reader.touched) from None
        self._used, self._used_at = True, self._timer()
        return reader.reply

    def _write(self, data: bytes, deadline: float) -> None:
        left = memoryview(data)
        try:
            while left:
                self._wait_until(deadline)
                left = left[self._socket.send(left) :]
        except (BrokenPipeError, ConnectionResetError):
            # A server may answer (that it is too much, say) and close before it has read all: the reply, or the
            # same error again, is what reading gives.
            return

    def _wait_until(self, deadline: float) -> None:
        left = deadline - self._timer()
        if left <= 0:
            raise TimeoutError
        self._socket.settimeout(left)

    def close(self) -> None:
        self._socket.close()


def _connect(host: str, port: int, tls: ssl.SSLContext | None, deadline: float, timer: Timer) -> socket.socket:
    places = _look_up(host, port, deadline - timer())
    failed = "its name leads nowhere"
    for index, (family, kind, protocol, _, place) in enumerate(places):
        left = (deadline - timer()) / (len(places) - index)
        if left <= 0:
            raise Broken("no connection in time")
        stream = socket.socket(family, kind, protocol)
        try:
            stream.settimeout(left)
            stream.connect(place)
            stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return stream if tls is None else tls.wrap_socket(stream, server_hostname=host)
        except OSError as error:
            stream.close()
            failed = "no connection in time" if isinstance(error, TimeoutError) else f"no connection: {error}"
        except BaseException:
            stream.close()
            raise
    raise Broken(failed)


def _look_up(host: str, port: int, seconds: float) -> list[Any]:
    """The addresses of `host`. The system's look-up knows no time limit, so a name is looked up on a thread."""
    try:
        return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except socket.gaierror:
        found: list[Any] = []
        failed: list[OSError] = []

    def look() -> None:
        try:
            found.extend(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except OSError as error:
            failed.append(error)

    looking = threading.Thread(target=look, name="leaven-look-up", daemon=True)
    looking.start()
    looking.join(max(seconds, 0))
    if failed:
        raise Broken(f"its name cannot be looked up: {failed[0]}")
    if looking.is_alive():
        raise Broken("its name could not be looked up in time")
    return found


def _readable(stream: socket.socket) -> bool:
    if not hasattr(select, "poll"):
        return bool(select.select([stream], [], [], 0)[0])
    watch = select.poll()
    watch.register(stream, select.POLLIN)
    return bool(watch.poll(0))
