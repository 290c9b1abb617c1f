"""A real MLServer answers for a version: added, checked, proven in shadow and canary, promoted, rolled back, killed."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from leaven.app import App
from leaven.cli import main
from leaven.cli.people import me
from leaven.controller.people import promote_by_hand
from leaven.learners.artifact import ModelArtifact
from leaven.registry import versions
from leaven.settings import settings_from
from leaven.training.encoding import Encoder
from leaven.training.learner import TrainingSet
from tests.acceptance.traffic import Traffic, visitors
from tests.gateway.installations import RunningGateway, gateway_on
from tests.mlserver.serving import ENVIRONMENT, RunningMLServer, installed, mlserver_with

pytestmark = pytest.mark.skipif(not installed(), reason="there is no MLServer; make mlserver installs it")

LOOP = """
from sklearn.linear_model import LogisticRegression
from leaven import Feature, Happens, Loop
from leaven.curation import AllHistory
from leaven.experiments import Canary, Shadow
from leaven.learners import ScikitLearn
from leaven.training import Stateful

loop = Loop(
    "shop",
    features=[Feature("x", "float"), Feature("z", "float")],
    unit="user",
    label=Happens("bought", within="1d"),
    learner=ScikitLearn(LogisticRegression()),
    data=AllHistory(),
    plan=Stateful(),
    rollout=[Shadow("1d"), Canary(0.5)],
)
"""


class Shop:
    """An installation whose champion is a small model, a gateway on it, and the command line."""

    def __init__(self, home: Path, gateway: RunningGateway, app: App) -> None:
        self.home, self.gateway, self.app = home, gateway, app

    def leaven(self, *arguments: str, exit_code: int = 0) -> Any:
        """Run a command, and return what it prints for programs."""
        with redirect_stdout(StringIO()) as said, pytest.raises(SystemExit) as left:
            main([*arguments, "--home", str(self.home), "--json"])
        assert (left.value.code or 0) == exit_code, said.getvalue()
        return json.loads(said.getvalue())

    def routed(self, holds: Any) -> None:
        """Wait until the gateway's table of the loop is as wanted."""
        self.gateway.until(lambda status: any(holds(table) for table in status["tables"]), seconds=120)

    def endpoint(self) -> Any:
        """How the endpoint is, as the gateway tells."""
        (state,) = self.gateway.status()["endpoints"]
        return state


def fitted(seed: int) -> Any:
    from sklearn.linear_model import LogisticRegression

    rng = np.random.default_rng(seed)
    matrix = rng.normal(size=(300, 2))
    features = (("x", "float", False), ("z", "float", False))
    label = (matrix @ [1.0, -0.5] + rng.logistic(size=300) > 0).astype(float)
    return LogisticRegression().fit(matrix, label), matrix, label, features


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    (tmp_path / "shop.py").write_text(LOOP)
    app = App(settings_from({"LEAVEN_SEAL_SECONDS": "0.2"}, home=tmp_path / "home"))
    loop = app.enter(tmp_path / "shop.py")
    _, matrix, label, features = fitted(0)
    encoder = Encoder(features, {})
    files = loop.learner.fit(TrainingSet(matrix, label, encoder, loop.schema), seed=0)
    made = ModelArtifact(loop.learner.format, encoder, repr(loop.learner), files)
    with app.database.write() as connection:
        versions.register(
            connection, "shop", artifact=app.artifacts.put(made.to_files()), format=loop.learner.format, mode="fit",
            definition_digest=loop.digest, at=app.clock.micros(),
        )  # fmt: skip
    promote_by_hand(app.database, "shop", 1, by=me(), why="the first", now=app.clock.now())
    with gateway_on(app.settings) as gateway:
        yield Shop(tmp_path / "home", gateway, app)
    app.close()


