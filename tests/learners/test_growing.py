"""A fitted model gets features that it did not know: does it answer as before, and does it learn from them?"""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression, SGDClassifier, SGDRegressor

from leaven.learners import LightGBM, River, ScikitLearn, XGBoost, load, surgery_lightgbm, surgery_xgboost
from leaven.learners.fitting import fit_or_update
from leaven.learners.growing import PROOF_FILE, grown_parent, proof_in
from leaven.learners.scikit_learn_storage import estimator_in
from leaven.learners.xgboost import booster_in
from leaven.stats.metrics import METRICS
from leaven.training.encoding import encoder_for
from leaven.training.learner import CannotLearn, TrainingSet
from leaven.training.surgery import NotProven, Proof, UnknownText, places
from tests.learners.builders import FEATURES, a_schema, a_training_set, some_columns

STEADY = {"learning_rate": "constant", "eta0": 0.02}
XGB = XGBoost(20, max_depth=3, threads=1)
LGB = LightGBM(20, num_leaves=8, threads=1)
GROWERS = {
    "xgboost": XGB,
    "lightgbm": LGB,
    "sgd": ScikitLearn(SGDClassifier(loss="log_loss", **STEADY), categories="one-hot"),
}
REGRESSORS = {"xgboost": XGB, "lightgbm": LGB, "sgd": ScikitLearn(SGDRegressor(**STEADY), categories="one-hot")}
CASES = [(one, "binary") for one in GROWERS.values()] + [(one, "regression") for one in REGRESSORS.values()]
W, KIND = ("w", "float", False), ("kind", "category", False)
ORDERS = {"last": (*FEATURES, W, KIND), "first": (KIND, W, *FEATURES), "between": (FEATURES[3], W, FEATURES[0], KIND,
          *FEATURES[1:3])}  # fmt: skip


def later(
    order: str = "between", *, task: str = "binary", seed: int = 3, rows: int = 600, colours: str = ""
) -> TrainingSet:
    """Rows whose label follows what is new as well, and that hold colours which the parent does not know."""
    rng = np.random.default_rng(seed)
    columns = some_columns(rows, seed=seed, colours=colours or "amber red green violet")
    columns["w"], columns["kind"] = rng.normal(size=rows), rng.choice(np.array(["a", "b", None], dtype=object), rows)
    columns["w"][rng.random(rows) < 0.1] = np.nan
    signal = np.nan_to_num(columns["size"]) + 2 * np.nan_to_num(columns["w"]) + 2.0 * (columns["kind"] == "b")
    label = (signal + rng.logistic(size=rows) * 0.3 > 0.5).astype(float) if task == "binary" else signal
    schema = a_schema(ORDERS[order], task)
    encoder = encoder_for(schema, columns, parent=a_training_set(600, task=task).encoder)
    return TrainingSet(encoder.encode(columns), label, encoder, schema)


def without(data: TrainingSet) -> TrainingSet:
    """The same rows as the parent takes them."""
    old = a_training_set(600, task=data.schema.task)
    known = {name: data.encoder.categories[name] for name in old.encoder.categories}
    encoder = type(old.encoder)(old.encoder.features, known)
    return TrainingSet(data.matrix[:, list(places("", encoder, data.encoder))], data.label, encoder, old.schema)


@pytest.fixture
def untested(monkeypatch):
    """An XGBoost of a version whose text we do not know."""
    monkeypatch.setattr(surgery_xgboost, "TESTED", ())


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(("learner", "task"), CASES, ids=str)
def test_a_grown_model_answers_as_the_parent_did(learner, task, order):
    new = later(order, task=task)
    parent = learner.fit(a_training_set(600, task=task), seed=1)
    grown, proof = grown_parent(learner, parent, new)
    assert proof.passed
    assert proof.operation.startswith("AddFeatures([")
    assert proof.probe_rows == 1024
    assert proof.differences[0].relative <= (1e-12 if isinstance(learner, ScikitLearn) else 0)
    other = later(order, task=task, seed=11)  # rows that the proof has not seen
    before = load(learner.format, parent).predict(without(other).matrix)
    after = load(learner.format, grown).predict(other.matrix)
    np.testing.assert_allclose(after, before, rtol=1e-12 if isinstance(learner, ScikitLearn) else 0)


