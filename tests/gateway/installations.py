"""An installation with real models, real tables in a real control database, and real gateway processes on top."""

from __future__ import annotations

import json
import os
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPSConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import psutil

from leaven.events.records import Event
from leaven.experiments.routing import RoutingTable, ShadowRoute, Standby, arms_for
from leaven.learners import ScikitLearn, XGBoost
from leaven.learners.artifact import ModelArtifact
from leaven.loop import Schema
from leaven.registry.artifacts import ArtifactStore
from leaven.registry.routing import latest, publish
from leaven.settings import Settings, environment_for_parts, settings_from
from leaven.storage.control.database import ControlDatabase
from leaven.storage.frames import decode_segment
from leaven.training.encoding import Encoder
from leaven.training.learner import TrainingSet

FLIGHTS = Schema(
    (("carrier", "category", True), ("dep_hour", "int", False), ("dep_delay", "float", False),
     ("weekend", "bool", False)),
    "tail_number",
    "binary",
)  # fmt: skip
IRIS = Schema(tuple((name, "float", False) for name in ("sl", "sw", "pl", "pw")), "flower", "regression")
CARRIERS = ("AA", "DL", "UA")


def training_set(schema: Schema, *, rows: int = 300) -> TrainingSet:
    """Random rows whose label follows the third feature."""
    rng = np.random.default_rng(7)
    categories = {name: CARRIERS for name, kind, _ in schema.features if kind == "category"}
    columns = [
        rng.integers(0, len(CARRIERS), rows) if kind == "category"
        else rng.integers(0, 2, rows) if kind == "bool" else rng.normal(10, 5, rows)
        for _, kind, _ in schema.features
    ]  # fmt: skip
    matrix = np.column_stack(columns).astype(np.float64)
    label = matrix[:, min(2, matrix.shape[1] - 1)] + rng.normal(0, 1, rows)
    label = (label > 10).astype(np.float64) if schema.task == "binary" else label
    return TrainingSet(matrix, label, Encoder(schema.features, categories), schema)


def good_artifact(schema: Schema, *, seed: int = 0, rounds: int = 5) -> ModelArtifact:
    """A gradient-boosted model; another number of rounds is another model."""
    data, learner = training_set(schema), XGBoost(rounds=rounds, max_depth=3, threads=1)  # others use the machine too
    return ModelArtifact(learner.format, data.encoder, repr(learner), learner.fit(data, seed=seed))


def failing_artifact(schema: Schema) -> ModelArtifact:
    """Loads, and raises on every row: the model takes one input more than its encoder makes."""
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

    estimator = HistGradientBoostingClassifier if schema.task == "binary" else HistGradientBoostingRegressor
    data, learner = training_set(schema), ScikitLearn(estimator(max_iter=3))
    files = learner.fit(data, seed=0)
    return ModelArtifact(learner.format, Encoder(schema.features[:-1], {}), repr(learner), files)


def nan_artifact(schema: Schema) -> ModelArtifact:
    """Loads, and answers NaN to every row."""
    import skops.io
    from sklearn.linear_model import SGDClassifier

    data = training_set(schema)
    learner = ScikitLearn(SGDClassifier(loss="log_loss"))
    files = dict(learner.fit(data, seed=0))
    (name,) = [name for name in files if name.endswith(".skops")]
    model = skops.io.loads(files[name])
    model.coef_[:] = np.nan
    files[name] = skops.io.dumps(model)
    return ModelArtifact(learner.format, data.encoder, repr(learner), files)


@dataclass
class Installation:
    """A home folder with a control database and artifacts, as gateways find it."""

    settings: Settings
    database: ControlDatabase
    digests: dict[str, str] = field(default_factory=dict)  # version -> artifact

    def keep(self, version: str, artifact: ModelArtifact) -> None:
        self.digests[version] = ArtifactStore(self.settings.artifacts).put(artifact.to_files())

    def table(
        self,
        *,
        champion: str,
        canary: str | None = None,
        share: float = 0.0,
        shadows: Sequence[str] = (),
        standby: Sequence[str] = (),
        revision: int = 1,
        loop: str = "flights",
        schema: Schema = FLIGHTS,
    ) -> RoutingTable:
        def named(version: str) -> tuple[str, str]:
            return version, self.digests[version]

        arms = arms_for(named(champion), named(canary) if canary else None, share=share)
        return RoutingTable(
            loop, revision, time.time_ns() // 1000, schema, "salt", arms,
            tuple(ShadowRoute(*named(version)) for version in shadows),
            tuple(Standby(*named(version)) for version in standby),
        )  # fmt: skip

    def publish(self, **routes: Any) -> RoutingTable:
        with self.database.write() as connection:
            last = latest(connection, routes.get("loop", "flights"))
            table = self.table(revision=(last.revision if last else 0) + 1, **routes)
            publish(connection, table)
        return table

    def events(self) -> list[Event]:
        """Everything in the write-ahead log, torn tails left out."""
        found: list[Event] = []
        for path in sorted(self.settings.wal.glob("*/*.*")):
            try:
                content = path.read_bytes()
            except FileNotFoundError:  # sealed since
                content = path.with_suffix(".sealed").read_bytes()
            found += decode_segment(content).events
        return found


