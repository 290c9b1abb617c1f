"""Do callers notice that versions come and go?

    python -m benchmarks.swaps [--swaps 10] [--workers 2] [--rate 100]

A gateway is asked at a steady rate, first for a while in calm, then while fresh versions are each made a canary,
promoted and rolled back. Every request is sent at its moment, whether those before it were answered or not, so a pause
shows in every request that fell into it. The figure is the ratio of the 99th percentiles, swapping to calm.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
import threading
import time
from itertools import cycle
from pathlib import Path
from typing import Any

from benchmarks.installation import gateway, installation, open_inference_requests
from benchmarks.load import Server


def main() -> None:
    """Measure, and print one JSON value."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--swaps", type=int, default=10)
    options.add_argument("--workers", type=int, default=2)
    options.add_argument("--rate", type=float, default=100.0, help="requests per second")
    given = options.parse_args()
    with (
        tempfile.TemporaryDirectory() as folder,
        installation(Path(folder), canary=0) as made,
        gateway(made, "trees", workers=given.workers) as server,
    ):
        swaps = Swaps(made.home)
        paced(server, given.rate, until=after(2.0))
        calm = paced(server, given.rate, until=after(max(10.0, 1000 / given.rate)))
        swapping = threading.Thread(target=swaps.run, args=(given.swaps,))
        swapping.start()
        busy = paced(server, given.rate, until=lambda: not swapping.is_alive())
        swapping.join()
    said = {"calm": described(calm), "swapping": described(busy), "swaps": given.swaps,
            "seconds_to_roll_back": described_rollbacks(swaps.rollbacks)}  # fmt: skip
    said["p99_ratio"] = round(said["swapping"]["p99_ms"] / said["calm"]["p99_ms"], 2)
    print(json.dumps(said, indent=2))


class Swaps:
    """Publishes routing tables with fresh versions, and waits until every worker runs them."""

    def __init__(self, home: Path) -> None:
        from leaven.settings import settings_from
        from leaven.storage.control.database import ControlDatabase

        self.settings = settings_from({}, home=home)
        self.database = ControlDatabase(self.settings.database)
        self.rollbacks: list[float] = []

    def run(self, count: int) -> None:
        from leaven.registry.routing import latest

        with self.database.read() as connection:
            table = latest(connection, "trees")
        assert table is not None
        old = (table.champion.version, table.champion.artifact)
        for number in range(count):
            fresh = (f"fresh-{number}", self._refitted(number))
            self._publish(champion=old, canary=fresh)
            self._publish(champion=fresh, standby=old)
            time.sleep(0.5)
            began = time.perf_counter()
            self._publish(champion=old, standby=fresh)
            self.rollbacks.append(time.perf_counter() - began)
            time.sleep(0.5)

    def _refitted(self, number: int) -> str:
        """The artifact of the champion under another name: other bytes, so that it is loaded anew."""
        from leaven.learners.artifact import ModelArtifact
        from leaven.registry.artifacts import ArtifactStore
        from leaven.registry.routing import latest

        store = ArtifactStore(self.settings.artifacts)
        with self.database.read() as connection:
            table = latest(connection, "trees")
        assert table is not None
        made = ModelArtifact.from_files(store.get(table.champion.artifact))
        return store.put(ModelArtifact(made.format, made.encoder, f"fresh {number}", made.files).to_files())

    def _publish(self, *, champion: Any, canary: Any = None, standby: Any = None) -> None:
        from leaven.experiments.routing import RoutingTable, Standby, arms_for
        from leaven.registry.routing import gateways, latest, publish

        with self.database.write() as connection:
            last = latest(connection, "trees")
            assert last is not None
            arms = arms_for(champion, canary, share=0.3)
            table = RoutingTable("trees", last.revision + 1, 0, last.schema, "salt", arms,
                                 standby=(Standby(*standby),) if standby else ())  # fmt: skip
            publish(connection, table)
        while True:
            with self.database.read() as connection:
                running = [each.revisions.get("trees") for each in gateways(connection)]
            if running and all(revision == table.revision for revision in running):
                return
            time.sleep(0.01)


def after(seconds: float) -> Any:
    end = time.perf_counter() + seconds
    return lambda: time.perf_counter() >= end


def paced(server: Server, rate: float, *, until: Any) -> list[float]:
    """Ask at a steady rate over connections that are kept; seconds from the moment a request was due to its reply."""
    head = f"POST {server.path} HTTP/1.1\r\nHost: x\r\n"
    sent = cycle([f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body for body in open_inference_requests()])
    waits: list[float] = []

    async def call(due: float, free: asyncio.Queue[Any]) -> None:
        streams = await free.get() if not free.empty() else await asyncio.open_connection("127.0.0.1", server.port)
        reader, writer = streams
        writer.write(next(sent))
        reply = await reader.readuntil(b"\r\n\r\n")
        body = await reader.readexactly(int(reply.lower().split(b"content-length: ")[1].split(b"\r\n")[0]))
        assert reply.startswith(b"HTTP/1.1 200"), reply + body
        waits.append(time.perf_counter() - due)
        free.put_nowait(streams)

    async def run() -> None:
        free: asyncio.Queue[Any] = asyncio.Queue()
        calls, due = set[asyncio.Task[None]](), time.perf_counter()
        while not until():
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            calls.add(asyncio.create_task(call(due, free)))
            due += 1 / rate
        await asyncio.gather(*calls)
        while not free.empty():
            free.get_nowait()[1].close()

    asyncio.run(run())
    return waits


def described(waits: list[float]) -> dict[str, float]:
    ordered = sorted(waits)
    return {"requests": len(ordered), **{f"p{share}_ms": round(1000 * ordered[len(ordered) * share // 100], 2)
                                         for share in (50, 95, 99)}}  # fmt: skip


def described_rollbacks(seconds: list[float]) -> dict[str, float]:
    return {"median": round(sorted(seconds)[len(seconds) // 2], 3), "longest": round(max(seconds), 3)}


if __name__ == "__main__":
    main()
