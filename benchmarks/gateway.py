"""What does a prediction through the gateway cost, measured against a bare ASGI application with the same model?

    python -m benchmarks.gateway [--seconds 4] [--rounds 3] [--connections 16]

Both serve the same gradient-boosted model under uvicorn with uvloop, one process each, to the same caller with the same
JSON, in alternating rounds. The bare one reads the request with msgspec, predicts, and writes the reply: nothing is
checked, assigned or logged. The figure is requests per second of the server's CPU time; only the ratio travels from one
machine to another.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import psutil

REQUEST = {
    "inputs": [
        {"name": "carrier", "shape": [1], "datatype": "BYTES", "data": ["AA"]},
        *(
            {"name": f"x{index}", "shape": [1], "datatype": "FP64", "data": [index + 0.5]}
            for index in range(9)
        ),
    ],
    "parameters": {"unit": "N12345"},
}  # fmt: skip


def main() -> None:
    """Measure, and print one JSON value."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--seconds", type=float, default=4.0)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--connections", type=int, default=16)
    options.add_argument("--bare", nargs=2, metavar=("SOCKET", "ARTIFACT"), help=argparse.SUPPRESS)
    given = options.parse_args()
    if given.bare:
        serve_bare(int(given.bare[0]), Path(given.bare[1]))
        return
    with (
        tempfile.TemporaryDirectory() as folder,
        installation(Path(folder)) as (home, artifact),
        gateway_process(home) as ours,
        bare_process(artifact) as bare,
    ):
        rounds = [
            {name: measure(port, pid, given.seconds, given.connections) for name, (port, pid) in servers.items()}
            for servers in [{"gateway": ours, "bare": bare}] * given.rounds
        ]
    ratios = [each["gateway"]["per_cpu_second"] / each["bare"]["per_cpu_second"] for each in rounds]
    print(json.dumps({"rounds": rounds, "ratio": round(statistics.median(ratios), 3)}, indent=2))


@contextmanager
def installation(folder: Path) -> Iterator[tuple[Path, Path]]:
    """A home with one model in a canary on half the units; its folder, and the artifact's file."""
    from leaven.experiments.routing import RoutingTable, arms_for
    from leaven.learners import XGBoost
    from leaven.learners.artifact import ModelArtifact
    from leaven.loop import Schema
    from leaven.registry.artifacts import ArtifactStore
    from leaven.registry.routing import publish
    from leaven.settings import settings_from
    from leaven.storage.control.database import ControlDatabase
    from leaven.training.encoding import Encoder
    from leaven.training.learner import TrainingSet

    names = [each["name"] for each in REQUEST["inputs"]]  # type: ignore[index]
    features = tuple((str(name), "category" if name == "carrier" else "float", False) for name in names)
    rng = np.random.default_rng(0)
    matrix = np.column_stack([rng.integers(0, 3, 2000), rng.normal(size=(2000, len(names) - 1))])
    encoder = Encoder(features, {"carrier": ("AA", "DL", "UA")})
    schema = Schema(features, "unit", "binary")
    data = TrainingSet(matrix, (matrix[:, 1] > 0).astype(float), encoder, schema)
    learner = XGBoost(rounds=100, max_depth=6)
    settings = settings_from({}, home=folder)
    store = ArtifactStore(settings.artifacts)
    made = ModelArtifact(learner.format, encoder, repr(learner), learner.fit(data, seed=0))
    digest = store.put(made.to_files())
    database = ControlDatabase(settings.database)
    database.migrate()
    with database.write() as connection:
        arms = arms_for(("1", digest), ("2", digest), share=0.5)
        publish(connection, RoutingTable("bench", 1, 0, schema, "salt", arms))
    yield folder, store.path(digest)
    database.dispose()


