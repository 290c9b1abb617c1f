"""What do the benchmarks serve? Two models, in a home folder of Leaven and as files that any other server can open.

`trees` is gradient boosting, `pipeline` is scaler + one-hot + logistic regression, both over one category and nine
numbers. In Leaven each is a champion, with another model as a canary on some of the units.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from benchmarks.load import Server, wait_for

CARRIERS = ("AA", "DL", "UA")
UNITS = 500
MODELS = ("trees", "pipeline")
NUMBERS = tuple(f"x{index}" for index in range(9))
FEATURES = (("carrier", "category", False), *((name, "float", False) for name in NUMBERS))


@dataclass(frozen=True, slots=True)
class Installation:
    """A home folder with both models, and each as its own library stores it."""

    home: Path
    booster: Path  # XGBoost's own format
    estimator: Path  # joblib, as MLServer reads it

    def own(self, model: str) -> Path:
        """Folder of the files that Leaven's learner made, and their format."""
        return self.home / f"{model}-files"


@contextmanager
def installation(
    folder: Path, *, canary: float = 0.1, rounds: int = 100, routed: Sequence[str] = MODELS
) -> Iterator[Installation]:
    """Fit the models and publish a table for each; the files are gone when `folder` is.

    Args:
        folder: An empty one.
        canary: Share of units that the canary answers; 0 for none.
        rounds: Trees of the larger model.
        routed: Models that are published to gateways.
    """
    import joblib
    from sklearn.linear_model import LogisticRegression

    from leaven.learners import ScikitLearn, XGBoost
    from leaven.learners.scikit_learn_storage import estimator_in
    from leaven.loop import Schema
    from leaven.settings import settings_from
    from leaven.storage.control.database import ControlDatabase
    from leaven.training.encoding import Encoder
    from leaven.training.learner import TrainingSet

    rng = np.random.default_rng(0)
    matrix = np.column_stack([rng.integers(0, len(CARRIERS), 2000), rng.normal(size=(2000, len(NUMBERS)))])
    label = (matrix[:, 1] + (matrix[:, 0] == 1) + rng.normal(size=2000) > 0).astype(float)
    data = TrainingSet(matrix, label, Encoder(FEATURES, {"carrier": CARRIERS}), Schema(FEATURES, "unit", "binary"))
    settings = settings_from({}, home=folder)
    database = ControlDatabase(settings.database)
    database.migrate()
    files = {
        name: _publish(settings, database, name, learner, data, canary, routed)
        for name, learner in {
            "trees": XGBoost(rounds=rounds, max_depth=6),
            "pipeline": ScikitLearn(LogisticRegression(), categories="one-hot"),
        }.items()
    }
    made = Installation(folder, folder / "trees.ubj", folder / "pipeline.joblib")
    made.booster.write_bytes(files["trees"]["model.ubj"])
    for name, format in {"trees": "xgboost-ubj", "pipeline": "skops"}.items():
        own = made.own(name)
        own.mkdir()
        (own / "format").write_text(format)
        for file, content in files[name].items():
            (own / file).write_bytes(content)
    joblib.dump(estimator_in(files["pipeline"], ()), made.estimator)
    yield made
    database.dispose()


def _publish(
    settings: Any, database: Any, name: str, learner: Any, data: Any, canary: float, routed: Sequence[str]
) -> Any:
    """Fit champion and canary, keep their artifacts, and route units to them; the champion's files."""
    from leaven.experiments.routing import RoutingTable, arms_for
    from leaven.learners.artifact import ModelArtifact
    from leaven.registry.artifacts import ArtifactStore
    from leaven.registry.routing import publish

    store = ArtifactStore(settings.artifacts)
    half = replace(data, matrix=data.matrix[:1000], label=data.label[:1000])
    made = [learner.fit(rows, seed=0) for rows in (data, half)]
    kept = [store.put(ModelArtifact(learner.format, data.encoder, repr(learner), files).to_files()) for files in made]
    arms = arms_for(("1", kept[0]), ("2", kept[1]) if canary else None, share=canary)
    if name not in routed:
        return made[0]
    with database.write() as connection:
        publish(connection, RoutingTable(name, 1, 0, data.schema, "salt", arms))
    return made[0]


def open_inference_requests() -> list[bytes]:
    """One row for each of many units, as the Open Inference Protocol carries it: a tensor per feature."""
    inputs = [{"name": "carrier", "shape": [1], "datatype": "BYTES", "data": ["AA"]}]
    inputs += [{"name": name, "shape": [1], "datatype": "FP64", "data": [index + 0.5]}
               for index, name in enumerate(NUMBERS)]  # fmt: skip
    return [msgspec.json.encode({"inputs": inputs, "parameters": {"unit": f"N{unit}"}}) for unit in range(UNITS)]


@contextmanager
def gateway(made: Installation, model: str, *, workers: int = 1) -> Iterator[Server]:
    """`leaven gateway` as it is run, on a free port."""
    command = [sys.executable, "-m", "leaven", "gateway", "--port", "0", "--json", "--home", str(made.home)]
    command += ["--workers", str(workers)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert process.stdout is not None
        port = int(msgspec.json.decode(process.stdout.readline())["url"].rsplit(":", 1)[1])
        server = Server(port, process.pid, f"/v2/models/{model}/infer", open_inference_requests())
        wait_for(server)
        yield server
    finally:
        process.terminate()
        process.wait(30)