@contextmanager
def installation_in(folder: Path, artifacts: Mapping[str, ModelArtifact], **environment: str) -> Iterator[Installation]:
    settings = settings_from(
        {"LEAVEN_SEAL_SECONDS": "0.2", "LEAVEN_CHALLENGER_SECONDS": "60"} | environment, home=folder / "home"
    )
    settings.home.mkdir()
    database = ControlDatabase(settings.database)
    database.migrate()
    made = Installation(settings, database)
    for version, artifact in artifacts.items():
        made.keep(version, artifact)
    yield made
    database.dispose()


@dataclass
class Reply:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class RunningGateway:
    """A real gateway: supervisor and workers."""

    url: str
    process: subprocess.Popen[str]
    context: ssl.SSLContext | None = None  # where it speaks TLS
    token: str = ""  # that requests carry
    grpc: str = ""  # host:port

    @property
    def workers(self) -> list[psutil.Process]:
        """The processes that answer."""
        children = psutil.Process(self.process.pid).children()
        return [child for child in children if any("gateway_worker" in part for part in child.cmdline())]

    @property
    def address(self) -> str:
        return urlsplit(self.url).netloc

    def is_ready(self) -> bool:
        try:
            return self.ask("GET", "/v2/health/ready").status == 200
        except TimeoutError:  # it listens, and nobody is there yet
            return False

    def ask(self, method: str, path: str, body: bytes | str | None = None, **headers: str) -> Reply:
        connection = (
            HTTPConnection(self.address, timeout=60)
            if self.context is None
            else HTTPSConnection(self.address, timeout=60, context=self.context)
        )
        try:
            sent = {name.replace("_", "-"): value for name, value in headers.items()}
            if self.token:
                sent.setdefault("Authorization", f"Bearer {self.token}")
            connection.request(method, path, body=body, headers=sent)
            response = connection.getresponse()
            return Reply(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
        finally:
            connection.close()

    def infer(self, request: Any, *, model: str = "flights", version: str | None = None, **headers: str) -> Reply:
        path = f"/v2/models/{model}" + (f"/versions/{version}" if version else "") + "/infer"
        return self.ask("POST", path, json.dumps(request), **headers)

    def status(self) -> Any:
        return self.ask("GET", "/v1/status").json

    def until(self, holds: Callable[[Any], bool], *, seconds: float = 60) -> Any:
        """Wait until the status is as wanted."""
        end = time.monotonic() + seconds
        while True:
            status = self.status()
            if holds(status):
                return status
            assert time.monotonic() < end, status
            time.sleep(0.02)

    def until_revision(self, revision: int, loop: str = "flights") -> Any:
        return self.until(lambda s: any(t["loop"] == loop and t["revision"] == revision for t in s["tables"]))


@contextmanager
def gateway_on(
    settings: Settings,
    *,
    workers: int = 1,
    errors: Path | None = None,
    port: int = 0,
    host: str = "127.0.0.1",
    context: ssl.SSLContext | None = None,
    grpc: bool = False,
) -> Iterator[RunningGateway]:
    """Run `leaven gateway` on this port, or on a free one, until the block ends; with gRPC on another, if asked."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("LEAVEN_")}
    environment |= {
        name: said for name, said in environment_for_parts(settings, parent=0).items() if name.startswith("LEAVEN_")
    }
    del environment["LEAVEN_PARENT"]
    root = str(Path(__file__).parents[2])  # where the models of tests are found by those that trust them
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, (os.environ.get("PYTHONPATH"), root)))
    errors = errors or settings.home / "gateway.log"
    with errors.open("a") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-m", "leaven", "gateway", "--json", "--port", str(port), "--workers", str(workers),
             "--host", host, "--home", str(settings.home), *(["--grpc-port", "0"] if grpc else [])],
            stdout=subprocess.PIPE, stderr=stderr, text=True, env=environment,
        )  # fmt: skip
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line, errors.read_text()
            facts = json.loads(line)
            url = facts["url"].replace("//0.0.0.0:", "//127.0.0.1:")
            running = RunningGateway(url, process, context, grpc=facts.get("grpc", ""))
            end = time.monotonic() + 180  # starting a worker takes a second of a core that many may share
            while not running.is_ready():
                assert time.monotonic() < end, errors.read_text()
                time.sleep(0.02)
            yield running
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(60)
            finally:
                process.kill()
                assert process.stdout is not None
                process.stdout.close()


def a_flight(**changes: Any) -> dict[str, Any]:
    """A request for one row; names given as None are left out."""
    values = {"carrier": "AA", "dep_hour": 8, "dep_delay": 3.5, "weekend": False} | changes
    kinds = {str: "BYTES", int: "INT64", float: "FP64", bool: "BOOL"}
    return {
        "inputs": [
            {"name": name, "shape": [1], "datatype": kinds[type(value)], "data": [value]}
            for name, value in values.items()
            if value is not None
        ]
    }