@pytest.mark.parametrize("learner", GROWERS.values(), ids=GROWERS)
def test_training_goes_on_and_beats_the_same_model_without_what_is_new(learner):
    new = later()
    parent = learner.fit(a_training_set(600), seed=1)
    richer = fit_or_update(learner, new, mode="update", parent=parent, seed=2)
    poorer = fit_or_update(learner, without(new), mode="update", parent=parent, seed=2)
    fresh = later(seed=21, rows=2000)
    losses = [
        METRICS["log_loss"].measure(fresh.label, load(learner.format, files).predict(rows.matrix))
        for files, rows in ((richer, fresh), (poorer, without(fresh)))
    ]
    assert losses[0].high < losses[1].low, losses
    assert proof_in(richer).passed
    assert proof_in(poorer) is None
    again = fit_or_update(learner, later(seed=5), mode="update", parent=richer, seed=3)
    assert PROOF_FILE not in again  # a proof is of one step, and is not handed down


@pytest.mark.parametrize("learner", [XGB, LGB], ids=["xgboost", "lightgbm"])
def test_the_parents_trees_are_the_first_of_the_childs(learner):
    parent = learner.fit(a_training_set(600), seed=1)
    child = fit_or_update(learner, later(), mode="update", parent=parent, seed=2)
    other = later(seed=11)
    before = load(learner.format, parent).predict(without(other).matrix)
    if learner is XGB:
        after = booster_in(child)[:20].inplace_predict(other.matrix, validate_features=False)
    else:
        from leaven.learners.lightgbm import booster_in as lightgbm_in

        after = lightgbm_in(child).predict(other.matrix, num_iteration=20)
    np.testing.assert_array_equal(after, before)


@pytest.mark.parametrize("learner", [XGB, LGB, GROWERS["sgd"]], ids=GROWERS)
def test_a_model_can_be_grown_again_and_its_columns_be_put_in_another_order(learner):
    first = a_training_set(600)
    files = learner.fit(first, seed=1)
    for order, operation in (("last", "AddFeatures"), ("first", "ReorderFeatures"), ("between", "ReorderFeatures")):
        files, proof = grown_parent(learner, files, later(order))
        assert proof.operation.startswith(operation)
    other = later("between", seed=11)
    before = load(learner.format, learner.fit(first, seed=1)).predict(without(other).matrix)
    np.testing.assert_allclose(load(learner.format, files).predict(other.matrix), before, rtol=1e-12)


def _crossed(places):
    """Places by which two numbers, the second and third feature of the parent, are taken for each other."""
    return (places[0], places[2], places[1], *places[3:])


def test_surgery_that_goes_wrong_is_found_out(monkeypatch):
    """The splits of two numbers are crossed in the text, and the proof notices."""
    by_text, by_columns = surgery_lightgbm.with_columns, surgery_xgboost.with_columns
    wrong = lambda text, names, places: by_text(text, names=names, places=_crossed(places))  # noqa: E731
    monkeypatch.setattr("leaven.learners.lightgbm.with_columns", wrong)
    cut = lambda text, columns: by_columns(text, replace(columns, places=_crossed(columns.places)))  # noqa: E731
    monkeypatch.setattr("leaven.learners.xgboost.with_columns", cut)
    for learner in (XGB, LGB):
        parent = learner.fit(a_training_set(600), seed=1)
        with pytest.raises(NotProven, match="The changed model was not kept"):
            grown_parent(learner, parent, later())


