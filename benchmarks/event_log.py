"""What does keeping an event cost, beside writing the same bytes?

    python -m benchmarks.event_log [--events 20000] [--clients 64] [--rounds 3] [--seconds 4] [--json]

In a process: events go through the log, acknowledged or not, and in one batch through the flusher into the lake. Floor:
the same frames, encoded beforehand, written and `fdatasync`ed in groups as large as the log made. Log and floor run in
turns; CPU time is that of the whole process (all threads).

Over HTTP: so many connections report one event each, over and over, to a gateway as it is run; CPU time is that of its
tree of processes.

Compare the ratios: absolute times are this machine's, today.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import uvloop

from benchmarks.installation import gateway, installation
from benchmarks.load import Server, measure
from leaven.clock import SystemClock
from leaven.events.records import Event, FeedbackReceived, PredictionServed
from leaven.gateway.acknowledging import Acknowledging
from leaven.storage.flusher import Flusher
from leaven.storage.frames import encode_frame
from leaven.storage.lake import Lake
from leaven.storage.wal import WriteAheadLog


def a_prediction(number: int, at: int) -> PredictionServed:
    """An event as a gateway logs it: twelve features."""
    features = {f"x{i}": number / (i + 1) for i in range(8)} | {"a": "UA", "b": "JFK", "c": number % 24, "d": True}
    return PredictionServed(
        "flights", f"{number:032x}", at, f"unit-{number % 999}", "live", "champion", "7", 1.0, 0.25, 0.0004, 3, None,
        features,
    )  # fmt: skip


def a_label(number: int, at: int) -> FeedbackReceived:
    """An event as a gateway logs it: one outcome."""
    return FeedbackReceived(
        "flights", f"{number:032x}", "arr_delay", at, at, "label", f"{number:032x}", None, 12.5, "airport"
    )


async def acknowledged(log: WriteAheadLog, events: list[Event], clients: int) -> None:
    """Send events from so many clients, each waiting for its acknowledgement, as the gateway does."""
    waiting, acknowledging = iter(events), Acknowledging(log, seconds=60)

    async def client() -> None:
        for event in waiting:
            await acknowledging.keep([event])

    await asyncio.gather(*(client() for _ in range(clients)))


def appended(log: WriteAheadLog, events: list[Event]) -> None:
    """Log events that nobody waits for, as fast as they are taken."""
    for event in events:
        while not log.append(event):
            time.sleep(0.001)


def floor(folder: Path, frames: list[bytes], group: int) -> None:
    """Write and sync frames in groups."""
    handle = os.open(folder / "floor", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for start in range(0, len(frames), group):
        os.write(handle, b"".join(frames[start : start + group]))
        os.fdatasync(handle)
    os.close(handle)


def microseconds(work: Callable[[], object], events: int) -> tuple[float, float]:
    """CPU and wall time of `work` per event."""
    cpu, wall = time.process_time(), time.perf_counter()
    work()
    return (time.process_time() - cpu) / events * 1e6, (time.perf_counter() - wall) / events * 1e6


def one_round(folder: Path, count: int, clients: int) -> dict[str, float]:
    """Feedback and predictions through log and flusher, each beside its floor."""
    now = time.time_ns() // 1000
    out: dict[str, float] = {}
    for name, make in (("feedback", a_label), ("prediction", a_prediction)):
        events: list[Event] = [make(i, now + i) for i in range(count)]
        frames = [encode_frame(event) for event in events]
        log = WriteAheadLog(folder / name, clock=SystemClock(), seal_seconds=60)

        def through_the_log(
            events: list[Event] = events, log: WriteAheadLog = log, waits: bool = name == "feedback"
        ) -> None:
            uvloop.run(acknowledged(log, events, clients)) if waits else appended(log, events)
            log.close()

        out[f"{name}_cpu_us"], out[f"{name}_wall_us"] = microseconds(through_the_log, count)
        counts = log.counters()
        assert counts["feedback"] + counts["predictions"] == count
        out[f"{name}_events_per_group"] = group = round(count / counts["groups"])
        flusher = Flusher(folder / name, Lake(str(folder / "lake")))
        out[f"{name}_flush_cpu_us"], _ = microseconds(flusher.flush_once, count)
        out[f"{name}_floor_cpu_us"], out[f"{name}_floor_wall_us"] = microseconds(
            lambda frames=frames, group=group: floor(folder, frames, group),  # type: ignore[misc]
            count,
        )
        out[f"{name}_bytes"] = sum(map(len, frames)) / count
    return out


def over_http(folder: Path, clients: int, seconds: float) -> dict[str, float]:
    """Feedback to a running gateway, one report a request."""
    body = msgspec.json.encode(
        {"loop": "trees", "name": "late", "unit": "N1", "value": 12.5, "source": "airport"}
    )  # fmt: skip
    with installation(folder, canary=0.0, rounds=1) as made, gateway(made, "trees") as predicting:
        server = Server(predicting.port, predicting.pid, "/v1/feedback", [body])
        found = measure(server, seconds, clients)
    return {f"http_{name}": figure for name, figure in found.items() if name != "requests"}


def main() -> None:
    """Run the rounds and print the medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=20_000)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each measurement over HTTP")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    rounds = []
    for warm_up in (True, *(False,) * given.rounds):
        folder = Path(tempfile.mkdtemp(dir=".")).absolute()  # on the disk that is meant, not in memory
        try:
            measured = one_round(folder, 500 if warm_up else given.events, given.clients)
            if not warm_up:
                measured |= over_http(folder / "http", given.clients, given.seconds)
        finally:
            shutil.rmtree(folder)
        rounds += [] if warm_up else [measured]
    result = {name: statistics.median(each[name] for each in rounds) for name in rounds[0]}
    for name in ("feedback", "prediction"):
        total = result[f"{name}_cpu_us"] + result[f"{name}_flush_cpu_us"]
        result[f"{name}_cpu_over_floor"] = total / result[f"{name}_floor_cpu_us"]
    if given.json:
        print(json.dumps({"events": given.events, "clients": given.clients, **result}))
        return
    print(f"{given.events:,} events, {given.clients} clients, median of {given.rounds} rounds; microseconds per event")
    for name, how in (("feedback", "acknowledged"), ("prediction", "not waited for")):
        print(
            f"{name:10} ({how}): CPU log {result[f'{name}_cpu_us']:.1f} + flush {result[f'{name}_flush_cpu_us']:.1f}, "
            f"floor {result[f'{name}_floor_cpu_us']:.2f}: {result[f'{name}_cpu_over_floor']:.0f} x; "
            f"wall {result[f'{name}_wall_us']:.1f}, floor {result[f'{name}_floor_wall_us']:.1f}; "
            f"{result[f'{name}_bytes']:.0f} bytes, {result[f'{name}_events_per_group']:.0f} events a sync"
        )
    print(
        f"over HTTP, {given.clients} connections, one report a request: {result['http_per_second']:,.0f} reports/s, "
        f"{result['http_per_cpu_second']:,.0f} per CPU second, p50 {result['http_p50_ms']:.1f} ms, "
        f"p99 {result['http_p99_ms']:.1f} ms"
    )


if __name__ == "__main__":
    main()
