"""What does a prediction through the gateway cost, measured against other ways to serve the same model?

    python -m benchmarks.gateway [--only trees|pipeline] [--seconds 4] [--rounds 5] [--canary 0.1]

The gateway checks, assigns units to champion and canary, batches and logs. It is compared, for gradient-boosted trees
over 16 connections and for a scikit-learn pipeline over 64, one row per request, with

- bare: an ASGI application with msgspec that calls the library, and does nothing else;
- bare, direct: the same, asking the model as Leaven does, so that the rest is what the gateway itself costs;
- FastAPI with pydantic, and MLServer, in its own process and with its default worker (after `make mlserver`).

All serve one fitted model to one caller, in alternating rounds, each a tree of processes on the same cores. The figure
is requests per second of the tree's processor time; a ratio above 1 says that the gateway answers more.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from benchmarks.installation import Installation, gateway, installation
from benchmarks.load import Server, measure
from benchmarks.peers import bare, bare_direct, fastapi, mlserver
from tests.mlserver.serving import installed

CONNECTIONS = {"trees": 16, "pipeline": 64}
NEED_MLSERVER = {
    "fastapi": fastapi,
    "mlserver in-process": partial(mlserver, workers=0),
    "mlserver default": partial(mlserver, workers=1),
}


def main() -> None:
    """Measure, and print one JSON value."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--only", choices=sorted(CONNECTIONS))
    options.add_argument("--seconds", type=float, default=4.0, help="of each measurement")
    options.add_argument("--rounds", type=int, default=5, help="in which every server is measured once")
    options.add_argument("--canary", type=float, default=0.1, help="share of units that another model answers; 0: none")
    given = options.parse_args()
    with tempfile.TemporaryDirectory() as folder, installation(Path(folder), canary=given.canary) as made:
        found = {
            model: compare(made, model, given.seconds, given.rounds)
            for model in CONNECTIONS
            if given.only in (None, model)
        }
    print(json.dumps(found, indent=2))


def compare(made: Installation, model: str, seconds: float, rounds: int) -> dict[str, object]:
    """Measure every server of `model` in turn; medians, and the gateway's ratio to each with its range."""
    peers = {"gateway": gateway, "bare": bare, "bare, direct": bare_direct}
    if model == "pipeline" and installed():
        peers |= NEED_MLSERVER
    elif model == "pipeline":
        say(f"no MLServer here, so without {', '.join(NEED_MLSERVER)}: make mlserver")
    with ExitStack() as running:
        servers = {name: running.enter_context(peer(made, model)) for name, peer in peers.items()}
        measured = [one_round(model, servers, seconds) for _ in range(rounds)]
    figures = measured[0]["gateway"]
    return {
        "connections": CONNECTIONS[model],
        "median": {
            name: {figure: statistics.median(each[name][figure] for each in measured) for figure in figures}
            for name in servers
        },
        "gateway_over": {name: ratio(measured, name) for name in servers if name != "gateway"},
    }


def one_round(model: str, servers: dict[str, Server], seconds: float) -> dict[str, dict[str, float]]:
    """Measure each server once."""
    found = {name: measure(server, seconds, CONNECTIONS[model]) for name, server in servers.items()}
    say(f"{model}: " + ", ".join(f"{name} {each['per_cpu_second']:.0f}" for name, each in found.items()))
    return found


def ratio(measured: list[dict[str, dict[str, float]]], peer: str) -> dict[str, float]:
    """How many requests per CPU second the gateway answers for one of the peer's, by round."""
    each = [found["gateway"]["per_cpu_second"] / found[peer]["per_cpu_second"] for found in measured]
    return {"median": round(statistics.median(each), 2), "least": round(min(each), 2), "most": round(max(each), 2)}


def say(text: str) -> None:
    """Tell how it goes, aside from the result."""
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
