"""What does it cost to reach a server elsewhere through the gateway, against asking it directly?

    python -m benchmarks.endpoint [--seconds 3] [--rounds 5] [--connections 1]

The server is the bare application of `benchmarks/peers/bare.py`, so that as little as possible of what is measured is
its own. The same caller asks it directly, and through a gateway whose champion it is, with the same JSON, in
alternating rounds. With one connection nobody waits for anybody: the difference of the medians is what the gateway
adds, and it is this machine's.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import tempfile
from pathlib import Path

from benchmarks.installation import FEATURES, Installation, gateway, installation
from benchmarks.load import Server, ask
from benchmarks.peers import bare_direct

MODEL = "trees"


def main() -> None:
    """Measure, and print one JSON value."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--seconds", type=float, default=3.0, help="of each measurement")
    options.add_argument("--rounds", type=int, default=5, help="in which both ways are measured once")
    options.add_argument("--connections", type=int, default=1)
    given = options.parse_args()
    with (
        tempfile.TemporaryDirectory() as folder,
        installation(Path(folder)) as made,
        bare_direct(made, MODEL) as server,
    ):
        let_answer(made, server)
        with gateway(made, MODEL) as through:
            ways = {"direct": server, "through the gateway": through}
            for each in ways.values():
                asyncio.run(ask(each, 1.0, given.connections))
            rounds = [
                {name: measured(each, given.seconds, given.connections) for name, each in ways.items()}
                for _ in range(given.rounds)
            ]
    added = [each["through the gateway"]["p50_ms"] - each["direct"]["p50_ms"] for each in rounds]
    summary = {
        "median": round(statistics.median(added), 3),
        "least": round(min(added), 3),
        "most": round(max(added), 3),
    }
    print(json.dumps({"rounds": rounds, "added_p50_ms": summary}, indent=2))


def let_answer(made: Installation, server: Server) -> None:
    """Publish a table by which `server` answers everybody."""
    from leaven.endpoints.description import Endpoint, encoded
    from leaven.endpoints.oip import Column, OipMapping
    from leaven.experiments.routing import RoutingTable, arms_for
    from leaven.registry.artifacts import ArtifactStore
    from leaven.registry.routing import latest, publish
    from leaven.settings import settings_from
    from leaven.storage.control.database import ControlDatabase

    columns = tuple(Column(name, name, "BYTES" if kind == "category" else "FP64") for name, kind, _ in FEATURES)
    mapping = OipMapping("bench", columns=columns, output="answer")
    settings = settings_from({}, home=made.home)
    described = encoded(Endpoint(f"http://127.0.0.1:{server.port}", mapping, timeout=5.0))
    digest = ArtifactStore(settings.artifacts).put(described)
    database = ControlDatabase(settings.database)
    with database.write() as connection:
        before = latest(connection, MODEL)
        assert before is not None
        publish(connection, RoutingTable(MODEL, before.revision + 1, 0, before.schema, "salt", arms_for(("3", digest))))
    database.dispose()


def measured(server: Server, seconds: float, connections: int) -> dict[str, float]:
    """The median and the 99th percentile of the time that a request took, in milliseconds."""
    waits = sorted(asyncio.run(ask(server, seconds, connections)))
    return {
        "requests": len(waits),
        "p50_ms": round(1000 * waits[len(waits) // 2], 3),
        "p99_ms": round(1000 * waits[len(waits) * 99 // 100], 3),
    }


if __name__ == "__main__":
    main()