@pytest.mark.parametrize(
    "learner", [XGBoost(5, update_by="refresh"), LightGBM(5, update_by="refit")], ids=["xgboost", "lightgbm"]
)
def test_trees_whose_splits_are_kept_would_never_use_a_new_feature(learner):
    parent = learner.fit(a_training_set(600), seed=1)
    assert not learner.grows
    with pytest.raises(
        CannotLearn, match=r"gained w \(float\), kind \(category\) since the parent, and it cannot grow"
    ):
        fit_or_update(learner, later(), mode="update", parent=parent, seed=1)
    old, new = a_training_set(600).encoder, later()
    with pytest.raises(CannotLearn, match="keeps every split"):
        learner.grow(parent, old=old, new=new.encoder, probe=new.matrix)


@pytest.mark.parametrize(
    "learner",
    [
        ScikitLearn(HistGradientBoostingClassifier(max_iter=5), update_rounds=5),
        ScikitLearn(SGDClassifier(loss="log_loss", average=True, **STEADY), categories="one-hot"),
        ScikitLearn(LogisticRegression(), categories="one-hot"),
    ],
    ids=["histogram boosting", "averaged sgd", "logistic regression"],
)
def test_estimators_that_cannot_be_grown_say_so(learner):
    parent, new = learner.fit(a_training_set(600), seed=1), later()
    assert not learner.grows
    with pytest.raises(CannotLearn, match="it cannot grow a model that is fitted"):
        fit_or_update(learner, new, mode="update", parent=parent, seed=1)
    with pytest.raises(CannotLearn, match="cannot be given columns"):
        learner.grow(parent, old=a_training_set(600).encoder, new=new.encoder, probe=new.matrix)


def test_a_new_number_is_scaled_by_how_it_varies_over_all_rows():
    """Not by the newest alone: those of one hour all have about one temperature."""
    learner, old = GROWERS["sgd"], a_training_set(600)
    new = later("last", rows=2000)
    column = new.encoder.features.index(W)
    new.matrix[:, column] = np.linspace(10, 30, 2000)
    new.matrix[::3, column] = np.nan
    grown, _ = grown_parent(learner, learner.fit(old, seed=1), new)
    scaler = estimator_in(grown, ()).steps[0][1].named_transformers_["number"]["standardscaler"]
    # Half are the newest, evenly from 27.44 to 30, half are evenly from 10 to 27.44: means 28.72 and 18.72.
    assert scaler.mean_[-1] == pytest.approx((28.72 + 18.72) / 2, abs=0.2)
    assert scaler.scale_[-1] == pytest.approx((((2.56**2 + 17.44**2) / 12) / 2 + 5**2) ** 0.5, abs=0.2)


def test_a_learner_without_surgery_says_so():
    from river import linear_model, optim, preprocessing

    learner = River(preprocessing.StandardScaler() | linear_model.LogisticRegression(optim.SGD(0.1)),
                    categories="one-hot")  # fmt: skip
    parent = learner.fit(a_training_set(200), seed=1)
    with pytest.raises(CannotLearn, match=r"River cannot learn: the features gained .* cannot grow"):
        fit_or_update(learner, later(), mode="update", parent=parent, seed=1)


def test_a_feature_that_is_gone_is_refused_as_before():
    parent = XGB.fit(later(), seed=1)
    with pytest.raises(CannotLearn, match=r"lost w \(float\), kind \(category\)"):
        fit_or_update(XGB, without(later()), mode="update", parent=parent, seed=1)


@pytest.mark.parametrize("learner", GROWERS.values(), ids=GROWERS)
def test_a_parent_is_grown_only_from_what_it_takes(learner):
    parent, new = learner.fit(a_training_set(600), seed=1), later()
    wrong = a_training_set(600, columns=some_columns(600, colours="blue cyan")).encoder
    with pytest.raises(CannotLearn, match="are not the parent's 3"):
        learner.grow(parent, old=wrong, new=new.encoder, probe=new.matrix)
    with pytest.raises(CannotLearn, match="gained w"):
        learner.grow(parent, old=later("last").encoder, new=new.encoder, probe=new.matrix)