@contextmanager
def gateway_process(home: Path) -> Iterator[tuple[int, int]]:
    """The gateway as it is run, with one worker: its port, and the worker's process id."""
    command = [sys.executable, "-m", "leaven", "gateway", "--port", "0", "--json", "--home", str(home)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert process.stdout is not None
        port = int(json.loads(process.stdout.readline())["url"].rsplit(":", 1)[1])
        wait_for(port)
        yield port, psutil.Process(process.pid).children()[0].pid
    finally:
        process.terminate()
        process.wait(20)


@contextmanager
def bare_process(artifact: Path) -> Iterator[tuple[int, int]]:
    """The bare application: its port and process id."""
    with socket.create_server(("127.0.0.1", 0), backlog=2048) as listening:
        command = [sys.executable, __file__, "--bare", str(listening.fileno()), str(artifact)]
        process = subprocess.Popen(command, pass_fds=(listening.fileno(),))
        try:
            port = listening.getsockname()[1]
            wait_for(port)
            yield port, process.pid
        finally:
            process.terminate()
            process.wait(20)


class Input(msgspec.Struct):
    """A tensor of a request, as far as the bare application reads it."""

    name: str
    data: list[Any]


class Request(msgspec.Struct):
    """A request, as far as the bare application reads it."""

    inputs: list[Input]


def serve_bare(descriptor: int, artifact: Path) -> None:
    """Serve the bare application on a socket that listens."""
    import uvicorn

    from leaven.learners.artifact import load_artifact
    from leaven.registry.artifacts import unpacked

    model = load_artifact(unpacked(artifact.read_bytes()))

    decode, encode = msgspec.json.Decoder(Request).decode, msgspec.json.Encoder().encode
    headers = [(b"content-type", b"application/json")]

    async def app(scope: Any, receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]) -> None:
        message = await receive()
        request = decode(message["body"])
        columns = {each.name: np.array(each.data, dtype=object if each.name == "carrier" else None)
                   for each in request.inputs}  # fmt: skip
        answer = model.answer(columns)
        body = encode({"model_name": "bench", "outputs": [
            {"name": "answer", "shape": [len(answer)], "datatype": "FP64", "data": answer.tolist()}
        ]})  # fmt: skip
        await send({"type": "http.response.start", "status": 200,
                    "headers": [*headers, (b"content-length", b"%d" % len(body))]})  # fmt: skip
        await send({"type": "http.response.body", "body": body})

    config = uvicorn.Config(app, http="httptools", loop="uvloop", ws="none", lifespan="off", access_log=False,
                            log_level="warning")  # fmt: skip
    uvicorn.Server(config).run(sockets=[socket.socket(fileno=descriptor)])


def measure(port: int, pid: int, seconds: float, connections: int) -> dict[str, float]:
    """Requests per second, and per second of the server's CPU time."""
    asyncio.run(ask_for(port, 0.5, connections))
    server = psutil.Process(pid)
    before, began = sum(server.cpu_times()[:2]), time.perf_counter()
    waits = asyncio.run(ask_for(port, seconds, connections))
    took, spent = time.perf_counter() - began, sum(server.cpu_times()[:2]) - before
    waits.sort()
    return {
        "requests": len(waits),
        "per_second": round(len(waits) / took, 1),
        "per_cpu_second": round(len(waits) / spent, 1),
        "p50_ms": round(1000 * waits[len(waits) // 2], 2),
        "p99_ms": round(1000 * waits[len(waits) * 99 // 100], 2),
    }


async def ask_for(port: int, seconds: float, connections: int) -> list[float]:
    """Ask over some connections without a pause; the seconds each request took."""
    body = msgspec.json.encode(REQUEST)
    head = f"POST /v2/models/bench/infer HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
    sent, waits, end = head.encode() + body, list[float](), time.perf_counter() + seconds

    async def call() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while True:  # at least once, so that a caller may ask whether anybody answers
            began = time.perf_counter()
            writer.write(sent)
            reply = await reader.readuntil(b"\r\n\r\n")
            assert reply.startswith(b"HTTP/1.1 200"), reply
            length = int(reply.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
            await reader.readexactly(length)
            waits.append(time.perf_counter() - began)
            if time.perf_counter() >= end:
                break
        writer.close()

    await asyncio.gather(*(call() for _ in range(connections)))
    return waits


def wait_for(port: int) -> None:
    """Wait until a server answers."""
    for _ in range(600):
        try:
            asyncio.run(asyncio.wait_for(ask_for(port, 0.0001, 1), 20))
            return
        except (OSError, AssertionError, asyncio.IncompleteReadError):
            time.sleep(0.1)
    raise TimeoutError(f"nothing answers at port {port}")


if __name__ == "__main__":
    main()
