"""How does a fitted scikit-learn estimator go on learning, and where would it go wrong without a word?

Two ways exist: `partial_fit` shows the new rows to the model once, and `warm_start` lets a forest or boosted trees grow
by more trees that are fitted to the new rows. Each has cases in which nothing is learnt, or the old part is ruined,
and no error is raised; these are refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from copy import copy
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leaven.learners.guards import check_prefix
from leaven.training.learner import CannotLearn

_PROBE_ROWS = 256
_DECAYS = ("optimal", "invscaling")  # ways in which a rate falls with every row that was ever seen
_FRESH = "Fit a version from scratch instead."


def why_not(estimator: Any, rounds: int) -> tuple[str, str] | None:
    """Return why this last step of a pipeline cannot be continued, and what to do; None where it can.

    Args:
        estimator: The last step, fitted or not.
        rounds: Trees that an update adds; 0 for `partial_fit`.
    """
    name = type(estimator).__name__
    if rounds:
        if _trees(estimator) is None:
            return f"{name} does not grow by warm_start", "Leave update_rounds out, or use a forest or boosted trees."
        if getattr(estimator, "categorical_features", None) not in (None, "from_dtype"):
            why = f"{name}(categorical_features=…) gives its old trees other codes whenever it goes on"
            return why, 'Leave categorical_features out, or use categories="one-hot".'
        return None
    if not hasattr(estimator, "partial_fit"):
        more = "" if _trees(estimator) is None else ", or update_rounds=…, by which it grows"
        return f"{name} has no partial_fit", f"Use plan=Stateless(), or an estimator that can go on learning{more}."
    if getattr(estimator, "learning_rate", None) in _DECAYS and getattr(estimator, "solver", "sgd") == "sgd":
        why = f'{name}(learning_rate="{estimator.learning_rate}") learns less with every row that it has ever seen'
        return why, 'Give it learning_rate="constant" or "adaptive" and an eta0, or use plan=Stateless().'
    return None


def go_on(
    last: Any, matrix: NDArray[np.float64], target: NDArray[Any], *, classes: list[int], rounds: int, most: int
) -> None:
    """Let the fitted `last` learn from these rows too, by `rounds` more trees or, where that is 0, by `partial_fit`.

    Args:
        last: The fitted estimator; it is changed.
        matrix: What it takes, shape (rows, inputs).
        target: What it should answer, shape (rows,).
        classes: The classes of a classifier, in their order; none for a number.
        rounds: Trees to add.
        most: Trees that it may have in the end.

    Raises:
        CannotLearn: it would learn nothing, or its old part would be changed.
        ValueError: the estimator itself refuses the rows.
    """
    check_classes(last, classes)
    if rounds:
        _grow(last, matrix, target, rounds=rounds, most=most)
    else:
        last.partial_fit(matrix, target, **({"classes": np.array(classes)} if classes else {}))
    check_classes(last, classes)


def check_classes(model: Any, classes: list[int], *, in_part: bool = False) -> None:
    """Refuse a model whose classes are not these, in this order: its columns are what is answered.

    Args:
        model: The fitted estimator.
        classes: Of the label; none for a number.
        in_part: Whether it may lack some of them.

    Raises:
        CannotLearn: they are others.
    """
    found = np.asarray(getattr(model, "classes_", classes)).tolist()
    if classes and found != ([each for each in classes if each in found] if in_part else classes):
        raise CannotLearn("ScikitLearn", f"the model's classes are {found}, not {classes}", _FRESH)


def _grow(last: Any, matrix: NDArray[np.float64], target: NDArray[Any], *, rounds: int, most: int) -> None:
    count, had = _trees(last), _grown(last)
    if had + rounds > most:
        why = f"an update would make {had + rounds} trees, more than max_rounds={most}"
        raise CannotLearn("ScikitLearn", why, "Fit a version from scratch, or raise max_rounds.")
    if np.any(getattr(last, "is_categorical_", None)):  # fitted before update_rounds was set
        why = "the parent's trees split categories, whose codes would shift when it goes on"
        raise CannotLearn("ScikitLearn", why, _FRESH)
    probe = matrix[:_PROBE_ROWS]
    before = _answers(last, probe)
    # From what there is, not from what was asked for: a parent that stopped early has fewer trees than its setting.
    last.set_params(**{str(count): had + rounds, "warm_start": True} | _no_early_stop(last))
    last.fit(matrix, target)
    if _grown(last) != had + rounds:
        why = f"{type(last).__name__} has {_grown(last)} trees instead of {had + rounds}"
        raise CannotLearn("ScikitLearn", why, _FRESH)
    check_prefix("ScikitLearn", before=before, after=_answers_of_first(last, probe, had))


def _trees(estimator: Any) -> str | None:
    """Name of the setting that says how many trees there are; None where there are none to add to."""
    if not hasattr(estimator, "warm_start"):
        return None
    if hasattr(estimator, "n_estimators"):
        return "n_estimators"
    return "max_iter" if hasattr(estimator, "max_leaf_nodes") else None  # histogram boosting; of others, steps


def _grown(last: Any) -> int:
    return int(last.n_iter_) if _trees(last) == "max_iter" else len(last.estimators_)


def _no_early_stop(last: Any) -> dict[str, object]:
    off = {"early_stopping": False, "n_iter_no_change": None}  # histogram boosting has the first, whatever its second
    return next(({name: off[name]} for name in off if hasattr(last, name)), {})


def _answers(model: Any, matrix: NDArray[Any]) -> NDArray[Any]:
    return np.asarray(model.predict_proba(matrix) if hasattr(model, "predict_proba") else model.predict(matrix))


def _answers_of_first(last: Any, matrix: NDArray[Any], trees: int) -> NDArray[Any]:
    """What its first `trees` trees alone answer."""
    if hasattr(last, "staged_predict"):
        stages: Iterator[Any] = (
            last.staged_predict_proba(matrix) if hasattr(last, "predict_proba") else last.staged_predict(matrix)
        )
        return np.asarray(next(answers for number, answers in enumerate(stages, 1) if number == trees))
    part = copy(last)
    part.estimators_, part.n_estimators = last.estimators_[:trees], trees
    if hasattr(last, "estimators_features_"):
        part.estimators_features_ = last.estimators_features_[:trees]
    return _answers(part, matrix)
