"""How scikit-learn's estimators go on, and where they would go wrong without a word."""

import warnings

import numpy as np
import pytest
import skops.io
from sklearn.ensemble import (
    AdaBoostClassifier,
    BaggingClassifier,
    ExtraTreesClassifier,
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
)
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, SGDClassifier, SGDRegressor
from sklearn.naive_bayes import GaussianNB
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline

from leaven.errors import BadDefinition
from leaven.learners import ScikitLearn, load
from leaven.learners.guards import INPUTS_FILE
from leaven.training.learner import CannotLearn
from tests.learners.builders import a_schema, a_training_set, some_columns

GROWING = [
    RandomForestClassifier(n_estimators=8),
    ExtraTreesClassifier(n_estimators=8),
    GradientBoostingClassifier(n_estimators=8),
    HistGradientBoostingClassifier(max_iter=8),
    BaggingClassifier(n_estimators=8),
]


def a_pair(rows=300):
    old = a_training_set(rows, columns=some_columns(rows, gaps=False))
    new = a_training_set(rows, columns=some_columns(rows, seed=5, gaps=False), seed=5, parent=old.encoder)
    return old, new


def stored_in(files):
    return skops.io.loads(files["model.skops"], trusted=skops.io.get_untrusted_types(data=files["model.skops"]))


def predictions(estimator, matrix):
    return estimator.predict_proba(matrix)[:, 1]


@pytest.mark.parametrize("estimator", GROWING, ids=lambda given: type(given).__name__)
def test_forests_and_boosted_trees_grow_by_trees_of_the_new_rows_as_the_library_grows_them(estimator):
    old, new = a_pair()
    learner = ScikitLearn(estimator, update_rounds=4)
    child = stored_in(learner.update(learner.fit(old, seed=3), new, seed=9))
    setting = "max_iter" if hasattr(estimator, "max_iter") else "n_estimators"
    by_hand = type(estimator)(**{setting: 8}, random_state=3, warm_start=True)
    by_hand.fit(old.matrix, old.label.astype(int))
    by_hand.set_params(**{setting: 12}).fit(new.matrix, new.label.astype(int))
    np.testing.assert_array_equal(predictions(child, new.matrix), predictions(by_hand, new.matrix))


def test_a_forest_grows_behind_frozen_steps_and_twice():
    old, new = a_pair()
    learner = ScikitLearn(make_pipeline(SimpleImputer(), RandomForestClassifier(n_estimators=5)), update_rounds=3)
    once = learner.update(learner.fit(old, seed=1), new, seed=2)
    twice = stored_in(learner.update(once, old, seed=3))
    assert len(twice[-1].estimators_) == 11


def test_a_forest_that_is_asked_for_no_more_trees_only_warns_in_the_library_and_is_no_update_here():
    """scikit-learn warns, and trains nothing."""
    old, new = a_pair()
    forest = RandomForestClassifier(n_estimators=5, warm_start=True, random_state=1)
    forest.fit(old.matrix, old.label.astype(int))
    before = forest.predict_proba(new.matrix)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        forest.fit(new.matrix, new.label.astype(int))
    np.testing.assert_array_equal(forest.predict_proba(new.matrix), before)
    learner = ScikitLearn(RandomForestClassifier(n_estimators=5))
    assert not learner.stateful
    with pytest.raises(CannotLearn, match=r"RandomForestClassifier has no partial_fit.*update_rounds=…, by which it"):
        learner.update(learner.fit(old, seed=1), new, seed=1)


def test_a_model_cannot_grow_for_ever():
    old, _ = a_pair()
    learner = ScikitLearn(RandomForestClassifier(n_estimators=5), update_rounds=6, max_rounds=12)
    once = learner.update(learner.fit(old, seed=1), old, seed=1)
    with pytest.raises(CannotLearn, match=r"17 trees, more than max_rounds=12\. Fit a version from scratch"):
        learner.update(once, old, seed=1)


