"""Labels of several classes, and features of text: every learner that says it takes them."""

from __future__ import annotations

import json
from dataclasses import replace
from importlib.util import find_spec

import numpy as np
import pytest
from river import linear_model, multiclass, preprocessing
from sklearn.compose import ColumnTransformer
from sklearn.feature_extraction.text import HashingVectorizer
from sklearn.linear_model import LogisticRegression, SGDClassifier
from sklearn.pipeline import make_pipeline

from leaven import Feature, Label, Loop
from leaven.curation import AllHistory
from leaven.errors import BadDefinition
from leaven.learners import Function, LightGBM, River, ScikitLearn, Torch, XGBoost
from leaven.learners.artifact import ModelArtifact, load_artifact
from leaven.learners.growing import grown_parent
from leaven.learners.process import TrainingJob, train_in_process
from leaven.loop import Schema
from leaven.stats.metrics import METRICS
from leaven.training import Stateful, Stateless
from leaven.training.learner import CannotLearn, training_set

KINDS = ("cat", "dog", "fox")
WORDS = {"cat": "purr whiskers", "dog": "bark fetch", "fox": "den red"}
STEADY = SGDClassifier(loss="log_loss", learning_rate="constant", eta0=0.05, random_state=0)


def by_weight(columns, label, *, parent, seed):
    """An owner's function: the mean weight of each class."""
    means = [float(np.nanmean(columns["weight"][label == place])) for place in range(len(KINDS))]
    return {"means.json": json.dumps(means).encode()}


class _Means:
    def __init__(self, means):
        self.means = np.array(means)

    def predict(self, columns):
        near = np.exp(-np.abs(np.nan_to_num(columns["weight"])[:, None] - self.means))
        return near / near.sum(axis=1, keepdims=True)


def load_means(files):
    return _Means(json.loads(files["means.json"]))


def animals(rows=600, *, seed=0, classes=KINDS, text=False, parent=None, only=KINDS):
    """Rows whose weight and colour (or words) tell the animal."""
    rng = np.random.default_rng(seed)
    place = rng.choice([classes.index(kind) for kind in only], rows)
    colour = np.array(["black", "brown", "red"], dtype=object)[
        np.where(rng.random(rows) < 0.7, place % 3, rng.integers(0, 3, rows))
    ]
    columns = {"weight": np.array([4.0, 20.0, 8.0, 12.0])[place] + rng.normal(0, 3, rows), "colour": colour}
    features = [("weight", "float", False), ("colour", "category", False)]
    if text:
        words = [[*WORDS[KINDS[each % 3]].split(), "the", "a", f"noise{rng.integers(50)}"] for each in place]
        said = [" ".join(rng.permutation(each)) for each in words]
        columns["said"] = np.array(said, dtype=object)
        features.append(("said", "text", False))
    schema = Schema(tuple(features), "id", "multiclass", classes=classes)
    return training_set(schema, columns, place.astype(np.float64), parent=parent), columns


def served(learner, data, files):
    made = ModelArtifact(learner.format, data.encoder, repr(learner), files)
    trusted = ["tests.learners.test_classes:load_means"]
    return load_artifact({name: bytes(content) for name, content in made.to_files().items()}, trusted=trusted)


LEARNERS = {
    "xgboost": XGBoost(rounds=30, max_depth=3, threads=1),
    "lightgbm": LightGBM(rounds=30, num_leaves=8, threads=1),
    "scikit-learn": ScikitLearn(STEADY, categories="one-hot"),
    "river": River(
        preprocessing.StandardScaler() | multiclass.OneVsRestClassifier(linear_model.LogisticRegression()),
        categories="one-hot",
    ),
    "function": Function("tests.learners.test_classes:by_weight", load="tests.learners.test_classes:load_means"),
}
if find_spec("torch") is not None:  # where it is not, tests/learners/test_torch_classes.py says so
    LEARNERS["torch"] = Torch([16], epochs=20, batch_size=64, learning_rate=0.01)


@pytest.mark.parametrize("name", LEARNERS)
def test_a_learner_answers_the_probability_of_each_class_in_order(name):
    learner = LEARNERS[name]
    data, _ = animals()
    fresh, columns = animals(seed=1)
    answers = served(learner, data, learner.fit(data, seed=1)).answer(columns)
    assert answers.shape == (600, 3)
    np.testing.assert_allclose(answers.sum(axis=1), 1, atol=1e-6)
    loss = METRICS["log_loss"].measure(fresh.label, answers).estimate
    assert loss < 0.75 * np.log(3), loss
    empty = {name: column[:0] for name, column in columns.items()}
    assert served(learner, data, learner.fit(data, seed=1)).answer(empty).shape == (0, 3)


