"""Every kind of learner there is, for tests that hold for all of them; each is fitted and continued once."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from river import linear_model, optim, preprocessing, tree
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor, RandomForestClassifier
from sklearn.linear_model import LogisticRegression, Ridge, SGDClassifier, SGDRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from leaven.learners import ALS, Command, Function, LightGBM, River, ScikitLearn, Torch, XGBoost, load
from leaven.learners.artifact import ModelArtifact
from leaven.loop import Schema
from leaven.training.learner import Files, Learner, Model, TrainingSet
from tests.learners import builders
from tests.learners.builders import Columns

TRUSTED = ("river-pickle", "tests.learners.owned:load")
# A recommender needs two categories. Nothing of the label follows from the place.
FEATURES = (*builders.FEATURES, ("place", "category", False))
PLACES = ("north", "east", "south", "west")
PROGRAM = str(Path(__file__).with_name("owned_program.py"))

CLASSIFIERS: dict[str, Learner] = {
    "xgboost": XGBoost(15, max_depth=3, threads=1),
    "xgboost refreshed": XGBoost(15, max_depth=3, update_by="refresh", threads=1),
    "lightgbm": LightGBM(15, num_leaves=8, update_rounds=30, threads=1),
    "lightgbm refitted": LightGBM(15, num_leaves=8, update_by="refit", decay=0.2, threads=1),
    "histogram boosting": ScikitLearn(HistGradientBoostingClassifier(max_iter=10)),
    "histogram boosting that grows": ScikitLearn(HistGradientBoostingClassifier(max_iter=10), update_rounds=10),
    "forest": ScikitLearn(RandomForestClassifier(n_estimators=10)),
    "forest that grows": ScikitLearn(RandomForestClassifier(n_estimators=10), update_rounds=10),
    "logistic": ScikitLearn(LogisticRegression(), categories="one-hot"),
    "steady sgd": ScikitLearn(
        SGDClassifier(loss="log_loss", learning_rate="constant", eta0=0.02), categories="one-hot"
    ),
    "stiff sgd": ScikitLearn(make_pipeline(StandardScaler(), SGDClassifier(loss="log_loss")), categories="one-hot"),
    "river logistic": River(
        preprocessing.StandardScaler() | linear_model.LogisticRegression(optim.SGD(0.1)), categories="one-hot"
    ),
    "river tree": River(tree.HoeffdingAdaptiveTreeClassifier(grace_period=20), trusted=["river-pickle"]),
    "als": ALS("place", "colour", 4, 1.0, decay=0.2, threads=1),
    "function": Function("tests.learners.owned:train", "tests.learners.owned:load", stateful=True),
    "command": Command(["python", PROGRAM], format="lightgbm-text", stateful=True),
}
REGRESSORS: dict[str, Learner] = {
    "xgboost": XGBoost(15, max_depth=3, threads=1),
    "lightgbm": LightGBM(15, num_leaves=8, threads=1),
    "histogram boosting": ScikitLearn(HistGradientBoostingRegressor(max_iter=10)),
    "ridge": ScikitLearn(Ridge(), categories="one-hot"),
    "sgd": ScikitLearn(SGDRegressor(), categories="one-hot"),
    "als": ALS("place", "colour", 4, 1.0),
    "river linear": River(
        preprocessing.StandardScaler() | linear_model.LinearRegression(optim.SGD(0.05)), categories="one-hot"
    ),
}
if find_spec("torch") is not None:  # where it is not, tests/learners/test_torch.py says so
    CLASSIFIERS["torch"] = Torch([16], epochs=10, update_epochs=20, batch_size=64, learning_rate=0.01)
    REGRESSORS["torch"] = Torch([16], epochs=10, batch_size=64, learning_rate=0.01)
# What is promised of two stretches learnt one after the other: the very model that both together would have made.
RESUMES = ("river logistic", "river tree", "function")


@dataclass(frozen=True)
class Case:
    """One learner and what it is asked for."""

    name: str
    task: str

    @property
    def learner(self) -> Learner:
        return (CLASSIFIERS if self.task == "binary" else REGRESSORS)[self.name]

    @property
    def data(self) -> TrainingSet:
        return _data(self.task)

    @property
    def files(self) -> Files:
        """What it makes of `data`; made once, so nobody may change it."""
        return _fitted(self)

    @property
    def turned(self) -> TrainingSet:
        """Rows of a concept that has turned round, with colours that are new."""
        return _turned(self.task)

    @property
    def child(self) -> Files:
        """`files`, continued on `turned`; made once."""
        return _continued(self)

    def model(self, files: Files) -> Model:
        return load(self.learner.format, files, trusted=TRUSTED)

    def stored(self, data: TrainingSet, files: Files) -> ModelArtifact:
        return ModelArtifact(self.learner.format, data.encoder, repr(self.learner), files)

    def artifact(self, data: TrainingSet, files: Files) -> Files:
        return self.stored(data, files).to_files()

    def __str__(self) -> str:
        return f"{self.name}, {self.task}"


CASES = [Case(name, "binary") for name in CLASSIFIERS] + [Case(name, "regression") for name in REGRESSORS]
STATEFUL = [case for case in CASES if case.task == "binary" and case.learner.stateful]


def a_schema(features: tuple[Any, ...] = FEATURES, task: str = "binary") -> Schema:
    return builders.a_schema(features, task)


def some_columns(rows: int, *, seed: int = 0, **given: Any) -> Columns:
    places = np.random.default_rng([seed, 1]).choice(np.array(PLACES, dtype=object), rows)
    return {**builders.some_columns(rows, seed=seed, **given), "place": places}


def a_training_set(
    rows: int = 400,
    *,
    seed: int = 0,
    task: str = "binary",
    columns: Columns | None = None,
    schema: Schema | None = None,
    **given: Any,
) -> TrainingSet:
    columns, schema = columns or some_columns(rows, seed=seed), schema or a_schema(task=task)
    return builders.a_training_set(seed=seed, task=task, columns=columns, schema=schema, **given)


@cache
def _data(task: str) -> TrainingSet:
    return a_training_set(600, task=task)


@cache
def _turned(task: str) -> TrainingSet:
    columns = some_columns(600, seed=7, colours="amber red green violet")
    rows = a_training_set(columns=columns, seed=7, task=task, parent=_data(task).encoder)
    label = 1 - rows.label if task == "binary" else -rows.label
    return TrainingSet(rows.matrix, label, rows.encoder, rows.schema)


@cache
def _fitted(case: Case) -> Files:
    return case.learner.fit(case.data, seed=4)


@cache
def _continued(case: Case) -> Files:
    return case.learner.update(dict(case.files), case.turned, seed=5)


def follows(answers: np.ndarray[Any, Any], label: np.ndarray[Any, Any]) -> float:
    """How closely answers follow the labels, from -1 to 1."""
    return float(np.corrcoef(answers, label)[0, 1])