@pytest.mark.parametrize(
    "estimator",
    [
        HistGradientBoostingClassifier(max_iter=60, early_stopping=True, n_iter_no_change=2, learning_rate=0.5),
        GradientBoostingClassifier(n_estimators=60, n_iter_no_change=2, learning_rate=0.5),
    ],
    ids=lambda given: type(given).__name__,
)
def test_a_parent_that_stopped_early_still_gets_all_its_new_trees(estimator):
    """Counted from its setting it would get none, or hundreds; and an early stop would end the update as well."""
    old, new = a_pair()
    learner = ScikitLearn(estimator, update_rounds=7)
    parent = learner.fit(old, seed=1)
    grown = [
        getattr(model, "n_iter_", None) or len(model.estimators_)
        for model in (stored_in(parent), stored_in(learner.update(parent, new, seed=1)))
    ]
    assert grown[0] < 60
    assert grown[1] == grown[0] + 7


def test_histogram_boosting_that_grows_keeps_the_meaning_of_its_codes():
    """Told of categories, it numbers those of the new rows anew, and its old trees read other ones."""
    old, new = a_pair()
    without_green = new.matrix[:, 0] != old.encoder.categories["colour"].index("green")
    rows, target = new.matrix[without_green], new.label[without_green].astype(int)
    theirs = HistGradientBoostingClassifier(max_iter=8, categorical_features=[0], random_state=1)
    before = predictions(theirs.fit(old.matrix, old.label.astype(int)), rows)
    theirs.set_params(warm_start=True, max_iter=9).fit(rows, target)
    assert np.abs(list(theirs.staged_predict_proba(rows))[7][:, 1] - before).max() > 0.1

    told = ScikitLearn(HistGradientBoostingClassifier(categorical_features=[0]), update_rounds=2)
    with pytest.raises(CannotLearn, match=r"categorical_features=….*other codes"):
        told.update({}, new, seed=1)
    fitted_before = ScikitLearn(HistGradientBoostingClassifier(max_iter=8)).fit(old, seed=1)
    growing = ScikitLearn(HistGradientBoostingClassifier(max_iter=8), update_rounds=2)
    with pytest.raises(CannotLearn, match="split categories, whose codes would shift"):
        growing.update(fitted_before, new, seed=1)
    only_some = type(new)(rows, target.astype(float), new.encoder, new.schema)
    parent = growing.fit(old, seed=1)
    child = stored_in(growing.update(parent, only_some, seed=1))
    kept = list(child.staged_predict_proba(old.matrix))[7][:, 1]
    np.testing.assert_array_equal(kept, predictions(stored_in(parent), old.matrix))


def test_a_new_class_is_refused_before_histogram_boosting_ruins_its_old_trees_with_it():
    old, new = a_pair()
    learner = ScikitLearn(HistGradientBoostingClassifier(max_iter=5), update_rounds=2)
    parent = learner.fit(old, seed=1)
    third = type(new)(new.matrix, np.where(new.matrix[:, 1] > 1, 2.0, new.label), new.encoder, new.schema)
    with pytest.raises(CannotLearn, match="a binary label has the values"):
        learner.update(parent, third, seed=1)
    only_one = type(new)(new.matrix, np.ones(len(new.label)), new.encoder, new.schema)
    with pytest.raises(CannotLearn, match="all 300 labels are 1"):
        learner.update(parent, only_one, seed=1)


@pytest.mark.parametrize("classes", [[1, 0], [0, 2], [0, 1, 2]])
def test_a_parent_whose_classes_are_others_or_in_another_order_is_refused(classes):
    """The second column is answered, whatever class it stands for."""
    old, new = a_pair()
    learner = ScikitLearn(GaussianNB())
    parent = dict(learner.fit(old, seed=1))
    model = stored_in(parent)
    model.classes_ = np.array(classes)
    parent["model.skops"] = skops.io.dumps(model)
    with pytest.raises(CannotLearn, match=rf"classes are \[{classes[0]}, {classes[1]}"):
        learner.update(parent, new, seed=1)