@contextmanager
def started_again(folder: Path) -> Iterator[None]:
    """Start the MLServer of a folder once more, on its old ports."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(("MLSERVER_", "PYTHONPATH"))}
    with (folder / "again.log").open("wb") as output:
        process = subprocess.Popen(
            [ENVIRONMENT / "bin" / "mlserver", "start", folder], stdout=output, stderr=output, cwd=folder, env=own
        )
        try:
            yield
        finally:
            process.terminate()
            process.wait(60)


def go_on(traffic: Traffic, requests: int = 60) -> None:
    """Wait until so many more have been answered."""
    until, end = len(traffic.answers) + requests, time.monotonic() + 120
    while len(traffic.answers) < until:
        assert time.monotonic() < end, traffic.refused[:3]
        time.sleep(0.05)


def port_of(gateway: RunningGateway) -> int:
    return int(gateway.url.rsplit(":", 1)[1])


def test_an_mlserver_is_added_proven_promoted_killed_and_rolled_back_under_load(shop: Shop, tmp_path: Path):
    estimator, *_ = fitted(1)
    folder = tmp_path / "mlserver"
    folder.mkdir()
    with mlserver_with(folder, {"buying": estimator}) as server, visitors(port_of(shop.gateway)) as traffic:
        added = shop.leaven("endpoint", "add", "shop", "--url", server.url, "--model", "buying", "--timeout", "5s",
                            "--breaker", "failures=5 pause=0.2 longest=1")  # fmt: skip
        mapping = added["endpoint"]["mapping"]
        assert (added["version"], mapping["output"], mapping["answer"]) == (2, "predict_proba", 1)
        assert mapping["matrix"]["features"] == ["x", "z"]
        assert shop.leaven("endpoint", "check", "shop", "2")["fits"] is True

        shop.leaven("prove", "shop", "2")
        shop.routed(lambda table: table["shadows"] == ["2"])
        go_on(traffic)
        shop.gateway.until(lambda status: status["shadows"].get("answered", 0) >= 50, seconds=120)
        shop.leaven("cancel", "shop")

        shop.leaven("prove", "shop", "2", "--from", "canary")
        shop.routed(lambda table: [arm["arm"] for arm in table["arms"]] == ["canary", "champion"])
        go_on(traffic)
        killed(shop, server, traffic)
        assert shop.leaven("endpoint", "check", "shop", "2", exit_code=1)["fits"] is False
        with started_again(folder):
            shop.gateway.until(lambda _: shop.endpoint()["breaker"] == "closed", seconds=120)
            back = time.monotonic()
            go_on(traffic)
            assert {answer.version for answer in traffic.since(back)} == {"1", "2"}
            promoted_and_rolled_back(shop, traffic, estimator)
    assert traffic.refused == []
    assert Counter(answer.status for answer in traffic.answers) == {200: len(traffic.answers)}


def killed(shop: Shop, server: RunningMLServer, traffic: Traffic) -> None:
    """Nobody notices, but the breaker."""
    server.process.kill()
    server.process.wait()
    shop.gateway.until(lambda _: shop.endpoint()["breaker"] != "closed", seconds=120)
    down = time.monotonic()
    go_on(traffic)
    assert {answer.version for answer in traffic.since(down)} == {"1"}
    fallbacks = {each["version"]: each["rows"] for each in shop.gateway.status()["fallbacks"]}
    assert fallbacks["2"] >= 5
    assert "connection" in shop.endpoint()["last_failure"]


def promoted_and_rolled_back(shop: Shop, traffic: Traffic, estimator: Any) -> None:
    shop.leaven("promote", "shop", "2")
    shop.routed(lambda table: [arm["version"] for arm in table["arms"]] == ["2"])
    go_on(traffic)
    inputs = [
        {"name": name, "shape": [1], "datatype": "FP64", "data": [value]} for name, value in (("x", 1.5), ("z", -1))
    ]
    said = shop.gateway.infer({"inputs": inputs}, model="shop").json
    assert said["model_version"] == "2"
    assert said["outputs"][0]["data"] == pytest.approx(estimator.predict_proba([[1.5, -1.0]])[:, 1].tolist(), abs=1e-9)
    shop.leaven("rollback", "shop")
    shop.routed(lambda table: [arm["version"] for arm in table["arms"]] == ["1"])
    rolled = time.monotonic()
    go_on(traffic)
    assert {answer.version for answer in traffic.since(rolled)} == {"1"}
