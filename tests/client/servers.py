"""A small real HTTP server that misbehaves as it is told to, and a client of either kind that a test can call."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import uvloop

from leaven.client import AsyncClient, Client

Kinds = ("sync", "async", "uvloop")


@dataclass
class Got:
    """One request as it arrived."""

    line: str
    headers: dict[str, str]
    body: bytes
    connection: int  # the first is 0
    nth: int  # of all requests, the first is 0

    @property
    def json(self) -> Any:
        return json.loads(self.body)


Behave = Callable[[socket.socket, Got], bool | None]  # False: leave the connection and wait for no more requests


@dataclass
class Server:
    """What arrived, and where it listens."""

    url: str
    got: list[Got] = field(default_factory=list)
    connections: int = 0
    done: int = 0  # requests that nothing more comes of: answered, and closed where that was the answer


@contextmanager
def server(behave: Behave, *, tls: ssl.SSLContext | None = None) -> Iterator[Server]:
    """Serve on 127.0.0.1; `behave` answers each request on its connection."""
    listening = socket.create_server(("127.0.0.1", 0))
    made = Server(
        f"{'https' if tls else 'http'}://localhost:{listening.getsockname()[1]}".replace("localhost", "127.0.0.1")
    )
    lock, open_ones, threads = threading.Lock(), [], []

    def talk(stream: socket.socket, number: int) -> None:
        with suppress(OSError):
            stream = tls.wrap_socket(stream, server_side=True) if tls else stream
            file = stream.makefile("rb")
            while (line := file.readline()).strip():
                headers = {}
                while header := file.readline().strip():
                    name, _, value = header.decode("latin-1").partition(": ")
                    headers[name.lower()] = value
                body = file.read(int(headers.get("content-length", 0)))
                with lock:
                    got = Got(line.decode().strip(), headers, body, number, len(made.got))
                    made.got.append(got)
                if behave(stream, got) is False:
                    break
                made.done += 1
            file.close()
        with suppress(OSError):
            stream.close()
        made.done = len(made.got)

    def accept() -> None:
        with suppress(OSError):
            while True:
                stream, _ = listening.accept()
                open_ones.append(stream)
                threads.append(threading.Thread(target=talk, args=(stream, made.connections)))
                made.connections += 1
                threads[-1].start()

    accepting = threading.Thread(target=accept)
    accepting.start()
    try:
        yield made
    finally:
        listening.shutdown(socket.SHUT_RDWR)
        listening.close()
        accepting.join()
        for stream in open_ones:
            with suppress(OSError):
                stream.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join()
        for stream in open_ones:
            stream.close()


def reset(stream: socket.socket) -> None:
    """Close it so that the other side's next word fails."""
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    stream.close()


def reply(status: int, body: Any, **headers: str) -> bytes:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [f"HTTP/1.1 {status} Whatever", f"content-length: {len(content)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + content


def done(got: Got) -> bytes:
    """What a gateway that is well would say."""
    if "/predict " in got.line:
        one = {"answer": 0.25, "version": "3", "arm": "champion", "propensity": 1.0}
        return reply(
            200, {"model": "m", "predictions": [one | {"prediction_id": f"p{i}"} for i in range(len(got.json["rows"]))]}
        )
    if "/v1/assign " in got.line:
        return reply(200, got.json | {"arm": "canary", "version": "4", "propensity": 0.5, "revision": 7})
    return reply(200, {"accepted": len(got.json["feedback"]), "ids": [each["id"] for each in got.json["feedback"]]})


def well(stream: socket.socket, got: Got) -> None:
    stream.sendall(done(got))


class Waiting:
    """An asynchronous client, each call of which is waited for."""

    def __init__(self, kind: str, *given: Any, **options: Any) -> None:
        self._client = AsyncClient(*given, **options)  # no loop runs yet
        self._runner = asyncio.Runner(loop_factory=uvloop.new_event_loop if kind == "uvloop" else None)

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._client, name)
        return (lambda *given, **named: self._runner.run(found(*given, **named))) if callable(found) else found

    def __enter__(self) -> Waiting:
        return self

    def __exit__(self, *_: object) -> None:
        self._runner.run(self._client.close())
        self._runner.close()


def client(kind: str, *given: Any, **options: Any) -> Any:
    """A client of this kind, to be used in a `with` block."""
    return Client(*given, **options) if kind == "sync" else Waiting(kind, *given, **options)


def rest(asked: Any, *, here: Server | None = None, seconds: float = 0.02) -> None:
    """Let time pass for the client too: an event loop that does not run sees nothing.

    With `here`, once that server has done with all that it got.
    """
    end = time.monotonic() + 60
    while here is not None and here.done < len(here.got):
        assert time.monotonic() < end
        time.sleep(0.005)
    asked._runner.run(asyncio.sleep(seconds)) if isinstance(asked, Waiting) else time.sleep(seconds)


def no_sleep(kind: str, slept: list[float]) -> Any:
    """A sleep for this kind of client that only writes down how long it was to be."""

    async def later(seconds: float) -> None:
        slept.append(seconds)

    return slept.append if kind == "sync" else later
