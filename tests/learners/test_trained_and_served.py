"""Every kind of learner, through the process that trains it and the gateway that serves it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from river import tree

from leaven.controller.replay import replay
from leaven.errors import BadDefinition
from leaven.gates import Sane
from leaven.learners import River
from leaven.learners.artifact import load_artifact
from leaven.learners.process import TrainingJob, train_in_process
from leaven.loopfile import load_loop
from leaven.registry.artifacts import ArtifactStore
from leaven.training import Stateful
from leaven.triggers import Every
from tests.controller.pasts import a_loop, a_past, day
from tests.gateway.installations import (
    FLIGHTS,
    Installation,
    RunningGateway,
    a_flight,
    gateway_on,
    installation_in,
    training_set,
)
from tests.learners import owned
from tests.learners.catalogue import CLASSIFIERS, PROGRAM, TRUSTED, Case

LOOP = """
from leaven import Feature, Label, Loop
from leaven.curation import AllHistory
from leaven.learners import ALS, Command, Function, LightGBM, River, Torch
from leaven.training import Stateful
{imports}
types = {{"colour": "category", "size": "float", "count": "int", "new": "bool", "place": "category"}}
features = [Feature(*named) for named in types.items()]
loop = Loop("kind", features=features, unit="user", label=Label("y", above=0, within="1d"), learner={learner},
            data=AllHistory(), plan=Stateful())
"""
LEARNERS = {
    "lightgbm": "LightGBM(15, num_leaves=8, update_rounds=30, threads=1)",
    "river logistic": """River(
        preprocessing.StandardScaler() | linear_model.LogisticRegression(optim.SGD(0.1)), categories="one-hot")""",
    "als": 'ALS("place", "colour", 4, 1.0, decay=0.2, threads=1)',
    "function": 'Function("owned_beside:train", "owned_beside:load", stateful=True)',
    "command": f'Command(["python", {PROGRAM!r}], format="lightgbm-text", stateful=True)',
}
# One for each format: a gateway reads formats, whoever made them.
SERVED = ["xgboost", "lightgbm", "histogram boosting", "river logistic", "river tree", "function"]
if "torch" in CLASSIFIERS:  # where it is installed
    LEARNERS["torch"] = "Torch([16], epochs=10, update_epochs=20, batch_size=64, learning_rate=0.01)"
    SERVED.append("torch")


@pytest.mark.parametrize("name", LEARNERS)
def test_a_process_of_its_own_makes_the_very_model(name, tmp_path):
    """The same files as here, fitted or continued; a Function's module is found beside the loop file."""
    loop_file = tmp_path / "loop.py"
    imports = "from river import linear_model, optim, preprocessing\n" if "river" in name else ""
    loop_file.write_text(LOOP.format(imports=imports, learner=LEARNERS[name]))
    (tmp_path / "owned_beside.py").write_text(Path(owned.__file__).read_text())
    case, loop = Case(name, "binary"), load_loop(loop_file)
    updates = name in ("lightgbm", "torch")  # enough to show that the parent, and all of its state, gets there
    job = TrainingJob(
        loop_file, loop.name, loop.digest, "update" if updates else "fit", 5 if updates else 4,
        case.turned if updates else case.data, case.files if updates else None,
    )  # fmt: skip
    made = train_in_process(job, seconds=120, memory_mb=2000)
    expected = case.child if updates else case.files
    assert made.format == case.learner.format
    assert made.files.keys() == expected.keys()
    if name != "function":  # there, another module's name stands in the files
        matrix = case.data.matrix
        np.testing.assert_array_equal(case.model(made.files).predict(matrix), case.model(expected).predict(matrix))
    used = {
        "lightgbm": {"lightgbm"},
        "river logistic": {"river", "skops"},
        "als": {"implicit"},
        "torch": {"torch"},
    }
    assert made.libraries.keys() >= used.get(name, set())


def test_a_replay_keeps_an_online_model_going_where_its_pickle_is_allowed():
    """The concept turns round on day 5: what goes on learning follows."""
    loop = a_loop(
        learner=River(tree.HoeffdingAdaptiveTreeClassifier(grace_period=50), trusted=["river-pickle"]),
        plan=Stateful(), rollout=[], gates=[Sane()], triggers=[Every("12h")], holdout="6h",
    )  # fmt: skip
    past = a_past(10, turns_on=5)
    with pytest.raises(BadDefinition, match="is a pickle, and nobody allowed that"):
        replay(loop, past, name="online", start=day(3))
    run = replay(loop, past, name="online", start=day(3), window=timedelta(days=1), trusted=("river-pickle",))
    assert run.promoted >= 10
    by_day = [window.metrics["roc_auc"] for window in run.windows]
    assert by_day[2] < 0.4 < 0.7 < by_day[-1]  # the day on which it turned, and four days later


def loop_of(name: str) -> str:
    return name.replace(" ", "-")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Installation, RunningGateway]]:
    """One gateway that serves a loop for each format."""
    data, artifacts = training_set(FLIGHTS), {}
    for name in SERVED:
        files = CLASSIFIERS[name].fit(data, seed=1)
        artifacts[name] = Case(name, "binary").stored(data, files)
    folder = tmp_path_factory.mktemp("served")
    with installation_in(folder, artifacts, LEAVEN_TRUSTED_TYPES=",".join(TRUSTED)) as installation:
        for name in artifacts:
            installation.publish(champion=name, loop=loop_of(name))
        with gateway_on(installation.settings) as gateway:
            yield installation, gateway


@pytest.mark.parametrize("name", SERVED)
def test_a_real_gateway_answers_as_the_model_does(served, name):
    installation, gateway = served

    model = load_artifact(
        ArtifactStore(installation.settings.artifacts).get(installation.digests[name]), trusted=TRUSTED
    )
    for flight in ({}, {"carrier": "UA", "dep_delay": 40.5}, {"carrier": "ZZ", "dep_hour": None, "dep_delay": None}):
        reply = gateway.infer(a_flight(**flight), model=loop_of(name))
        assert reply.status == 200, reply.body
        given = {"carrier": "AA", "dep_hour": 8, "dep_delay": 3.5, "weekend": False} | flight
        columns = {
            key: np.array([np.nan if value is None else value], dtype=object if key == "carrier" else np.float64)
            for key, value in given.items()
        }
        assert reply.json["outputs"][0]["data"] == model.answer(columns).tolist()
        assert reply.json["model_version"] == name
