"""Fitted models, with their direct form and without."""

from __future__ import annotations

from typing import Any

import numpy as np

from leaven.learners import load
from leaven.learners.direct import DirectModel
from leaven.learners.direct.xgboost import XGBoostRefused
from leaven.learners.guards import inputs_in
from leaven.learners.scikit_learn import ScikitLearnModel
from leaven.learners.scikit_learn_storage import estimator_in
from leaven.learners.xgboost import XGBoostModel, booster_in
from leaven.training.learner import Files, Model

LIBRARY = {
    "skops": lambda files, task: ScikitLearnModel(estimator_in(files, ()), inputs_in(files, "skops")),
    "xgboost-ubj": lambda files, _: XGBoostModel(booster_in(files)),
}


def both(format: str, files: Files, task: str) -> tuple[Model, Model]:
    """The model as it is served, and as its library alone would answer."""
    return load(format, files), LIBRARY[format](files, task)


def said(model: Model, rows: Any) -> Any:
    """The answers, or the type of the error in their place."""
    try:
        return model.predict(rows.copy())
    except Exception as error:
        return type(error)


def assert_alike(served: Model, library: Model, rows: Any, *, rtol: float = 1e-9) -> None:
    """The same answers to all rows, to each row alone, and the same refusals."""
    assert isinstance(served, DirectModel)
    with np.errstate(all="ignore"):
        for asked in (rows, *(row[None, :] for row in rows[:12])):
            ours, theirs = said(served, asked), said(library, asked)
            if isinstance(theirs, type):
                assert ours in (theirs, XGBoostRefused), (ours, theirs, asked)
            else:
                np.testing.assert_allclose(ours, theirs, rtol=rtol, atol=1e-12 * (1 + np.nanmedian(np.abs(theirs))))
