"""A pipeline answers directly what scikit-learn answers: the same numbers, and the same refusals."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn.compose import ColumnTransformer
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.impute import SimpleImputer
from sklearn.linear_model import (
    BayesianRidge,
    ElasticNet,
    HuberRegressor,
    Lasso,
    LinearRegression,
    LogisticRegression,
    Ridge,
    SGDClassifier,
    SGDRegressor,
)
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MaxAbsScaler, MinMaxScaler, OneHotEncoder, RobustScaler, StandardScaler

from leaven.learners import ScikitLearn
from leaven.learners.direct import DirectModel
from leaven.training.learner import CannotLearn
from tests.learners.builders import a_training_set, some_columns
from tests.learners.direct.models import assert_alike, both

CLASSIFIERS = [
    LogisticRegression(), LogisticRegression(fit_intercept=False, solver="liblinear"), LinearDiscriminantAnalysis(),
    SGDClassifier(loss="log_loss", learning_rate="constant", eta0=1e-3),
]  # fmt: skip
REGRESSORS = [
    LinearRegression(), Ridge(), Ridge(fit_intercept=False), Lasso(0.01), ElasticNet(0.01), BayesianRidge(),
    HuberRegressor(), SGDRegressor(penalty="l1"),
]  # fmt: skip
SCALERS = [
    StandardScaler(), StandardScaler(with_mean=False), StandardScaler(with_std=False), RobustScaler(), MinMaxScaler(),
    MinMaxScaler((-2, 3), clip=True), MaxAbsScaler(),
]  # fmt: skip
IMPUTERS = [
    SimpleImputer(), SimpleImputer(strategy="median", keep_empty_features=True),
    SimpleImputer(strategy="most_frequent"), SimpleImputer(strategy="constant", fill_value=-7.0),
]  # fmt: skip
ENCODERS = [
    OneHotEncoder(handle_unknown="ignore"), OneHotEncoder(handle_unknown="ignore", sparse_output=False),
    OneHotEncoder(handle_unknown="error"), OneHotEncoder(drop="first"), OneHotEncoder(drop="if_binary"),
    OneHotEncoder(handle_unknown="ignore", drop="first"),
    OneHotEncoder(handle_unknown="infrequent_if_exist", min_frequency=40),
    OneHotEncoder(handle_unknown="infrequent_if_exist", max_categories=2),
]  # fmt: skip


def some_rows(seed: int, count: int) -> np.ndarray:
    """Rows as a gateway may see them: known and unknown categories, gaps, numbers of every size."""
    rng = np.random.default_rng(seed)
    rows = np.column_stack(
        [rng.integers(0, 5, count), rng.normal(size=count), rng.integers(0, 12, count), rng.integers(0, 2, count)]
    ).astype(np.float64)
    strange = rng.random(rows.shape) < 0.05
    rows[strange] = rng.choice([np.nan, np.inf, -np.inf, 1e9, -1e9, 1e300, 0.5, -1.0], int(strange.sum()))
    return rows


@st.composite
def learners(draw, heads):
    head = draw(st.sampled_from(heads))
    if draw(st.booleans()):
        return ScikitLearn(head, categories="one-hot")
    numbers = make_pipeline(draw(st.sampled_from(IMPUTERS)), *draw(st.lists(st.sampled_from(SCALERS), max_size=2)))
    codes = draw(st.sampled_from(ENCODERS))
    if draw(st.booleans()):  # a mean would be no code
        codes = make_pipeline(SimpleImputer(strategy="most_frequent"), codes)
    front = ColumnTransformer(
        [("codes", codes, draw(st.sampled_from([[0], [2, 0], slice(0, 1)]))), ("numbers", numbers, [1, 3])],
        remainder=draw(st.sampled_from(["drop", SimpleImputer()])),
    )
    last = draw(st.sampled_from([None, MaxAbsScaler(), StandardScaler(with_mean=False)]))
    return ScikitLearn(make_pipeline(front, *([last] if last else []), head))


@pytest.mark.parametrize("task", ["binary", "regression"])
@settings(max_examples=25)
@given(data=st.data(), seed=st.integers(0, 1000), count=st.sampled_from([1, 2, 40]))
def test_a_pipeline_answers_directly_what_the_library_answers(task, data, seed, count):
    learner = data.draw(learners(CLASSIFIERS if task == "binary" else REGRESSORS))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of convergence, and of unknown categories
        try:
            files = learner.fit(a_training_set(150, seed=seed % 7, task=task), seed=0)
        except CannotLearn as refused:  # some estimators take no sparse matrix, as one-hot codes may be
            assume("Sparse data" not in str(refused))
            raise
        served, library = both("skops", files, task)
        assert_alike(served, library, some_rows(seed, count))


@pytest.mark.parametrize("scaler", SCALERS)
def test_numbers_alone_and_whole_pipelines_within_pipelines(scaler):
    data = a_training_set(task="regression", columns=some_columns(300, gaps=False))
    inner = make_pipeline(SimpleImputer(), "passthrough", scaler)
    served, library = both("skops", ScikitLearn(make_pipeline(inner, Ridge())).fit(data, seed=0), "regression")
    assert_alike(served, library, some_rows(5, 60))


def test_what_the_library_refuses_is_refused_by_it():
    data = a_training_set(columns=some_columns(300, gaps=False))
    served, library = both("skops", ScikitLearn(LogisticRegression()).fit(data, seed=0), "binary")
    assert isinstance(served, DirectModel)
    rows = data.matrix[:3].copy()
    rows[1, 1] = np.nan
    for model in (served, library):
        with pytest.raises(ValueError, match="contains NaN"):
            model.predict(rows)
        with pytest.raises(ValueError, match="4 features"):
            model.predict(data.matrix[:3, :3])
    assert served.predict(np.empty((0, 4))).shape == (0,)


def test_a_great_many_codes_are_one_table():
    rng = np.random.default_rng(0)
    columns = some_columns(3000, gaps=False)
    columns["colour"] = np.array([f"c{i}" for i in rng.integers(0, 900, 3000)], dtype=object)
    data = a_training_set(columns=columns)
    served, library = both("skops", ScikitLearn(LogisticRegression(), categories="one-hot").fit(data, seed=0), "binary")
    assert_alike(served, library, data.matrix[:200])
