"""What can one connection take from the others?

uvicorn's HTTP protocol, with the bounds that it leaves to a proxy in front: how many connections there are, how long
and how slow the head of a request may be, how much framing a body may have around its content, how far ahead of its
replies a caller is read, and how long it may leave a reply unread. A caller beyond them is told so, as every refusal is
told, and then let go; what it still sends is read and forgotten for a moment, so that the refusal reaches it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, cast

from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from leaven.errors import LeavenError
from leaven.gateway.http import refusal
from leaven.gateway.refusals import BadRequest, HeadTooLarge, TooManyConnections, TooSlow, UrlTooLong, status_of

_SLICE = 16 * 1024  # bytes that are parsed at a time
_PIPELINED = 32  # requests that wait behind another on their connection; the bytes after them are not looked at yet


@dataclass(frozen=True, slots=True)
class Bounds:
    """Where a connection ends."""

    connections: int = 4096  # at once, of one process
    head_bytes: int = 32 * 1024  # of a request's line and headers
    url_bytes: int = 8 * 1024
    headers: int = 128
    head_seconds: float = 10.0  # from a request's first byte to the end of its head
    idle_seconds: float = 75.0  # before a request's first byte
    framing_bytes: int = 256 * 1024  # around a body's content, beside as much as the content itself
    linger_seconds: float = 3.0  # in which what a refused caller still sends is read and forgotten
    write_seconds: float = 60.0  # that a caller may leave a reply unread


class Watch:
    """Ends what has lasted too long, looking about twice a second; one timer for all connections."""

    def __init__(self, *, every: float = 0.4) -> None:
        self._every = every
        self._watched: set[Connection] = set()
        self._looking = False

    def over(self, connection: Connection, loop: asyncio.AbstractEventLoop) -> None:
        """Watch over a connection until nothing of it has a deadline."""
        self._watched.add(connection)
        if not self._looking:
            self._looking = True
            loop.call_later(self._every, self._look, loop)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        now = loop.time()
        self._watched = {connection for connection in self._watched if connection.is_watched(now)}
        self._looking = bool(self._watched)
        if self._looking:
            loop.call_later(self._every, self._look, loop)


class _GatedFlow(FlowControl):
    """Reads no further while the gate is closed, whoever asks for it."""

    def __init__(self, transport: asyncio.Transport, closed: Callable[[], bool]) -> None:
        super().__init__(transport)
        self._closed = closed

    def resume_reading(self) -> None:
        if not self._closed():
            super().resume_reading()


class Connection(HttpToolsProtocol):
    """One connection of a caller."""

    def __init__(self, *, bounds: Bounds, watch: Watch, refused: Callable[[int], None], **of_uvicorn: Any) -> None:
        """Make a connection that ends at `bounds`; `refused` is told the status of what never was a request."""
        super().__init__(**of_uvicorn)
        self._bounds, self._watch, self._refused = bounds, watch, refused
        self._part = "none"  # of the request that is being read: none, head, body
        self._fed = 0  # bytes of this part, without those of the slice in which it began
        self._content = 0  # bytes of the body
        self._progress = False  # whether a whole request was read lately
        self._read_by: float | None = None
        self._written_by: float | None = None
        self._held: list[bytes] = []  # bytes behind the requests that wait
        self._why: LeavenError | None = None  # what a callback of the parser objects to
        self._last_words: bytes | None = None  # what is still to be said; nothing is read any more
        self._ended = False  # the caller sends no more

    # --- what the transport tells ------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take the connection, or refuse it where there are too many."""
        super().connection_made(transport)
        self.flow = _GatedFlow(transport, lambda: bool(self.pipeline or self._held))
        others = len(self.connections) - 1
        if others < self._bounds.connections:
            self._expect(self._bounds.idle_seconds)
        elif others < self._bounds.connections + 256:  # that many are told why
            self._refuse(TooManyConnections(self._bounds.connections))
        else:
            transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget everything."""
        super().connection_lost(exc)
        self._read_by = self._written_by = None
        self._held.clear()

    def data_received(self, data: bytes) -> None:
        """Read on, a slice at a time, as long as nothing is wrong."""
        for start in range(0, len(data), _SLICE):
            if self._last_words is not None or self.transport.is_closing():
                return
            if len(self.pipeline) >= _PIPELINED or self._held:
                self._held.append(data[start:])
                self.flow.pause_reading()
                return
            self._parse(data if len(data) <= _SLICE else data[start : start + _SLICE])

    def eof_received(self) -> bool | None:  # type: ignore[override]
        """Answer what was asked before the caller closed its side."""
        self._ended = True
        under_way = self.cycle is not None and not self.cycle.response_complete
        return (under_way and self._part == "none") or bool(self._held)

    def pause_writing(self) -> None:
        """Give the caller some time to read the reply."""
        super().pause_writing()
        self._written_by = self.loop.time() + self._bounds.write_seconds
        self._watch.over(self, self.loop)

    def resume_writing(self) -> None:
        """Go on."""
        super().resume_writing()
        self._written_by = None

    def is_watched(self, now: float) -> bool:
        """End what is overdue; return whether anything has a deadline still."""
        if self.transport.is_closing():
            return False
        if self._written_by is not None and now >= self._written_by:
            self.transport.abort()
            return False
        if self._read_by is not None and now >= self._read_by:
            self._read_by = None
            if self._part == "head" and self._last_words is None:
                self._refuse(TooSlow("the head of the request", self._bounds.head_seconds))
            elif self._part == "none" and self._last_words is None:
                self.transport.close()
            else:
                self.transport.abort()
        return self._read_by is not None or self._written_by is not None

    # --- what the parser tells ---------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """A request's first byte."""
        super().on_message_begin()
        self._part, self._fed = "head", 0

    def on_headers_complete(self) -> None:
        """A request's head is whole; it is answered from here on."""
        if self._fed + _SLICE > self._bounds.head_bytes or len(self.headers) > self._bounds.headers:
            self._check_head()
        if len(self.url) > self._bounds.url_bytes:
            self._object(UrlTooLong(self._bounds.url_bytes))
        self._part, self._fed, self._content, self._read_by = "body", 0, 0, None
        super().on_headers_complete()
        self.headers = []  # what may come after the body is no header of the request

    def on_body(self, body: bytes) -> None:
        """A piece of a body."""
        self._content += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """A request's last byte."""
        super().on_message_complete()
        self._part, self._progress = "none", True
        if self._read_by is not None:  # it was answered before it was whole
            self._expect(self._bounds.idle_seconds)

    def on_response_complete(self) -> None:
        """A reply has been handed over."""
        if self._last_words is not None and not self.pipeline:
            self._say_last_words()
            return
        super().on_response_complete()
        if self.pipeline or self.transport.is_closing():
            return
        if self._held:
            held, self._held = b"".join(self._held), []
            self.loop.call_soon(self._go_on, held)
        elif self._ended and self.cycle.response_complete:
            self.transport.close()
        elif self._part == "body" and self.cycle.response_complete:
            self._expect(self._bounds.linger_seconds)

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no HTTP, or what a callback objected to."""
        why, self._why = self._why, None
        self._refuse(why or BadRequest("the request", "it cannot be read as HTTP/1.1", "Check the client or proxy."))

    def _unsupported_upgrade_warning(self) -> None:
        """Another protocol was asked for: it is answered in this one, and what follows is not looked at."""
        if self.cycle is not None:
            self.cycle.keep_alive = False

    # --- bounds ------------------------------------------------------------------------------------------------

    def _parse(self, data: bytes) -> None:
        self._progress = False
        self._fed += len(data)
        super().data_received(data)
        if self._part == "head":
            if self._fed > self._bounds.head_bytes:
                long_url = len(self.url) > self._bounds.url_bytes
                self._refuse(UrlTooLong(self._bounds.url_bytes) if long_url else HeadTooLarge(self._bounds.head_bytes))
            else:
                self._expect(self._bounds.head_seconds, unless_sooner=True)
        elif self._part == "body":
            if self._fed > self._bounds.framing_bytes + 2 * self._content:
                self._refuse(BadRequest("the request body", "its chunks are next to empty", "Send larger chunks."))
        elif not self._progress and (self.cycle is None or self.cycle.response_complete):
            self._expect(self._bounds.head_seconds, unless_sooner=True)  # empty lines in front of a request

    def _check_head(self) -> None:
        length = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
        if length > self._bounds.head_bytes or len(self.headers) > self._bounds.headers:
            self._object(HeadTooLarge(self._bounds.head_bytes))

    def _object(self, why: LeavenError) -> None:
        self._why = why
        raise why  # the parser stops, and `send_400_response` is called

    def _expect(self, seconds: float, *, unless_sooner: bool = False) -> None:
        by = self.loop.time() + seconds
        if not unless_sooner or self._read_by is None or by < self._read_by:
            self._read_by = by
            self._watch.over(self, self.loop)

    def _go_on(self, held: bytes) -> None:
        """Read what was held back."""
        if not self.transport.is_closing():
            self.data_received(held)
            self.flow.resume_reading()

    def _refuse(self, why: LeavenError) -> None:
        """Say why, after the replies that are owed, and read no more."""
        if self._last_words is not None:
            return
        self._last_words = _as_reply(why)
        self._refused(status_of(why))
        under_way = self.cycle is not None and not self.cycle.response_complete
        if under_way and self._part == "body":
            if self.pipeline:  # the request waits for others, and will not be asked any more
                self.pipeline.popleft()
                return
            self.cycle.disconnected = True
            self.cycle.message_event.set()
            if self.cycle.response_started:
                self._last_words = b""
        elif under_way:
            return
        self._say_last_words()

    def _say_last_words(self) -> None:
        if self.transport.is_closing():
            return
        self._unset_keepalive_if_required()
        self.transport.write(cast(bytes, self._last_words))
        if self._ended:
            self.transport.close()
            return
        if self.transport.can_write_eof():  # not where it speaks TLS
            self.transport.write_eof()
        FlowControl.resume_reading(self.flow)  # past the gate
        self._expect(self._bounds.linger_seconds)


def _as_reply(why: LeavenError) -> bytes:
    answer = refusal(why)
    lines = [b"HTTP/1.1 %d %s" % (answer.status, HTTPStatus(answer.status).phrase.encode())]
    lines += [b"%s: %s" % header for header in answer.headers]
    lines += [b"content-length: %d" % len(answer.body), b"connection: close", b"", answer.body]
    return b"\r\n".join(lines)
