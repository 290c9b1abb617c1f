"""How does a request's body come in whole, and in which form does a reply go out?"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from urllib.parse import quote

import msgspec

from leaven.errors import LeavenError
from leaven.events.records import PredictionServed
from leaven.gateway import protocol
from leaven.gateway.refusals import (
    ModelFailed,
    NoToken,
    NotPermitted,
    Overloaded,
    TooLarge,
    TooSlow,
    WrongMethod,
    status_of,
)

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

JSON = (b"content-type", b"application/json")
BINARY = (b"content-type", b"application/octet-stream")
_RETRY = (b"retry-after", b"1")
_encode = msgspec.json.Encoder().encode


_SMALL = 64 * 1024  # bytes of a body that takes no room worth counting, and is unpacked at once


class Room:
    """The memory that the bodies of all requests may take together while they arrive."""

    def __init__(self, size: int = 256 * 2**20) -> None:
        self.left = size

    def take(self, size: int) -> None:
        """Take so many bytes of it, to be given back.

        Raises:
            Overloaded: they are not free.
        """
        if size > self.left:
            raise Overloaded("the bodies of other requests take all the room for them")
        self.left -= size

    def give(self, size: int) -> None:
        """Give back what was taken."""
        self.left += size


@dataclass(frozen=True, slots=True)
class Limits:
    """Where the gateway stops taking more, each bounding what a request can cost everybody else."""

    body: int = 64 * 2**20  # bytes of an inference request, packed and unpacked
    feedback_body: int = 8 * 2**20  # bytes
    body_seconds: float = 30.0  # from the head of a request to the end of its body
    under_way: int = 1024  # requests at once
    durable_seconds: float = 10.0  # for the disk to confirm
    room: Room = field(default_factory=Room)  # for bodies that arrive


@dataclass(frozen=True, slots=True)
class Answer:
    """A reply, and what is to be done once it has been sent."""

    status: int
    body: bytes
    headers: Headers
    then: Callable[[], None] | None = None
    records: Sequence[PredictionServed] = ()  # what was written down of the request, for the log of requests


class Disconnected(Exception):  # not a refusal: nobody is there to read one
    """The caller went away before the request was complete."""


def json_answer(status: int, facts: object) -> Answer:
    """Return `facts` as a reply."""
    return Answer(status, _encode(facts), [JSON])


def refusal(error: LeavenError) -> Answer:
    """Return the reply to a request that is refused."""
    status = status_of(error)
    headers: Headers = [JSON]
    if status in (429, 503):
        headers.append(_RETRY)
    if isinstance(error, WrongMethod):
        headers.append((b"allow", error.allowed.encode()))
    if isinstance(error, NoToken | NotPermitted):
        headers.append((b"www-authenticate", error.challenge.encode()))
    records = error.records if isinstance(error, ModelFailed) else ()
    return Answer(status, _encode({"error": str(error)}), headers, records=records)


def allow(scope: Scope, method: str) -> None:
    """Refuse a request of another method; HEAD goes where GET does, and the server leaves the body away.

    Raises:
        WrongMethod: naming the one that is taken.
    """
    if scope["method"] != method and not (method == "GET" and scope["method"] == "HEAD"):
        raise WrongMethod(scope["method"], method)


def as_header(text: str) -> bytes:
    """Return a text as a header can carry it: printable ASCII as it is, the rest percent-encoded."""
    return text.encode() if text.isascii() and text.isprintable() else quote(text).encode()


def header_text(raw: bytes) -> str:
    """Return what a header says: UTF-8 where it is, else what HTTP itself takes header bytes for."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw.decode("latin-1")


async def read_body(
    headers: Mapping[bytes, bytes], receive: Receive, limit: int, *, seconds: float, room: Room | None = None
) -> bytes:
    """Return the request's body, unpacked; it is never longer than `limit` in memory, packed or not.

    Raises:
        TooLarge: it is longer.
        TooSlow: it is not there after `seconds`.
        Overloaded: there is no `room` for it beside others.
        Disconnected: the caller went away.
    """
    said = headers.get(b"content-length", b"0")
    if said.isdigit() and int(said[:20]) > limit:
        raise TooLarge("the request body", limit)
    try:
        async with asyncio.timeout(seconds):
            body = await _received(receive, limit, room)
    except TimeoutError:
        raise TooSlow("the request body", seconds) from None
    encoding = headers.get(b"content-encoding")
    if encoding is None or encoding == b"identity":
        return body
    unpack = partial(protocol.inflate, body, encoding.decode("latin-1").strip().lower(), limit=limit)
    if len(body) <= _SMALL // 4:
        return unpack()
    size = min(limit, len(body) * 1032) if room is not None else 0  # zlib packs no better than that
    if room is not None:
        room.take(size)
    try:
        return await asyncio.get_running_loop().run_in_executor(None, unpack)  # others are answered meanwhile
    finally:
        if room is not None:
            room.give(size)


async def _received(receive: Receive, limit: int, room: Room | None) -> bytes:
    """The body as it was sent."""
    message = await receive()
    body: bytes = message.get("body", b"")
    if message.get("more_body"):
        parts, length, taken = [body], len(body), 0
        try:
            while message.get("more_body"):
                message = await receive()
                parts.append(message.get("body", b""))
                length += len(parts[-1])
                if length > limit:
                    raise TooLarge("the request body", limit)
                if room is not None and length - taken > _SMALL:
                    room.take(length - taken)
                    taken = length
            body = b"".join(parts)
        finally:
            if room is not None:
                room.give(taken)
    if message["type"] == "http.disconnect":
        raise Disconnected
    if len(body) > limit:
        raise TooLarge("the request body", limit)
    return body
