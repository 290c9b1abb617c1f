"""A direct form that is not proven equal is not served."""

from __future__ import annotations

import logging
import subprocess
import sys

import msgspec
import numpy as np
import pytest
import skops.io
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, SGDClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, PolynomialFeatures, StandardScaler

from leaven.learners import ScikitLearn, XGBoost, load
from leaven.learners.artifact import ModelArtifact, load_artifact
from leaven.learners.direct import DirectForm, DirectModel, prefer_direct
from leaven.learners.guards import inputs_of
from leaven.learners.scikit_learn import ScikitLearnModel, load_model
from tests.learners.builders import a_training_set, some_columns

DATA = a_training_set(columns=some_columns(300, gaps=False))
INPUTS = inputs_of(DATA, made_by="test")


class Doubling(StandardScaler):
    """Of the library's name and shape, and something else."""

    def transform(self, X, copy=None):
        return 2 * super().transform(X, copy)


class Cautious(LogisticRegression):
    def predict_proba(self, X):
        return np.clip(super().predict_proba(X), 0.01, 0.99)


class Known:
    """A library's model: a sum, which refuses what is not finite."""

    def predict(self, matrix):
        if not np.isfinite(matrix).all():
            raise ValueError("not finite")
        return matrix.sum(axis=1)


def summed(matrix):
    return matrix.sum(axis=1)


def preferred(answer, caplog, **edges):
    caplog.set_level(logging.INFO)
    library = Known()
    model = prefer_direct(library, lambda: DirectForm(answer, **edges), INPUTS)
    assert model is library or isinstance(model, DirectModel)
    return isinstance(model, DirectModel)


def test_an_equal_form_is_taken(caplog):
    assert preferred(summed, caplog)
    assert not caplog.records


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (lambda m: summed(m) * (1 + 1e-9), "plain rows"),
        (lambda m: summed(m) + (m[:, 0] == 2) * 1e-3, "plain rows"),
        (lambda m: np.nan_to_num(summed(m), nan=0.5), "refuses"),
        (lambda m: summed(m)[:, None], "refuses plain rows"),
        (lambda m: summed(m)[:1], "refuses plain rows"),
        (lambda m: np.where(m[:, 0] > 2, 0.0, summed(m)), "unknown categories"),
        (lambda m: np.full(len(m), np.nan), "asked for every row"),
        (lambda m: 1 / 0, "asked for every row"),
    ],
)
def test_a_form_that_differs_anywhere_is_dropped_and_the_log_says_where(wrong, told, caplog):
    assert not preferred(wrong, caplog)
    assert told in caplog.text


def test_a_form_that_differs_only_next_to_an_edge_is_dropped(caplog):
    edge = np.array([0.1234567])

    def wrong(matrix):
        return summed(matrix) + (matrix[:, 1] == edge)

    assert preferred(wrong, caplog)  # nobody said that there was an edge
    assert not preferred(wrong, caplog, edges={1: edge})


@pytest.mark.parametrize(
    "estimator",
    [
        make_pipeline(SimpleImputer(), Doubling(), LogisticRegression()),
        make_pipeline(SimpleImputer(), StandardScaler(), Cautious()),
        make_pipeline(SimpleImputer(), PolynomialFeatures(), LogisticRegression(C=1e-3, max_iter=2000)),
        make_pipeline(SimpleImputer(add_indicator=True), LogisticRegression()),
        SGDClassifier(loss="modified_huber"),
        HistGradientBoostingClassifier(max_iter=2),
    ],
)
def test_what_has_no_direct_form_is_answered_by_the_library(estimator, caplog):
    caplog.set_level(logging.INFO)
    own = [f"{kind.__module__}.{kind.__qualname__}" for kind in (Doubling, Cautious)]
    learner = ScikitLearn(estimator, trusted=own)
    model = load_model(learner.fit(DATA, seed=0), trusted=learner.trusted)
    assert isinstance(model, ScikitLearnModel)
    assert "the library answers" in caplog.text


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_coefficient_that_is_no_number_is_never_served_directly(value):
    files = dict(ScikitLearn(LogisticRegression()).fit(DATA, seed=0))
    (name,) = [name for name in files if name.endswith(".skops")]
    broken = skops.io.loads(files[name])
    broken.coef_[0, 1] = value
    files[name] = skops.io.dumps(broken)
    model = load("skops", files)
    assert isinstance(model, ScikitLearnModel)


def test_categories_that_are_no_codes_have_no_direct_form():
    data = a_training_set(columns=some_columns(100, gaps=False))
    encoder = OneHotEncoder(handle_unknown="ignore")  # of every column, a real number among them
    model = load("skops", ScikitLearn(make_pipeline(encoder, LogisticRegression())).fit(data, seed=0))
    assert isinstance(model, ScikitLearnModel)


def test_a_served_model_says_who_answers():
    answers = {XGBoost(3, threads=1): "direct", ScikitLearn(HistGradientBoostingClassifier()): "library"}
    for learner, path in answers.items():
        artifact = ModelArtifact(learner.format, DATA.encoder, repr(learner), learner.fit(DATA, seed=0))
        assert load_artifact(artifact.to_files()).path == path


def test_the_proof_makes_no_noise():
    """Made-up rows overflow and warn; an operator must not see that."""
    for learner in (ScikitLearn(LogisticRegression(), categories="one-hot"), XGBoost(3, threads=1)):
        program = (
            "import sys, msgspec; from leaven.learners import load\n"
            f"load({learner.format!r}, msgspec.msgpack.decode(sys.stdin.buffer.read()))"
        )
        stored = msgspec.msgpack.encode(dict(learner.fit(DATA, seed=0)))
        run = subprocess.run([sys.executable, "-c", program], input=stored, capture_output=True, check=True)
        assert run.stderr + run.stdout == b""