@pytest.mark.parametrize("name", [name for name, learner in LEARNERS.items() if learner.stateful])
def test_an_update_goes_on_and_keeps_the_classes(name):
    learner = LEARNERS[name]
    data, _ = animals(rows=60)
    first = learner.fit(data, seed=1)
    more, _ = animals(rows=2000, seed=2, parent=data.encoder)
    fresh, columns = animals(seed=3)
    before, after = served(learner, data, first), served(learner, more, learner.update(first, more, seed=1))
    loss = METRICS["log_loss"].row_loss
    gained = loss(fresh.label, before.answer(columns)) - loss(fresh.label, after.answer(columns))
    assert gained.mean() > 2 * gained.std() / np.sqrt(len(gained)), gained.mean()


@pytest.mark.parametrize("name", [name for name, learner in LEARNERS.items() if learner.stateful])
def test_classes_in_another_order_are_refused(name):
    learner = LEARNERS[name]
    data, _ = animals()
    turned, _ = animals(classes=("dog", "cat", "fox"), parent=data.encoder)
    with pytest.raises(CannotLearn, match="classes do not begin with the parent's cat, dog, fox"):
        learner.update(learner.fit(data, seed=1), turned, seed=1)


def test_boosted_trees_get_a_class_by_surgery_and_learn_it():
    learner = LEARNERS["xgboost"]
    data, _ = animals()
    wider, _ = animals(
        rows=1500, classes=(*KINDS, "hen"), text=False, parent=data.encoder, only=(*KINDS, "hen"), seed=4
    )
    files = learner.fit(data, seed=1)
    grown, proof = grown_parent(learner, files, wider)
    assert proof is not None
    assert proof.passed
    assert proof.operation == "AddClasses(1, 0.01)"
    assert max(one.relative for one in proof.differences) <= 1e-6
    fresh, columns = animals(classes=(*KINDS, "hen"), only=(*KINDS, "hen"), seed=5)
    before, given = served(learner, data, files).answer(columns), served(learner, wider, grown).answer(columns)
    np.testing.assert_allclose(given[:, :3] / given[:, :3].sum(axis=1, keepdims=True), before, rtol=1e-4, atol=1e-6)
    assert 0 < given[:, 3].mean() < 0.05
    after = served(learner, wider, learner.update(grown, wider, seed=1)).answer(columns)
    hens = fresh.label == 3
    assert (given[hens].argmax(axis=1) == 3).mean() < 0.05
    assert after[hens, 3].mean() > 0.4
    loss = METRICS["log_loss"].row_loss
    assert loss(fresh.label, after).mean() < loss(fresh.label, given).mean() - 0.3


@pytest.mark.parametrize("name", ["xgboost", "lightgbm"])
def test_trees_of_fewer_classes_are_not_continued_as_if_they_had_more(name):
    learner = LEARNERS[name]
    data, _ = animals()
    wider, _ = animals(classes=(*KINDS, "hen"), parent=data.encoder, only=(*KINDS, "hen"))
    with pytest.raises(CannotLearn, match="from scratch"):
        learner.update(learner.fit(data, seed=1), wider, seed=1)


def test_a_class_without_examples_is_answered_with_zero_and_refused_once_it_comes():
    learner = LEARNERS["scikit-learn"]
    classes = (*KINDS, "hen")
    data, columns = animals(classes=classes)
    files = learner.fit(data, seed=1)
    answers = served(learner, data, files).answer(columns)
    assert answers.shape == (600, 4)
    assert (answers[:, 3] == 0).all()
    more, _ = animals(classes=classes, only=classes, seed=1, parent=data.encoder)
    with pytest.raises(CannotLearn, match="no 'hen', and could never answer it"):
        learner.update(files, more, seed=1)


@pytest.mark.parametrize(
    ("label", "says"),
    [(np.full(600, 1.0), "all labels are 'dog'"), (np.arange(600) % 4.0, "a label is 3, and there are 3 classes")],
)
def test_labels_that_are_no_places_of_classes_are_refused(label, says):
    data, _ = animals()
    with pytest.raises(CannotLearn, match=says):
        LEARNERS["xgboost"].fit(replace(data, label=label), seed=1)


