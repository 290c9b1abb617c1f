import numpy as np
import pytest
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, SGDClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler
from sklearn.svm import LinearSVC

from leaven.errors import BadDefinition
from leaven.learners import ScikitLearn, load
from leaven.learners.formats import ModelDamaged
from leaven.learners.scikit_learn import load_model
from leaven.learners.scikit_learn_storage import UntrustedTypes
from leaven.training.learner import CannotLearn
from tests.learners.builders import a_training_set, some_columns

STEADY = {"loss": "log_loss", "learning_rate": "constant", "eta0": 0.01}


def answers_of(learner, data):
    return load("skops", learner.fit(data, seed=3)).predict(data.matrix)


def doubled(matrix):
    return matrix * 2


def test_codes_reach_a_pipeline_as_they_are():
    data = a_training_set()
    pipeline = make_pipeline(SimpleImputer(), RandomForestClassifier(n_estimators=5, random_state=3))
    theirs = pipeline.fit(data.matrix, data.label).predict_proba(data.matrix)[:, 1]
    ours = answers_of(ScikitLearn(make_pipeline(SimpleImputer(), RandomForestClassifier(n_estimators=5))), data)
    np.testing.assert_array_equal(ours, theirs)


def test_one_hot_equals_a_frame_with_named_columns():
    """Oracle: the same preprocessing written for a pandas frame of the raw columns."""
    import pandas as pd

    columns = some_columns(400)
    data = a_training_set(columns=columns)
    front = ColumnTransformer(
        [
            ("c", OneHotEncoder(handle_unknown="ignore"), ["colour"]),
            ("n", make_pipeline(SimpleImputer(), StandardScaler()), ["size", "count", "new"]),
        ]
    )
    frame = pd.DataFrame(columns)
    theirs = make_pipeline(front, LogisticRegression()).fit(frame, data.label).predict_proba(frame)[:, 1]
    ours = answers_of(ScikitLearn(LogisticRegression(), categories="one-hot"), data)
    np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_histogram_boosting_is_told_which_columns_are_categories():
    data = a_training_set()
    theirs = HistGradientBoostingClassifier(max_iter=10, categorical_features=[0], random_state=3)
    expected = theirs.fit(data.matrix, data.label).predict_proba(data.matrix)[:, 1]
    ours = answers_of(ScikitLearn(HistGradientBoostingClassifier(max_iter=10)), data)
    np.testing.assert_array_equal(ours, expected)


def test_a_category_with_more_values_than_bins_is_left_a_number():
    columns = some_columns(900, gaps=False)
    columns["colour"] = np.array([f"c{i % 300}" for i in range(900)], dtype=object)
    data = a_training_set(columns=columns)
    assert np.isfinite(answers_of(ScikitLearn(HistGradientBoostingClassifier(max_iter=3)), data)).all()


def test_the_owners_estimator_stays_unfitted():
    estimator = LogisticRegression()
    answers_of(ScikitLearn(estimator, categories="one-hot"), a_training_set())
    assert not hasattr(estimator, "coef_")


def test_an_update_is_the_librarys_partial_fit_behind_frozen_steps():
    old = a_training_set()
    new = a_training_set(seed=5, parent=old.encoder)
    learner = ScikitLearn(make_pipeline(SimpleImputer(), StandardScaler(), SGDClassifier(**STEADY)))
    front = make_pipeline(SimpleImputer(), StandardScaler()).fit(old.matrix)
    last = SGDClassifier(**STEADY, random_state=3).fit(front.transform(old.matrix), old.label.astype(int))
    last.partial_fit(front.transform(new.matrix), new.label.astype(int))
    child = learner.update(learner.fit(old, seed=3), new, seed=3)
    expected = last.predict_proba(front.transform(new.matrix))[:, 1]
    np.testing.assert_allclose(load("skops", child).predict(new.matrix), expected, rtol=1e-12)


def test_an_update_refuses_a_parent_that_is_another_estimator():
    data = a_training_set()
    parent = ScikitLearn(SGDClassifier(**STEADY), categories="one-hot").fit(data, seed=1)
    with pytest.raises(CannotLearn, match=r"alpha=0\.5"):
        ScikitLearn(SGDClassifier(**STEADY, alpha=0.5), categories="one-hot").update(parent, data, seed=1)


def test_gaps_that_an_estimator_cannot_take_are_refused_with_what_to_do():
    with pytest.raises(CannotLearn, match=r'NaN.*categories="one-hot"'):
        ScikitLearn(LogisticRegression()).fit(a_training_set(), seed=1)


def test_a_classifier_without_probabilities_is_refused_and_a_calibrated_one_taken():
    with pytest.raises(CannotLearn, match="LinearSVC has no predict_proba"):
        ScikitLearn(LinearSVC(), categories="one-hot").fit(a_training_set(), seed=1)
    taken = ScikitLearn(CalibratedClassifierCV(LinearSVC(), cv=3), categories="one-hot")
    assert answers_of(taken, a_training_set()).shape == (400,)


def test_a_model_made_of_unnamed_types_is_refused_by_name_when_stored_and_when_loaded():
    estimator = make_pipeline(FunctionTransformer(doubled), HistGradientBoostingClassifier(max_iter=2))
    name = f"{doubled.__module__}.doubled"
    with pytest.raises(UntrustedTypes, match=name):
        ScikitLearn(estimator).fit(a_training_set(), seed=1)
    files = ScikitLearn(estimator, trusted=[name]).fit(a_training_set(), seed=1)
    with pytest.raises(UntrustedTypes, match=name):
        load_model(files)
    assert load_model(files, trusted=[name]).predict(a_training_set().matrix).shape == (400,)


def test_a_model_file_that_calls_the_system_is_refused_before_anything_is_made(tmp_path):
    """A partial around a dangerous function: the outer type is known, what is inside is not."""
    import os
    from functools import partial

    import skops.io

    mark = tmp_path / "mark"
    trap = FunctionTransformer(partial(os.system, f"touch {mark}"))
    stored = skops.io.dumps(trap)
    with pytest.raises(UntrustedTypes, match="system"):
        load_model({"model.skops": stored, "inputs.json": b"{}"})
    assert not mark.exists()


def test_a_file_that_is_no_archive_is_refused():
    with pytest.raises(ModelDamaged, match=r"no model\.skops"):
        load_model({})
    with pytest.raises(ModelDamaged, match="skops"):
        load_model({"model.skops": b"not a zip", "inputs.json": b"{}"})


def test_a_long_pipeline_prints_whole_on_one_line():
    steps = [SimpleImputer(fill_value=float(i), strategy="constant") for i in range(40)]
    shown = repr(ScikitLearn(make_pipeline(*steps, LogisticRegression())))
    assert "\n" not in shown
    assert "fill_value=39.0" in shown
    assert " at 0x" not in repr(ScikitLearn(FunctionTransformer(doubled)))


@pytest.mark.parametrize("wrong", [LogisticRegression, "LogisticRegression", 3])
def test_what_is_no_estimator_is_refused_when_written(wrong):
    with pytest.raises(BadDefinition, match="no scikit-learn estimator"):
        ScikitLearn(wrong)


def test_an_unknown_way_to_pass_categories_is_refused():
    with pytest.raises(BadDefinition, match='"codes" or "one-hot"'):
        ScikitLearn(LogisticRegression(), categories="ordinal")
