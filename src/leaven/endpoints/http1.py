"""How is a request written as bytes, and a reply of bounded size read from them?

Bytes in, values out. The reading is llhttp's, the parser of Node.js, as `httptools` brings it: it refuses what would
make two readers disagree about where a reply ends.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import httptools

from leaven.endpoints.failures import EndpointFailed

HEAD_LIMIT = 64 * 1024  # bytes of a reply beside its body


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole reply; header names are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes
    reusable: bool  # the connection can carry the next request


def to_bytes(method: str, path: str, body: bytes, headers: Iterable[tuple[str, str]]) -> bytes:
    """Return a request as it goes over the wire; `headers` hold `host`."""
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers)]
    lines.append(f"content-length: {len(body)}\r\n\r\n")
    return "\r\n".join(lines).encode("latin-1") + body


@dataclass(slots=True)
class ReplyReader:
    """Puts one reply together from the bytes that arrive, in whatever pieces."""

    limit: int  # bytes of the body
    reply: Reply | None = None  # once it is whole
    touched: bool = False  # whether anything has arrived
    _headers: dict[str, str] = field(default_factory=dict)
    _body: list[bytes] = field(default_factory=list)
    _length: int = 0  # of all that arrived
    _framed: bool = False  # it says where it ends
    _begun: bool = False  # all headers of a final reply are there
    _status: int = 0
    _parser: httptools.HttpResponseParser | None = None  # none once the reply is whole

    def __post_init__(self) -> None:
        """Begin to read."""
        self._parser = httptools.HttpResponseParser(self)

    def feed(self, data: bytes) -> None:
        """Take the next bytes.

        Raises:
            EndpointFailed: they are no HTTP, or too many.
        """
        self.touched = True
        self._length += len(data)
        if self._length > self.limit + HEAD_LIMIT:
            raise EndpointFailed("no answer", f"sent more than {self.limit} bytes")
        if self._parser is None:  # more than was asked for: nobody knows what the next reply would answer
            self._spoil()
            return
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            if self.reply is None:
                raise EndpointFailed("no answer", f"sent what is no HTTP: {error}"[:200]) from None
            self._spoil()
        if self.reply is not None:
            self._parser = None  # they refer to each other; nobody should have to look for the cycle

    def end(self) -> None:
        """The server has closed its side.

        Raises:
            EndpointFailed: the reply is not whole.
        """
        if self.reply is None and self._begun and not self._framed:
            self.reply = self._whole(reusable=False)
        if self.reply is None:
            raise EndpointFailed("broken off", "closed the connection before its reply was whole")

    def _spoil(self) -> None:
        if self.reply is not None:
            self.reply = Reply(self.reply.status, self.reply.headers, self.reply.body, reusable=False)

    # What the parser calls.

    def on_message_begin(self) -> None:
        """Note a second reply, which nobody asked for."""
        self._spoil()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header; of several with one name, the last."""
        lower = name.decode("latin-1").lower()
        self._headers[lower] = value.decode("latin-1")
        self._framed = self._framed or lower in ("content-length", "transfer-encoding")

    def on_headers_complete(self) -> None:
        """Know the status."""
        if self.reply is None and self._parser is not None:
            self._status = self._parser.get_status_code()
            self._begun = self._status >= 200

    def on_body(self, data: bytes) -> None:
        """Keep a piece of the body."""
        if self.reply is None:
            self._body.append(data)

    def on_message_complete(self) -> None:
        """Have the reply, unless it was one like `100 Continue`, after which another comes."""
        if self.reply is not None or self._parser is None:
            return
        if self._begun:
            self.reply = self._whole(reusable=self._parser.should_keep_alive())
        else:
            self._headers, self._body, self._framed = {}, [], False

    def _whole(self, *, reusable: bool) -> Reply:
        return Reply(self._status, self._headers, b"".join(self._body), reusable)