# --- text --------------------------------------------------------------------------------------------------------

READERS = {
    "among others, made ready": ScikitLearn(STEADY, categories="one-hot"),
    "among others, picked": ScikitLearn(
        make_pipeline(
            ColumnTransformer([("said", HashingVectorizer(n_features=256), 2), ("weight", "passthrough", [0])]), STEADY
        )
    ),
}


@pytest.mark.parametrize("name", READERS)
def test_text_is_read_stored_and_continued(name):
    learner = READERS[name]
    data, _ = animals(text=True)
    fresh, columns = animals(text=True, seed=1)
    files = learner.fit(data, seed=1)
    assert METRICS["error_rate"].measure(fresh.label, served(learner, data, files).answer(columns)).estimate < 0.1
    more, _ = animals(text=True, seed=2, parent=data.encoder)
    updated = served(learner, more, learner.update(files, more, seed=1)).answer(columns)
    assert METRICS["error_rate"].measure(fresh.label, updated).estimate < 0.05


def test_one_text_alone_is_handed_over_as_texts_are():
    texts = np.array(["good film", "bad film", "very good", None, "so bad"] * 40, dtype=object)
    label = np.array([1.0, 0, 1, 1, 0] * 40)
    schema = Schema((("said", "text", False),), "id", "binary")
    data = training_set(schema, {"said": texts}, label)
    learner = ScikitLearn(make_pipeline(HashingVectorizer(n_features=64), LogisticRegression()))
    model = served(learner, data, learner.fit(data, seed=1))
    asked = np.array(["a good one", "a bad one", ""], dtype=object)
    good, bad, missing = model.answer({"said": asked})
    assert good > 0.9
    assert bad < 0.4
    assert model.answer({"said": np.array([None], dtype=object)})[0] == missing


def test_a_training_process_reads_the_same_text(tmp_path):
    loop_file = tmp_path / "animals.py"
    loop_file.write_text(
        "from sklearn.linear_model import SGDClassifier\n"
        "from leaven import Feature, Label, Loop\n"
        "from leaven.curation import AllHistory\nfrom leaven.learners import ScikitLearn\n"
        "from leaven.training import Stateful\n"
        'steady = SGDClassifier(loss="log_loss", learning_rate="constant", eta0=0.05, random_state=0)\n'
        'loop = Loop("animals", features=[Feature("weight", "float"), Feature("colour", "category"),\n'
        '    Feature("said", "text")], unit="id", label=Label("kind", classes=["cat", "dog", "fox"], within="1d"),\n'
        '    learner=ScikitLearn(steady, categories="one-hot"), data=AllHistory(), plan=Stateful())\n'
    )
    from leaven.loopfile import load_loop

    loop = load_loop(loop_file)
    data, columns = animals(text=True)
    job = TrainingJob(loop_file, "animals", loop.digest, "fit", loop.seed, data)
    outcome = train_in_process(job, seconds=120, memory_mb=4000)
    here = loop.learner.fit(data, seed=loop.seed)
    there = served(loop.learner, data, outcome.files).answer(columns)
    np.testing.assert_array_equal(there, served(loop.learner, data, here).answer(columns))


def test_a_learner_that_reads_no_text_or_learns_no_classes_is_refused_when_the_loop_is_written():
    given = {"unit": "id", "data": AllHistory(), "plan": Stateless()}
    label = Label("kind", classes=["a", "b", "c"], within="1d")
    with pytest.raises(BadDefinition, match="XGBoost reads no text, and feature 'said' is one"):
        Loop("x", features=[Feature("said", "text")], label=label, learner=XGBoost(), **given)

    class Numbers:
        format, stateful = "own", False

        def fit(self, data, *, seed):
            raise NotImplementedError

    with pytest.raises(BadDefinition, match="Numbers learns no multiclass label"):
        Loop("x", features=[Feature("said", "float")], label=label, learner=Numbers(), **given)


def test_old_rows_are_not_labelled_by_probabilities_of_classes():
    label = Label("kind", classes=["a", "b", "c"], within="1d")
    with pytest.raises(BadDefinition, match="probabilities of several classes"):
        Loop(
            "x", features=[Feature("said", "float")], label=label, learner=XGBoost(), unit="id", data=AllHistory(),
            plan=Stateful(replay=1.0, replay_labels="model"),
        )  # fmt: skip
