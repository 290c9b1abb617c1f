"""What is the direct form of a fitted scikit-learn pipeline?

The last step decides: a linear model is a dot product with the numbers, plus one look-up per column of codes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from math import isfinite
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leaven.learners.direct.columns import FIRST_CODE, GAP, UNKNOWN, Block, Blocks, Floats, Numbers, Tables, through
from leaven.learners.direct.proof import Answers, DirectForm, NoDirectForm
from leaven.training.encoding import Matrix

Score = Callable[[Matrix], Answers]

_CLASSIFIERS = frozenset(
    {
        "sklearn.discriminant_analysis.LinearDiscriminantAnalysis",
        "sklearn.linear_model._logistic.LogisticRegression",
        "sklearn.linear_model._logistic.LogisticRegressionCV",
        "sklearn.linear_model._stochastic_gradient.SGDClassifier",
    }
)
_REGRESSORS = frozenset(
    f"sklearn.linear_model.{name}"
    for name in (
        "_base.LinearRegression",
        "_bayes.ARDRegression",
        "_bayes.BayesianRidge",
        "_coordinate_descent.ElasticNet",
        "_coordinate_descent.ElasticNetCV",
        "_coordinate_descent.Lasso",
        "_coordinate_descent.LassoCV",
        "_huber.HuberRegressor",
        "_least_angle.Lars",
        "_least_angle.LassoLars",
        "_quantile.QuantileRegressor",
        "_ridge.Ridge",
        "_ridge.RidgeCV",
        "_stochastic_gradient.SGDRegressor",
        "_theil_sen.TheilSenRegressor",
    )
)


def direct_form(estimator: Any, *, task: str) -> DirectForm:
    """Return the direct form of a fitted estimator or pipeline.

    Args:
        estimator: As it was loaded.
        task: `"binary"` asks for the probability of class 1, `"regression"` for the value.

    Raises:
        NoDirectForm: it holds a part that is not known here.
    """
    blocks: Blocks = (Numbers(np.arange(int(estimator.n_features_in_))),)
    while hasattr(estimator, "steps"):
        if type(estimator).__module__ != "sklearn.pipeline":
            raise NoDirectForm(type(estimator).__qualname__)
        for _, step in estimator.steps[:-1]:
            blocks = through(step, blocks)
        estimator = estimator.steps[-1][1]
    kind = f"{type(estimator).__module__}.{type(estimator).__qualname__}"
    if task == "binary":
        if kind not in _CLASSIFIERS or getattr(estimator, "loss", "log_loss") != "log_loss":
            raise NoDirectForm(kind)
        return DirectForm(_logistic(_score(estimator, blocks)))
    if kind not in _REGRESSORS:
        raise NoDirectForm(kind)
    return DirectForm(_score(estimator, blocks))


def _logistic(score: Score) -> Score:
    from scipy.special import expit  # the very function that scikit-learn uses

    def answer(matrix: Matrix) -> Answers:
        scores = score(matrix)
        # The probability of an infinite score would be a number, while the library may refuse what it comes from.
        if isfinite(scores.sum()):
            expit(scores, out=scores)
        return scores

    return answer


def _score(estimator: Any, blocks: Blocks) -> Score:
    """The linear model's value, as a function of the matrix."""
    weights = np.asarray(estimator.coef_, dtype=np.float64)
    start = np.asarray(estimator.intercept_, dtype=np.float64).reshape(-1)
    width = sum(block.width for block in blocks)
    if weights.shape not in ((width,), (1, width)) or start.shape != (1,):
        raise NoDirectForm(f"a linear model of {weights.shape} weights for {width} columns")
    edges = np.cumsum([0, *(block.width for block in blocks)])
    flat = np.ascontiguousarray(weights.reshape(-1))
    parts = [_part(block, flat[low:high]) for block, (low, high) in zip(blocks, pairwise(edges), strict=True)]
    return _sum(parts, float(start[0]))


def _sum(parts: Sequence[Score], start: float) -> Score:
    def score(matrix: Matrix) -> Answers:
        total = parts[0](matrix)
        for part in parts[1:]:
            total += part(matrix)
        total += start
        return total

    if not parts:
        raise NoDirectForm("a linear model of no columns")
    return score


def _part(block: Block, weights: Floats) -> Score:
    if isinstance(block, Tables):
        return _look_up(block, weights)
    return lambda matrix: block.of(matrix) @ weights


def _look_up(block: Tables, weights: Floats) -> Score:
    """The sum over code columns of what each code weighs."""
    sizes = [len(table) for table in block.tables]
    edges = np.cumsum([0, *(table.shape[1] for table in block.tables)])
    weighed = np.concatenate(
        [table @ weights[low:high] for table, (low, high) in zip(block.tables, pairwise(edges), strict=True)]
    )
    weighed = np.append(weighed, np.nan)  # where the library must be asked
    starts = np.cumsum([0, *sizes[:-1]])
    first, top = starts + FIRST_CODE, np.array(sizes, dtype=np.float64) - FIRST_CODE - 1

    def part(matrix: Matrix) -> Answers:
        codes = block.codes.of(matrix)
        inside = (codes >= 0) & (codes <= top)
        place = np.where(inside, codes, 0).astype(np.intp)
        known = place == codes
        place += first
        if not known.all():
            _place_others(place, codes, known, starts)
        answers: Answers = weighed[place].sum(axis=1)
        return answers

    return part


def _place_others(place: NDArray[np.intp], codes: Matrix, known: NDArray[np.bool_], starts: NDArray[np.intp]) -> None:
    """Put what is no code of the table (gaps, unknown codes, fractions, infinities) where it belongs."""
    kinds = np.where(np.isnan(codes), GAP, UNKNOWN) + starts
    kinds[np.isinf(codes)] = -1
    np.copyto(place, kinds, where=~known)
