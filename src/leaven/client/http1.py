"""How is a request written as bytes, and a reply read from them?

Bytes in, values out: both shells use this, one on a socket, one on an asyncio transport, and so does the gateway where
it asks a server elsewhere. The reading is llhttp's, the
parser of Node.js, as `httptools` brings it; it refuses what would make two readers disagree about where a reply ends.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import httptools


@dataclass(frozen=True, slots=True)
class Request:
    """One request; every one that the client makes may be sent twice without being counted twice."""

    method: str
    path: str
    body: bytes
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole reply; header names are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes
    reusable: bool = True  # the connection can carry the next request


class Broken(Exception):  # a fact between the shell and the core, which turns it into an error for the caller
    """A request got no whole reply: the connection could not be made, or ended, or time was up.

    `stale`: the connection had been kept alive and the server had closed it before it read this request.
    """

    def __init__(self, why: str, *, stale: bool = False) -> None:
        super().__init__(why)
        self.why, self.stale = why, stale


def to_bytes(request: Request, *, host: str, prefix: str, common: Iterable[tuple[str, str]]) -> bytes:
    """Return `request` as it goes to `host`: `prefix` before its path, headers `common` to all requests."""
    lines = [f"{request.method} {prefix}{request.path} HTTP/1.1", f"host: {host}"]
    lines += [f"{name}: {value}" for name, value in (*common, *request.headers)]
    lines.append(f"content-length: {len(request.body)}")
    return "\r\n".join(lines).encode("ascii") + b"\r\n\r\n" + request.body


@dataclass(slots=True)
class ReplyReader:
    """Puts one reply together from the bytes that arrive, in whatever pieces, but no more of them than `limit`."""

    limit: int | None = None
    reply: Reply | None = None  # once it is whole
    touched: bool = False  # whether anything has arrived
    _headers: dict[str, str] = field(default_factory=dict)
    _body: list[bytes] = field(default_factory=list)
    _framed: bool = False  # it says where it ends
    _begun: bool = False  # all headers of a final reply are there
    _surplus: bool = False  # more came than was asked for
    _status: int = 0
    _length: int = 0  # bytes that arrived
    _parser: httptools.HttpResponseParser | None = None  # none once the reply is whole

    def __post_init__(self) -> None:
        """Begin to read."""
        self._parser = httptools.HttpResponseParser(self)

    def feed(self, data: bytes) -> None:
        """Take the next bytes.

        Raises:
            Broken: they are no HTTP, or too many.
        """
        self.touched = True
        self._length += len(data)
        if self.limit is not None and self._length > self.limit:
            raise Broken(f"more than {self.limit} bytes came back")
        if self._parser is None:
            self._surplus = True
        else:
            self._parse(self._parser, data)
        if self.reply is not None:
            self._parser = None  # they refer to each other; nobody should have to look for the cycle
            if self._surplus:
                self.reply = replace(self.reply, reusable=False)

    def end(self) -> None:
        """The server has closed its side.

        Raises:
            Broken: the reply is not whole.
        """
        if self.reply is None and self._begun and not self._framed:
            self.reply = self._whole(reusable=False)
        if self.reply is None:
            raise Broken("the connection ended before the reply did")

    def _parse(self, parser: httptools.HttpResponseParser, data: bytes) -> None:
        try:
            parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            if self.reply is None:
                raise Broken(f"what came back is no HTTP: {error}") from None
            self._surplus = True

    # What the parser calls.

    def on_message_begin(self) -> None:
        """Note a second reply, which nobody asked for."""
        self._surplus = self.reply is not None

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