@pytest.mark.parametrize(
    "estimator",
    [
        SGDClassifier(loss="log_loss"),
        SGDClassifier(loss="log_loss", learning_rate="invscaling", eta0=0.1),
        MLPClassifier(solver="sgd", learning_rate="invscaling"),
        make_pipeline(SimpleImputer(), SGDClassifier(loss="log_loss")),
    ],
    ids=lambda given: str(given)[:40].replace("\n", ""),
)
def test_a_rate_that_falls_with_every_row_makes_an_old_model_stiff_and_is_refused(estimator):
    learner = ScikitLearn(estimator)
    assert not learner.stateful
    with pytest.raises(CannotLearn, match=r'learning_rate="\w+"\) learns less with every row.*"adaptive" and an eta0'):
        learner.update({}, a_training_set(), seed=1)


def test_how_stiff_an_old_model_is():
    """The trap itself: after many rows of the old kind, one pass over the turned concept hardly moves it."""
    old, new = a_pair(300)
    turned = 1 - new.label.astype(int)
    moved = {}
    for rate in ("invscaling", "constant"):
        model = SGDClassifier(loss="log_loss", learning_rate=rate, eta0=0.05, power_t=0.5, random_state=1)
        for _ in range(30):
            model.partial_fit(old.matrix, old.label.astype(int), classes=[0, 1])
        before = predictions(model, new.matrix)
        moved[rate] = np.abs(predictions(model.partial_fit(new.matrix, turned), new.matrix) - before).mean()
    assert moved["constant"] > 5 * moved["invscaling"]


@pytest.mark.parametrize(
    "estimator",
    [
        SGDClassifier(loss="log_loss", learning_rate="adaptive", eta0=0.1),
        SGDRegressor(learning_rate="constant"),
        MLPClassifier(solver="adam", learning_rate="invscaling"),
        GaussianNB(),
    ],
    ids=str,
)
def test_a_rate_that_stays_is_taken(estimator):
    assert ScikitLearn(estimator).stateful


@pytest.mark.parametrize("estimator", [AdaBoostClassifier(), LogisticRegression(), MLPClassifier()], ids=str)
def test_what_does_not_grow_by_warm_start_is_refused(estimator):
    learner = ScikitLearn(estimator, update_rounds=5)
    assert not learner.stateful
    with pytest.raises(CannotLearn, match="does not grow by warm_start"):
        learner.update({}, a_training_set(), seed=1)


def test_an_extra_column_is_refused_though_histogram_boosting_would_take_it():
    old, _ = a_pair()
    learner = ScikitLearn(HistGradientBoostingClassifier(max_iter=3), update_rounds=2)
    parent = learner.fit(old, seed=1)
    wider = a_schema((*old.schema.features, ("late", "float", False)))
    columns = some_columns(300, seed=5) | {"late": np.arange(300.0)}
    with pytest.raises(CannotLearn, match=r"gained late \(float\)"):
        learner.update(parent, a_training_set(300, columns=columns, schema=wider, parent=old.encoder), seed=1)


def test_growth_survives_storing_and_answers_through_the_served_path():
    old, new = a_pair()
    learner = ScikitLearn(RandomForestClassifier(n_estimators=5), update_rounds=3)
    files = learner.update(learner.fit(old, seed=1), new, seed=1)
    assert files.keys() == {"model.skops", INPUTS_FILE}
    np.testing.assert_allclose(
        load("skops", files).predict(new.matrix), predictions(stored_in(files), new.matrix), rtol=1e-12
    )


@pytest.mark.parametrize("wrong", [{"update_rounds": -1}, {"update_rounds": 1.5}, {"max_rounds": 0}], ids=str)
def test_settings_out_of_range_are_refused_when_written(wrong):
    with pytest.raises(BadDefinition, match="ScikitLearn"):
        ScikitLearn(RandomForestClassifier(), **wrong)
