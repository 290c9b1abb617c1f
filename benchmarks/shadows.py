"""Does a shadow that hangs, crashes, is slow or answers garbage cost those who are served anything?

    python -m benchmarks.shadows [--rounds 2] [--rate 100] [--seconds 30] [--only hangs]

A gateway is asked at a steady rate, every request at its moment, in blocks: without a shadow and with a bad one, in
turn, so that both meet the same machine. Every request is shadowed. A version whose process is killed or ends is
started again after pauses that grow from half a second to 30 seconds, so blocks are long: short ones would measure the
starts. For each kind of shadow, the 99th percentile of all blocks with it over that of the blocks without, and what
became of the rows that were offered to it.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import skops.io

from benchmarks.bad_models import KINDS
from benchmarks.installation import Installation, gateway, installation
from benchmarks.load import Server
from benchmarks.swaps import after, described, paced


def main() -> None:
    """Measure, and print one JSON value."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rounds", type=int, default=2)
    options.add_argument("--rate", type=float, default=100.0, help="requests per second")
    options.add_argument("--seconds", type=float, default=30.0, help="length of a block")
    options.add_argument("--only", help="one kind of shadow: hangs, crashes, slow, garbage, fine")
    given = options.parse_args()
    kinds = [kind for kind in KINDS if given.only in (None, kind.__name__.lower())]
    root = str(Path(__file__).parent.parent)
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (os.environ.get("PYTHONPATH"), root)))
    os.environ["LEAVEN_TRUSTED_TYPES"] = ",".join(f"{kind.__module__}.{kind.__name__}" for kind in KINDS)
    said: dict[str, Any] = {}
    with (
        tempfile.TemporaryDirectory() as folder,
        installation(Path(folder), canary=0) as made,
        gateway(made, "trees") as server,
    ):
        routes = Routes(made, server)
        paced(server, given.rate, until=after(2.0))
        for kind in kinds:
            said[kind.__name__.lower()] = measured(routes, server, kind, given)
            print(kind.__name__, json.dumps(said[kind.__name__.lower()]), file=sys.stderr, flush=True)
    print(json.dumps(said, indent=2))


def measured(routes: Routes, server: Server, kind: type, given: Any) -> dict[str, Any]:
    """Blocks without and with a shadow of this kind, in turn; which comes first changes."""
    blocks: dict[bool, list[list[float]]] = {False: [], True: []}
    before = routes.shadows()
    for turn in range(given.rounds):
        for with_it in (False, True) if turn % 2 else (True, False):
            routes.publish(kind.__name__ if with_it else None)
            blocks[with_it].append(paced(server, given.rate, until=after(given.seconds)))
    routes.publish(None)
    became = routes.settled(sum(len(block) for block in blocks[True]), before)
    without, beside = (described([wait for block in blocks[one] for wait in block]) for one in (False, True))
    pairs = [described(b)["p99_ms"] / described(a)["p99_ms"] for a, b in zip(*blocks.values(), strict=True)]
    return {"without": without, "beside": beside, "p99_ratio": round(beside["p99_ms"] / without["p99_ms"], 2),
            "p50_ratio": round(beside["p50_ms"] / without["p50_ms"], 2),
            "median_of_p99_ratios": round(statistics.median(pairs), 2), "shadow_rows": became}  # fmt: skip


class Routes:
    """Publishes tables with and without a shadow, and waits until the gateway runs them."""

    def __init__(self, made: Installation, server: Server) -> None:
        from leaven.learners.artifact import ModelArtifact
        from leaven.registry.artifacts import ArtifactStore
        from leaven.registry.routing import latest
        from leaven.settings import settings_from
        from leaven.storage.control.database import ControlDatabase

        settings = settings_from({}, home=made.home)
        self._database, self._server = ControlDatabase(settings.database), server
        store = ArtifactStore(settings.artifacts)
        with self._database.read() as connection:
            table = latest(connection, "trees")
        assert table is not None
        encoder = ModelArtifact.from_files(store.get(table.champion.artifact)).encoder
        own = made.own("pipeline")
        files = {path.name: path.read_bytes() for path in own.iterdir() if path.name != "format"}
        (model,) = [name for name in files if name.endswith(".skops")]
        self._artifacts = {}
        for kind in KINDS:
            estimator = kind()
            estimator.fitted_ = True
            whole = ModelArtifact("skops", encoder, kind.__name__, files | {model: skops.io.dumps(estimator)})
            self._artifacts[kind.__name__] = store.put(whole.to_files())

    def publish(self, shadow: str | None) -> None:
        """Route the champion, with this kind of shadow beside it for every unit."""
        from leaven.experiments.assignment import POSITIONS
        from leaven.experiments.routing import RoutingTable, ShadowRoute
        from leaven.registry.routing import gateways, latest, publish

        beside = (ShadowRoute(shadow, self._artifacts[shadow], POSITIONS),) if shadow else ()
        with self._database.write() as connection:
            last = latest(connection, "trees")
            assert last is not None
            table = RoutingTable("trees", last.revision + 1, 0, last.schema, "salt", last.arms, beside)
            publish(connection, table)
        end = time.monotonic() + 60
        while time.monotonic() < end:
            with self._database.read() as connection:
                running = [each.revisions.get("trees") for each in gateways(connection)]
            if running and all(revision == table.revision for revision in running):
                return
            time.sleep(0.01)
        raise SystemExit(f"the gateway does not run revision {table.revision} with the shadow {shadow}")

    def shadows(self) -> dict[str, int]:
        """What became of the rows that were offered to shadows, so far."""
        with urlopen(f"http://127.0.0.1:{self._server.port}/v1/status") as reply:
            status = json.loads(reply.read())
        self._pending = status["shadow_rows_pending"]
        return dict(status["shadows"])

    def settled(self, offered: int, before: dict[str, int]) -> dict[str, int]:
        """What became of the rows since `before`, once none is pending."""
        while True:
            now = self.shadows()
            if not self._pending:
                break
            time.sleep(0.1)
        became = {name: count - before.get(name, 0) for name, count in now.items() if count != before.get(name, 0)}
        lost = offered - sum(count for name, count in became.items() if name != "dropped_log")
        return {"offered": offered, **became, "unaccounted": lost}


if __name__ == "__main__":
    main()