def test_texts_are_left_as_they_are_where_nothing_changes():
    """LightGBM's to the byte; of XGBoost's every value."""
    stored = LGB.fit(a_training_set(600), seed=1)["model.txt"].decode()
    names = next(line for line in stored.splitlines() if line.startswith("feature_names=")).split("=")[1].split()
    assert surgery_lightgbm.with_columns(stored, names=names, places=range(4)) == stored
    booster = booster_in(XGB.fit(a_training_set(600), seed=1))
    text = bytes(booster.save_raw("json"))
    columns = surgery_xgboost.Columns(booster.feature_names, booster.feature_types, range(4))
    assert json.loads(surgery_xgboost.with_columns(text, columns)) == json.loads(text)


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("version=v4", "version=v5", "version v5"),
        ("end of trees", "and so on", "no end of trees"),
        ("feature_infos=", "feature_infos=none ", "5 columns"),
        ("\nTree=", "\nBush=", "no trees"),
        ("feature_infos=", "linear_tree=1\nfeature_infos=", "linear_tree"),
    ],
)
def test_a_text_of_lightgbm_that_is_not_known_is_not_changed(old, new, told):
    stored = LGB.fit(a_training_set(600), seed=1)["model.txt"].decode().replace(old, new)
    with pytest.raises(UnknownText, match=told):
        surgery_lightgbm.with_columns(stored, names=list("abcdef"), places=range(4))


def test_a_text_of_xgboost_that_is_not_known_is_not_changed():
    text = json.loads(bytes(booster_in(XGB.fit(a_training_set(600), seed=1)).save_raw("json")))
    columns = surgery_xgboost.Columns(list("abcdef"), ["float"] * 6, range(4))
    for change in (
        {"version": [9, 0, 0]}, {"learner": {}}, {"learner": text["learner"] | {"gradient_booster": {"name": "dart"}}},
    ):  # fmt: skip
        with pytest.raises(UnknownText):
            surgery_xgboost.with_columns(json.dumps(text | change).encode(), columns)


@pytest.mark.usefixtures("untested")
@pytest.mark.parametrize("task", ["binary", "regression"])
def test_where_the_text_is_not_known_the_parent_is_kept_whole_and_started_from(task):
    new, parent = later(task=task), XGB.fit(a_training_set(600, task=task), seed=1)
    grown, proof = grown_parent(XGB, parent, new)
    assert proof.passed
    assert "kept whole, as the model's text is of XGBoost" in proof.way
    assert {one.precision: one.relative <= 1e-6 for one in proof.differences} == {"float32": True, "float64": True}
    assert grown["base/model/model.ubj"] == parent["model.ubj"]
    child = fit_or_update(XGB, new, mode="update", parent=parent, seed=2)
    child = fit_or_update(XGB, new, mode="update", parent=child, seed=3)
    fresh = later(seed=21, rows=1000, task=task)
    model, metric = load("xgboost-ubj", child), METRICS["log_loss" if task == "binary" else "absolute_error"]
    poorer = load("xgboost-ubj", fit_or_update(XGB, without(new), mode="update", parent=parent, seed=2))
    ours = metric.measure(fresh.label, model.predict(fresh.matrix))
    assert ours.high < metric.measure(fresh.label, poorer.predict(without(fresh).matrix)).low
    assert len(model.predict(fresh.matrix[:0])) == 0
    np.testing.assert_array_equal(model.predict(fresh.matrix[3:4]), model.predict(fresh.matrix)[3:4])


def test_the_proof_is_kept_with_the_files_and_comes_back():
    parent = XGB.fit(a_training_set(600), seed=1)
    proof = proof_in(fit_or_update(XGB, later(), mode="update", parent=parent, seed=2))
    assert isinstance(proof, Proof)
    assert proof.differences[0].precision == "float32"
