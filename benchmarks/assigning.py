"""What does an assignment cost: in a process, against a bare hash and against a peer; and over HTTP?

    python -m benchmarks.assigning [--peer PYTHON] [--rounds 7] [--seconds 4]

In a process, all in this run, in alternating rounds, microseconds of processor time per unit, least of the rounds:

- bare: SHA-256 over salt and unit, its first eight bytes modulo 10,000: the least that anybody does;
- leaven: a layer (is the unit in the experiment's part of it?) and the experiment's own hash, two arms;
- leaven, one hash: the same without a layer;
- growthbook: its Python SDK, `set_attributes` and `run` of an experiment with a namespace (its word for a layer) and
  two variations. It is asked in the Python that `--peer` names, in case it is not installed in this one.

Over HTTP: assignments of a set of parameters per second of the gateway's processor time, one worker, 16 connections:
only asked for; exposures that were written before; and units that are new each time, whose exposures are written down.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.load import Server, measure, wait_for

UNITS = [f"user-{number}" for number in range(20_000)]
CONNECTIONS = 16

# Run in the peer's Python: prints, for each line it reads, the microseconds of one round.
PEER = """
import sys, time
from growthbook import Experiment, GrowthBook
units = [f"user-{number}" for number in range(5_000)]
sdk = GrowthBook(attributes={}, enabled=True)
experiment = Experiment(key="ranker", variations=["old", "new"], namespace=("checkout", 0.0, 0.8), hashVersion=2)
for line in sys.stdin:
    began = time.process_time()
    for unit in units:
        sdk.set_attributes({"id": unit})
        sdk.run(experiment)
    print((time.process_time() - began) / len(units) * 1e6, flush=True)
"""


def main() -> None:
    """Measure, and print one JSON value."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--peer", default=sys.executable, help="a Python that has growthbook")
    options.add_argument("--rounds", type=int, default=7)
    options.add_argument("--seconds", type=float, default=4.0, help="of each measurement over HTTP; 0 leaves them out")
    given = options.parse_args()
    found: dict[str, Any] = in_process(given.peer, given.rounds)
    if given.seconds:
        found["http"] = over_http(given.seconds)
    print(json.dumps(found, indent=2))


def in_process(python: str, rounds: int) -> dict[str, Any]:
    """Microseconds per unit of each way, and the ratios."""
    with peer(python) as growthbook:
        ways = {
            "bare": timed(bare),
            "leaven": timed(leaven(layer=True)),
            "leaven, one hash": timed(leaven(layer=False)),
        }
        if growthbook is not None:
            ways["growthbook"] = growthbook
        measured = [{name: way() for name, way in ways.items()} for _ in range(rounds)]
    least = {name: min(each[name] for each in measured) for name in ways}
    ratios = {f"leaven over {name}": round(least["leaven"] / least[name], 2) for name in ("bare",)}
    if growthbook is not None:
        ratios["growthbook over leaven"] = round(least["growthbook"] / least["leaven"], 1)
    return {"microseconds": {name: round(micros, 2) for name, micros in least.items()}, "ratios": ratios}


def timed(assign: Callable[[str], object]) -> Callable[[], float]:
    """A round of `assign`: its microseconds of processor time per unit."""

    def once() -> float:
        began = time.process_time()
        for unit in UNITS:
            assign(unit)
        return (time.process_time() - began) / len(UNITS) * 1e6

    return once


def bare(unit: str) -> int:
    return int.from_bytes(sha256(f"ranker.{unit}".encode()).digest()[:8], "big") % 10_000


def leaven(*, layer: bool) -> Callable[[str], object]:
    from leaven.experiments.experiment import Experiment, Part, assign, slots

    part = Part("checkout", 0.0, 0.8) if layer else None
    experiment = Experiment("ranker", slots({"old": 0.5, "new": 0.5}), part=part)
    return lambda unit: assign(unit, experiment)


@contextmanager
def peer(python: str) -> Iterator[Callable[[], float] | None]:
    """A round of growthbook in a process of its own; None, with a loud word, where it is not installed."""
    try:
        there = not subprocess.run([python, "-c", "import growthbook"], capture_output=True, check=False).returncode
    except OSError:
        there = False
    if not there:
        say(f"SKIPPED: {python} has no growthbook, so there is no peer. Install it somewhere and name that with --peer")
        yield None
        return
    process = subprocess.Popen([python, "-c", PEER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def once() -> float:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write("\n")
        process.stdin.flush()
        return float(process.stdout.readline())

    try:
        yield once
    finally:
        process.kill()
        process.wait()


def over_http(seconds: float) -> dict[str, Any]:
    """Assignments per second of processor time, and how long they took."""
    with tempfile.TemporaryDirectory() as folder:
        install(Path(folder))
        bodies = {
            "only asked": [body(unit, expose=False) for unit in UNITS[:500]],
            "exposed before": [body(unit) for unit in UNITS[:500]],
            "exposed each time": [body(f"new-{number}") for number in range(100_000)],
        }
        found = {}
        for name, sent in bodies.items():
            with gateway(Path(folder), sent) as server:
                found[name] = measure(server, seconds, CONNECTIONS)
            say(f"{name}: {found[name]}")
    return found


def body(unit: str, **more: Any) -> bytes:
    return msgspec.json.encode({"loop": "prompts", "unit": unit, **more})


def install(home: Path) -> None:
    """A home with two sets of parameters, half the units each."""
    from leaven.experiments.parameters import encoded
    from leaven.experiments.routing import RoutingTable, arms_for
    from leaven.loop import Schema
    from leaven.registry.artifacts import ArtifactStore
    from leaven.registry.routing import publish
    from leaven.settings import settings_from
    from leaven.storage.control.database import ControlDatabase

    settings = settings_from({}, home=home)
    database = ControlDatabase(settings.database)
    database.migrate()
    prompts = ("Answer the question.", "Answer step by step. " * 20)
    kept = [ArtifactStore(settings.artifacts).put(encoded({"system": prompt})) for prompt in prompts]
    arms = arms_for(("1", kept[0]), ("2", kept[1]), share=0.5)
    with database.write() as connection:
        publish(connection, RoutingTable("prompts", 1, 0, Schema((), "reader", "binary"), "salt", arms))
    database.dispose()


@contextmanager
def gateway(home: Path, sent: list[bytes]) -> Iterator[Server]:
    """`leaven gateway` as it is run, on a free port."""
    command = [sys.executable, "-m", "leaven", "gateway", "--port", "0", "--json", "--home", str(home)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert process.stdout is not None
        port = int(msgspec.json.decode(process.stdout.readline())["url"].rsplit(":", 1)[1])
        server = Server(port, process.pid, "/v1/assign", sent)
        wait_for(server)
        yield server
    finally:
        process.terminate()
        process.wait(30)


def say(text: str) -> None:
    """Tell how it goes, aside from the result."""
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
