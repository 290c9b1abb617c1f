"""What every learner must keep, whatever it is made of."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor, RandomForestClassifier
from sklearn.linear_model import LogisticRegression, Ridge, SGDClassifier, SGDRegressor
from sklearn.pipeline import Pipeline, make_pipeline  # noqa: F401  # Pipeline: for eval of a learner's repr
from sklearn.preprocessing import StandardScaler

from leaven.learners import ScikitLearn, XGBoost, load
from leaven.learners.artifact import ModelArtifact, load_artifact
from leaven.training.learner import CannotLearn
from tests.learners.builders import FEATURES, a_schema, a_training_set, some_columns

CLASSIFIERS = [
    XGBoost(15, max_depth=3, threads=1),
    ScikitLearn(HistGradientBoostingClassifier(max_iter=10)),
    ScikitLearn(RandomForestClassifier(n_estimators=10)),
    ScikitLearn(LogisticRegression(), categories="one-hot"),
    ScikitLearn(SGDClassifier(loss="log_loss", learning_rate="constant", eta0=0.02), categories="one-hot"),
    ScikitLearn(make_pipeline(StandardScaler(), SGDClassifier(loss="log_loss")), categories="one-hot"),
    ScikitLearn(RandomForestClassifier(n_estimators=10), update_rounds=10),
    ScikitLearn(HistGradientBoostingClassifier(max_iter=10), update_rounds=10),
]
REGRESSORS = [
    XGBoost(15, max_depth=3, threads=1),
    ScikitLearn(HistGradientBoostingRegressor(max_iter=10)),
    ScikitLearn(Ridge(), categories="one-hot"),
    ScikitLearn(SGDRegressor(), categories="one-hot"),
]
STATEFUL = [learner for learner in CLASSIFIERS if learner.stateful]
LEARNERS = [(learner, "binary") for learner in CLASSIFIERS] + [(learner, "regression") for learner in REGRESSORS]

for_every_learner = pytest.mark.parametrize(("learner", "task"), LEARNERS, ids=lambda given: str(given)[:60])
for_every_stateful = pytest.mark.parametrize("learner", STATEFUL, ids=lambda given: str(given)[:60])


@for_every_learner
def test_a_model_finds_what_there_is_and_answers_in_range(learner, task):
    data, fresh = a_training_set(600, task=task), a_training_set(600, seed=50, task=task)
    answers = load(learner.format, learner.fit(data, seed=1)).predict(data.encoder.encode(some_columns(600, seed=50)))
    assert answers.shape == (600,)
    assert answers.dtype == np.float64
    assert np.corrcoef(answers, fresh.label)[0, 1] > 0.15  # 600 answers by chance: 0.04
    assert task == "regression" or ((answers >= 0) & (answers <= 1)).all()


@for_every_learner
def test_a_reloaded_artifact_answers_bit_for_bit_as_the_fitted_model(learner, task):
    data, columns = a_training_set(task=task), some_columns(50, seed=9)
    files = learner.fit(data, seed=1)
    direct = load(learner.format, files).predict(data.encoder.encode(columns))
    stored = ModelArtifact(learner.format, data.encoder, repr(learner), files, {"python": "3"}).to_files()
    np.testing.assert_array_equal(load_artifact(stored).answer(columns), direct)


@for_every_learner
def test_the_same_data_and_seed_give_the_same_answers(learner, task):
    data = a_training_set(task=task)
    once, again = (load(learner.format, learner.fit(data, seed=4)).predict(data.matrix) for _ in range(2))
    np.testing.assert_array_equal(once, again)


@for_every_learner
def test_one_row_is_answered_as_among_many_and_no_row_by_nothing(learner, task):
    data = a_training_set(task=task)
    model = load(learner.format, learner.fit(data, seed=1))
    among_many = model.predict(data.matrix[:5])
    alone = np.concatenate([model.predict(data.matrix[i : i + 1]) for i in range(5)])
    np.testing.assert_allclose(alone, among_many, rtol=1e-12)
    assert model.predict(data.matrix[:0]).shape == (0,)


@for_every_learner
def test_an_unknown_category_and_missing_features_are_answered(learner, task):
    data = a_training_set(task=task)
    files = learner.fit(data, seed=1)
    served = load_artifact(ModelArtifact(learner.format, data.encoder, repr(learner), files).to_files())
    answers = served.answer({"colour": np.array(["never seen", None], dtype=object)})
    assert np.isfinite(answers).all() or "RandomForest" in repr(learner)


@for_every_learner
@pytest.mark.parametrize("bad", ["no rows", "unknown label", "one column short"])
def test_data_that_cannot_be_learnt_from_is_refused_with_a_reason(learner, task, bad):
    data = a_training_set(40, task=task)
    matrix, label = data.matrix, data.label.copy()
    if bad == "no rows":
        matrix, label = matrix[:0], label[:0]
    elif bad == "unknown label":
        label[3] = np.nan
    else:
        matrix = matrix[:, :-1]
    with pytest.raises(CannotLearn, match="cannot learn"):
        learner.fit(type(data)(matrix, label, data.encoder, data.schema), seed=1)


@pytest.mark.parametrize("learner", CLASSIFIERS, ids=lambda given: str(given)[:60])
@pytest.mark.parametrize("label", [np.zeros(40), np.full(40, 2.0)])
def test_one_class_and_strange_classes_are_refused(learner, label):
    with pytest.raises(CannotLearn):
        learner.fit(a_training_set(40, label=label), seed=1)


@for_every_learner
def test_only_stateful_learners_can_be_continued(learner, task):
    data = a_training_set(task=task)
    parent = learner.fit(data, seed=1)
    if learner.stateful:
        assert load(learner.format, learner.update(parent, data, seed=2)).predict(data.matrix).shape == data.label.shape
    else:
        with pytest.raises(CannotLearn, match=r"(partial_fit|learns less)"):
            learner.update(parent, data, seed=2)


@for_every_stateful
def test_an_update_moves_towards_the_new_rows(learner):
    """The concept turns round: the continued model must rank the new rows better than its parent does."""
    old = a_training_set(600)
    turned = a_training_set(600, seed=7, parent=old.encoder)
    turned = type(old)(turned.matrix, 1 - turned.label, turned.encoder, turned.schema)
    parent = learner.fit(old, seed=1)
    child = learner.update(parent, turned, seed=2)
    gain = [
        np.corrcoef(load(learner.format, files).predict(turned.matrix), turned.label)[0, 1] for files in (parent, child)
    ]
    assert gain[1] > gain[0] + 0.1


@for_every_stateful
def test_an_update_takes_new_categories_after_the_old_ones(learner):
    old = a_training_set()
    grown = a_training_set(columns=some_columns(400, seed=3, colours="amber red violet"), parent=old.encoder)
    child = learner.update(learner.fit(old, seed=1), grown, seed=2)
    answers = load(learner.format, child).predict(grown.encoder.encode(some_columns(20, colours="amber blue")))
    assert np.isfinite(answers).all()


@for_every_stateful
def test_an_update_refuses_a_category_map_that_did_not_only_grow(learner):
    old = a_training_set()
    shifted = a_training_set(columns=some_columns(400, seed=3, colours="amber red violet"))  # without the parent's map
    with pytest.raises(CannotLearn, match=r"categories of feature 'colour'.*from scratch"):
        learner.update(learner.fit(old, seed=1), shifted, seed=2)


COLOUR, SIZE, COUNT, NEW = FEATURES


@for_every_stateful
@pytest.mark.parametrize(
    ("features", "reason"),
    [
        ((SIZE, COLOUR, COUNT, NEW), "another order"),
        ((COLOUR, SIZE, COUNT), r"lost new \(bool\)"),
        ((COLOUR, SIZE, ("count", "float", False), NEW), r"lost count \(int\) and gained count \(float\)"),
    ],
)
def test_an_update_refuses_features_in_another_order_number_or_type(learner, features, reason):
    parent = learner.fit(a_training_set(), seed=1)
    with pytest.raises(CannotLearn, match=reason):
        learner.update(parent, a_training_set(schema=a_schema(features)), seed=2)


@for_every_stateful
def test_an_update_refuses_a_parent_of_another_task(learner):
    parent = learner.fit(a_training_set(), seed=1)
    with pytest.raises(CannotLearn, match="binary task"):
        learner.update(parent, a_training_set(task="regression"), seed=2)


@for_every_learner
def test_a_learner_prints_the_expression_that_makes_it_again(learner, task):
    assert eval(repr(learner)) == learner
    assert hash(eval(repr(learner))) == hash(learner)


@for_every_learner
def test_threads_that_share_a_model_get_the_answers_one_alone_gets(learner, task):
    data = a_training_set(task=task)
    model = load(learner.format, learner.fit(data, seed=1))
    alone = [model.predict(data.matrix[i : i + 7]) for i in range(40)]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda i: model.predict(data.matrix[i : i + 7]), range(40)))
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_array_equal(one, other)
