"""How many requests does a server answer per second of its processor time?

Processor time is that of the whole tree of processes. Requests per second depend on what else the machine does;
requests per CPU second hardly, and the ratio of two servers that are asked in turn least of all.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle

import psutil


@dataclass(frozen=True, slots=True)
class Server:
    """Something that answers `POST path` with 200: where it listens, and the process that its tree begins with."""

    port: int
    pid: int
    path: str
    bodies: Sequence[bytes]  # asked one after another


def cpu_seconds(pid: int) -> float:
    """User and system time of a process and all that came of it and is alive."""
    first = psutil.Process(pid)
    return sum(sum(each.cpu_times()[:2]) for each in (first, *first.children(recursive=True)))


def measure(server: Server, seconds: float, connections: int) -> dict[str, float]:
    """Requests per second and per CPU second, and how long they took, over `connections` that never pause."""
    asyncio.run(ask(server, min(0.5, seconds), connections))
    before, began = cpu_seconds(server.pid), time.perf_counter()
    waits = asyncio.run(ask(server, seconds, connections))
    took, spent = time.perf_counter() - began, cpu_seconds(server.pid) - before
    waits.sort()
    return {
        "requests": len(waits),
        "per_second": round(len(waits) / took, 1),
        "per_cpu_second": round(len(waits) / spent, 1),
        "p50_ms": round(1000 * waits[len(waits) // 2], 2),
        "p99_ms": round(1000 * waits[len(waits) * 99 // 100], 2),
    }


async def ask(server: Server, seconds: float, connections: int, *, most: float = float("inf")) -> list[float]:
    """Ask over some connections without a pause; the seconds each request took.

    Args:
        server: Whom to ask.
        seconds: After which no more is sent.
        connections: How many ask at once.
        most: Requests after which no more is sent, roughly.
    """
    head = f"POST {server.path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    sent = cycle([f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body for body in server.bodies])
    waits, end = list[float](), time.perf_counter() + seconds

    async def call() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        while True:  # at least once, so that a caller may ask whether anybody answers
            began = time.perf_counter()
            writer.write(next(sent))
            reply = await reader.readuntil(b"\r\n\r\n")
            length = int(reply.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
            body = await reader.readexactly(length)
            assert reply.startswith(b"HTTP/1.1 200"), reply + body
            waits.append(time.perf_counter() - began)
            if time.perf_counter() >= end or len(waits) >= most:
                break
        writer.close()

    await asyncio.gather(*(call() for _ in range(connections)))
    return waits


def wait_for(server: Server, seconds: float = 120.0) -> None:
    """Wait until a server answers."""
    end = time.monotonic() + seconds
    while True:
        try:
            asyncio.run(asyncio.wait_for(ask(server, 0.0, 1), 20))
            return
        except (OSError, AssertionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            if time.monotonic() > end:
                raise
            time.sleep(0.1)
