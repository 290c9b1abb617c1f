"""Real servers that behave as told: a handler per connection, on a thread with an event loop of its own."""

from __future__ import annotations

import asyncio
import json
import ssl
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from leaven.endpoints.description import Endpoint
from leaven.endpoints.oip import Column, OipMapping

Reader, Writer = asyncio.StreamReader, asyncio.StreamWriter


@dataclass(frozen=True)
class Asked:
    """One request as it came in."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        length = self.headers.get("inference-header-content-length")
        return json.loads(self.body if length is None else self.body[: int(length)])

    @property
    def rows(self) -> int:
        return int(self.json["inputs"][0]["shape"][0])


Reply = bytes | None  # None: the connection is closed at once
Answer = Callable[[Asked, Writer], Awaitable[Reply]]


@dataclass
class Server:
    """A server, what it counted, and what it does; `answer` may be exchanged while it runs."""

    answer: Answer
    port: int = 0
    asked: list[Asked] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def serve(self, reader: Reader, writer: Writer) -> None:
        self.counts["connections"] += 1
        try:
            with suppress(OSError, asyncio.IncompleteReadError):
                while (asked := await read_request(reader)) is not None:
                    self.asked.append(asked)
                    reply = await self.answer(asked, writer)
                    if reply is None:
                        break
                    writer.write(reply)
                    await writer.drain()
        finally:
            writer.transport.abort()


@contextmanager
def serving(answer: Answer, *, tls: ssl.SSLContext | None = None, port: int = 0) -> Iterator[Server]:
    """Serve on 127.0.0.1 until the block ends."""
    server, started = Server(answer), threading.Event()
    loop = asyncio.new_event_loop()
    end = asyncio.Event()

    async def run() -> None:
        listening = await asyncio.start_server(server.serve, "127.0.0.1", port, ssl=tls)
        server.port = listening.sockets[0].getsockname()[1]
        started.set()
        await end.wait()
        listening.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await asyncio.sleep(0.01)  # for the connections to be closed

    thread = threading.Thread(target=lambda: loop.run_until_complete(run()))
    thread.start()
    assert started.wait(60)
    try:
        yield server
    finally:
        loop.call_soon_threadsafe(end.set)
        thread.join()
        loop.close()


async def read_request(reader: Reader) -> Asked | None:
    """One request, or None where the caller is gone."""
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    except asyncio.IncompleteReadError:
        return None
    first, *lines = head.strip().split("\r\n")
    method, path, _ = first.split(" ")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    return Asked(method, path, headers, body)


def http(body: bytes | str, status: str = "200 OK", **headers: str) -> bytes:
    """A whole reply."""
    content = body.encode() if isinstance(body, str) else body
    lines = [f"HTTP/1.1 {status}", f"content-length: {len(content)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + content


def outputs(data: list[Any], *, shape: list[int] | None = None, datatype: str = "FP64", name: str = "answer") -> str:
    """The body of a reply of the protocol, with one output."""
    output = {"name": name, "shape": shape or [len(data)], "datatype": datatype, "data": data}
    return json.dumps({"model_name": "m", "outputs": [output]})


async def doubles(asked: Asked, writer: Writer) -> Reply:
    """Answers 2 x, in JSON."""
    return http(outputs([2 * x for x in asked.json["inputs"][0]["data"]]))


def says(reply: Reply) -> Answer:
    """Answers the same, always."""

    async def answer(asked: Asked, writer: Writer) -> Reply:
        return reply

    return answer


def an_endpoint(url: str, **changes: Any) -> Endpoint:
    """An endpoint that takes one feature, x."""
    return Endpoint(**{"url": url, "mapping": x_mapping(), "timeout": 1.0} | changes)


def x_mapping(**changes: Any) -> OipMapping:
    return OipMapping(**{"model": "m", "columns": (Column("x", "x", "FP64"),)} | changes)
