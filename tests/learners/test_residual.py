"""A model that starts from another one's answers: does it answer as that, does it learn, and what does it refuse?"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import cache

import numpy as np
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor, RandomForestClassifier
from sklearn.linear_model import LogisticRegression

from leaven.learners import Function, LightGBM, ScikitLearn, XGBoost, load
from leaven.learners.artifact import ModelArtifact, load_artifact
from leaven.learners.fitting import fit_or_update, read_folder, write_folder
from leaven.learners.formats import ModelDamaged
from leaven.learners.growing import grown_parent
from leaven.learners.residual import CERTAIN, MOST_PARENTS, Base, ResidualModel, parents_in, started, why_not
from leaven.stats.metrics import METRICS
from leaven.training.encoding import Encoder
from leaven.training.learner import CannotLearn, Files, Learner, TrainingSet
from leaven.training.surgery import Proof
from tests.learners.builders import a_training_set, some_columns
from tests.learners.test_growing import later, without

XGB = XGBoost(20, max_depth=3, threads=1)
LGB = LightGBM(20, num_leaves=8, threads=1)
BOOSTERS = {"xgboost": XGB, "lightgbm": LGB}
BOOSTED, FOREST = HistGradientBoostingClassifier(max_iter=10), RandomForestClassifier(n_estimators=10)
PARENTS: dict[str, tuple[Learner, str]] = {
    "histogram boosting": (ScikitLearn(BOOSTED), "binary"),
    "a forest, sure of itself": (ScikitLearn(FOREST), "binary"),
    "xgboost": (XGB, "binary"),
    "lightgbm": (LGB, "binary"),
    "numbers by histogram boosting": (ScikitLearn(HistGradientBoostingRegressor(max_iter=10)), "regression"),
}
OWNED = "tests.learners.owned:load"

for_every_booster = pytest.mark.parametrize("learner", BOOSTERS.values(), ids=BOOSTERS)


@cache
def a_parent(name: str = "histogram boosting") -> ModelArtifact:
    learner, task = PARENTS[name]
    data = a_training_set(600, task=task)
    return ModelArtifact(learner.format, data.encoder, repr(learner), learner.fit(data, seed=1))


def begun(learner: Learner, parent: ModelArtifact, data: TrainingSet) -> tuple[Files, Proof]:
    return started(learner, parent, task=data.schema.task, new=data.encoder, matrix=data.matrix)


@for_every_booster
@pytest.mark.parametrize("name", PARENTS)
def test_at_zero_rounds_it_answers_as_the_parent_whatever_that_is(learner, name):
    task, parent = PARENTS[name][1], a_parent(name)
    new = later(task=task)
    files, proof = begun(learner, parent, new)
    assert proof.passed
    assert proof.operation == 'CorrectParent(["w", "kind"])'
    assert f"the raw score of its {parent.format}" in proof.way
    assert [one.precision for one in proof.differences] == ["float32", "float64"]
    other = later(task=task, seed=11)  # rows that the proof has not seen
    before = load(parent.format, parent.files).predict(without(other).matrix)
    after = load(learner.format, files).predict(other.matrix)
    np.testing.assert_allclose(after, before, rtol=1e-6, atol=2 * CERTAIN)


@for_every_booster
@pytest.mark.parametrize("name", PARENTS)
def test_training_goes_on_with_what_is_new_and_again(learner, name):
    task, parent = PARENTS[name][1], a_parent(name)
    new, fresh = later(task=task), later(task=task, seed=21, rows=2000)
    files, _ = begun(learner, parent, new)
    child = learner.update(files, new, seed=2)
    metric = METRICS["log_loss" if task == "binary" else "absolute_error"]
    answers = load(learner.format, child).predict(fresh.matrix)
    before = load(parent.format, parent.files).predict(without(fresh).matrix)
    assert metric.measure(fresh.label, answers).high < metric.measure(fresh.label, before).low
    twice = learner.update(child, later(task=task, seed=5, rows=1500), seed=3)
    further = load(learner.format, twice).predict(fresh.matrix)
    assert metric.measure(fresh.label, further).estimate < metric.measure(fresh.label, answers).estimate
    assert parents_in(child) == parents_in(twice) == 1  # an update goes on; only another start stands on it


@pytest.mark.parametrize(
    "learner",
    [XGBoost(60, max_depth=2, eta=0.1, update_rounds=10, threads=1),
     LightGBM(60, num_leaves=4, min_child_samples=10, update_rounds=10, threads=1)],
    ids=BOOSTERS,
)  # fmt: skip
def test_little_new_data_is_worth_more_on_top_of_what_is_known(learner):
    """The concept is as it was; 80 rows alone say less than 80 rows on top of a parent of 600 of another kind."""
    parent, few = a_parent(), a_training_set(80, seed=40)
    fresh = a_training_set(3000, seed=50)
    files, _ = begun(learner, parent, few)
    loss = METRICS["log_loss"].measure
    onwards = load(learner.format, learner.update(files, few, seed=2)).predict(fresh.matrix)
    alone = load(learner.format, learner.fit(few, seed=2)).predict(fresh.matrix)
    assert loss(fresh.label, onwards).high < loss(fresh.label, alone).low


@for_every_booster
def test_what_is_stored_answers_the_same_alone_among_many_and_from_many_threads(learner, tmp_path):
    new = later()
    child = learner.update(begun(learner, a_parent(), new)[0], new, seed=2)
    assert learner.update(begun(learner, a_parent(), new)[0], new, seed=2) == child
    write_folder(tmp_path / "model", child)  # as a training process hands it over
    assert read_folder(tmp_path / "model") == {name: bytes(content) for name, content in child.items()}
    artifact = ModelArtifact(learner.format, new.encoder, repr(learner), child)
    served = load_artifact(artifact.to_files())
    many = served.model.predict(new.matrix)
    np.testing.assert_array_equal(load(learner.format, child).predict(new.matrix), many)
    np.testing.assert_array_equal(served.model.predict(new.matrix[3:4]), many[3:4])
    assert served.model.predict(new.matrix[:0]).shape == (0,)
    with ThreadPoolExecutor(4) as pool:
        answered = list(pool.map(lambda i: served.model.predict(new.matrix[i : i + 7]), range(40)))
    np.testing.assert_array_equal(np.array([each[0] for each in answered]), many[:40])
    columns = some_columns(20, colours="never seen") | {"w": np.zeros(20)}
    assert np.isfinite(served.answer(columns)).all()  # without `kind`, and with a colour that nobody knows


@for_every_booster
def test_it_is_grown_by_surgery_while_the_parent_stands_where_it_stood(learner):
    first = later("last")
    child = learner.update(begun(learner, a_parent(), first)[0], first, seed=2)
    grown, proof = grown_parent(learner, child, later("first"))
    assert proof.operation == "ReorderFeatures()"
    other = later("last", seed=11)
    turned = later("first", seed=11)
    np.testing.assert_array_equal(
        load(learner.format, grown).predict(turned.matrix), load(learner.format, child).predict(other.matrix)
    )
    assert learner.update(grown, later("first", seed=5), seed=3)


@for_every_booster
def test_models_stand_on_each_other_up_to_a_number(learner):
    parent, data = a_parent(), a_training_set(300, seed=2)
    for level in range(1, MOST_PARENTS + 1):
        assert why_not(learner, parent) == ""
        files = learner.update(begun(learner, parent, data)[0], data, seed=level)
        parent = ModelArtifact(learner.format, data.encoder, repr(learner), files)
        assert parents_in(files) == level
    assert np.isfinite(load(learner.format, parent.files).predict(data.matrix)).all()
    with pytest.raises(CannotLearn, match=r"3 models already stand under it, which is the most.*from scratch"):
        begun(learner, parent, data)


@pytest.mark.parametrize(
    "learner", [XGBoost(5, update_by="refresh"), LightGBM(5, update_by="refit"), ScikitLearn(LogisticRegression())],
    ids=["refresh", "refit", "scikit-learn"],
)  # fmt: skip
def test_learners_that_cannot_start_from_answers_say_so(learner):
    data = a_training_set(300)
    with pytest.raises(CannotLearn, match="as it is set, cannot start from another model's answers"):
        begun(learner, a_parent(), data)
    kin = XGB if isinstance(learner, XGBoost) else LGB
    if learner.format == kin.format:
        child = kin.update(begun(kin, a_parent(), data)[0], data, seed=1)
        with pytest.raises(CannotLearn, match="would leave alone the model that the parent starts from"):
            learner.update(child, data, seed=1)


@for_every_booster
def test_a_parent_that_takes_what_is_gone_is_refused(learner):
    parent = ModelArtifact("xgboost-ubj", later().encoder, repr(XGB), XGB.fit(later(), seed=1))
    with pytest.raises(CannotLearn, match=r"feature 'w' \(float\) of the parent is gone"):
        begun(learner, parent, without(later()))


@for_every_booster
def test_what_is_damaged_or_not_allowed_is_not_loaded(learner):
    new = later()
    files, _ = begun(learner, a_parent("xgboost"), new)
    for broken in ({"base/manifest.json": b"{"}, {"base/model/model.ubj": b""}, {"base/model/model.ubj": b"nothing"}):
        with pytest.raises(ModelDamaged):
            load(learner.format, {**files, **broken})
    with pytest.raises(ModelDamaged):
        load(learner.format, {name: held for name, held in files.items() if name != "base/manifest.json"})
    own = Function("tests.learners.owned:train", OWNED)
    data = a_training_set(300)
    parent = ModelArtifact(own.format, data.encoder, repr(own), own.fit(data, seed=1))
    files, _ = started(learner, parent, task="binary", new=data.encoder, matrix=data.matrix, trusted=[OWNED])
    with pytest.raises(Exception, match="LEAVEN_TRUSTED_TYPES="):
        load(learner.format, files)
    with pytest.raises(Exception, match="LEAVEN_TRUSTED_TYPES="):
        learner.update(files, data, seed=1)
    allowed = TrainingSet(data.matrix, data.label, data.encoder, data.schema, trusted=(OWNED,))
    child = fit_or_update(learner, allowed, mode="update", parent=files, seed=1)
    assert np.isfinite(load(learner.format, child, trusted=[OWNED]).predict(data.matrix)).all()


def test_several_classes_and_texts_are_refused_for_now():
    parent = a_parent()
    several = Encoder(parent.encoder.features, parent.encoder.categories, ("a", "b", "c"))
    reads = Encoder((*parent.encoder.features, ("title", "text", False)), parent.encoder.categories)
    for encoder, why in ((several, "several classes, which are not corrected yet"), (reads, "reads the text 'title'")):
        with pytest.raises(CannotLearn, match=f"cannot be corrected: .*{why}"):
            begun(XGB, ModelArtifact(parent.format, encoder, parent.learner, parent.files), a_training_set(300))


def test_the_raw_score_is_the_logit_bounded_where_a_parent_is_certain():
    class Says:
        def predict(self, matrix):
            return matrix[:, 0]

    base = Base(Says(), (1,), "binary")
    rows = np.column_stack([np.full(4, np.nan), [0.0, 0.2, 0.5, 1.0]])
    np.testing.assert_allclose(base.raw(rows), [-23.02585, -1.386294, 0.0, 23.02585], atol=1e-5)
    moved = ResidualModel(base, lambda matrix: np.full(len(matrix), 1.0)).predict(rows)
    np.testing.assert_allclose(moved[1:3], [1 / (1 + 4 / np.e), 1 / (1 + 1 / np.e)])  # odds times e
    assert Base(Says(), (1,), "regression").raw(rows).tolist() == [0.0, 0.2, 0.5, 1.0]
