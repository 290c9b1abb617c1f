"""How does a linear scikit-learn model get more columns without being trained?

Its preparation is built anew for all columns and given what the old one had learnt: the categories, means and scales of
the old columns. New columns get a weight of zero; a new number is scaled by the rows at hand.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leaven.training.encoding import Encoder, Matrix

LINEAR = ("SGDClassifier", "SGDRegressor")  # what can both be grown and go on by `partial_fit`
_LEARNT = (("simpleimputer", ("statistics_",)), ("standardscaler", ("mean_", "var_", "scale_")))
Prepare = Callable[[list[int], list[int]], Any]  # columns of categories and of numbers -> what prepares them, unfitted


def can_grow(estimator: Any, categories: str) -> bool:
    """Whether models of this estimator can be given columns: known linear ones, behind one-hot categories."""
    return categories == "one-hot" and type(estimator).__name__ in LINEAR and not estimator.average


def with_columns(
    model: Any, *, old: Encoder, new: Encoder, places: Sequence[int], probe: Matrix, prepare: Prepare
) -> Any:
    """Return `model` with the columns of `new`; the fitted linear step in it is changed.

    Args:
        model: A pipeline of a preparation (`prepare`, fitted) and a linear step.
        old: What it takes.
        new: What it is to take.
        places: Where in `new` each column of `old` stands.
        probe: Rows as `new` encodes them, by which new numbers are scaled.
        prepare: Makes the preparation of columns, as it made the old one.
    """
    from sklearn.pipeline import make_pipeline

    before, last = model[0], model[-1]
    stands = dict(enumerate(places))
    category, number = _columns(new)
    wanted = _categories(before, old, new, stands)
    after = prepare(category, number)
    after.fit(_rows(probe, wanted))
    _hand_over(before, after, old, new, stands)
    kept = _outputs(before, after, old, new, stands)
    weights = np.zeros((*last.coef_.shape[:-1], _width(after)))
    weights[..., kept] = last.coef_
    last.coef_, last.n_features_in_ = weights, weights.shape[-1]
    return make_pipeline(after, last)


def _columns(encoder: Encoder) -> tuple[list[int], list[int]]:
    kinds = [kind for _, kind, _ in encoder.features]
    category = [index for index, kind in enumerate(kinds) if kind == "category"]
    return category, [index for index in range(len(kinds)) if index not in category]


def _categories(before: Any, old: Encoder, new: Encoder, stands: dict[int, int]) -> dict[int, NDArray[np.float64]]:
    """The codes that get a column of their own, by column of `new`: those that had one, and all of what is new."""
    known = {
        index: np.array([*range(len(new.categories[new.features[index][0]])), np.nan]) for index in _columns(new)[0]
    }
    return known | {
        stands[index]: codes.astype(np.float64) for index, codes in zip(_columns(old)[0], _one_hot(before), strict=True)
    }


def _one_hot(prepared: Any) -> list[Any]:
    """The codes by category column; none where there are no such columns."""
    return list(getattr(prepared.named_transformers_["category"], "categories_", []))


def _rows(probe: Matrix, wanted: dict[int, NDArray[np.float64]]) -> Matrix:
    """Rows in which every wanted code occurs and no other, and numbers are those of the probe.

    Gaps are left out: filled with the mean they would make a number look as if it varied less than it does.
    """
    rows = max([len(probe), *map(len, wanted.values())])
    filled = np.full((rows, probe.shape[1]), np.nan)
    for index in range(probe.shape[1]):
        told = wanted.get(index, probe[~np.isnan(probe[:, index]), index])
        if len(told):
            filled[:, index] = np.resize(told, rows)
    return filled


def _hand_over(before: Any, after: Any, old: Encoder, new: Encoder, stands: dict[int, int]) -> None:
    """Give the new preparation what the old one learnt of the old numbers."""
    ours, theirs = _columns(old)[1], _columns(new)[1]
    if not ours:
        return
    at = [theirs.index(stands[index]) for index in ours]
    for step, learnt in _LEARNT:
        for name in learnt:
            getattr(after.named_transformers_["number"][step], name)[at] = getattr(
                before.named_transformers_["number"][step], name
            )


def _outputs(before: Any, after: Any, old: Encoder, new: Encoder, stands: dict[int, int]) -> list[int]:
    """Where each output of the old preparation stands among those of the new one."""
    category, number = _columns(new)
    starts = dict(zip(category, np.cumsum([0, *map(len, _one_hot(after))]).tolist(), strict=False))
    found = [
        starts[stands[index]] + code
        for index, codes in zip(_columns(old)[0], _one_hot(before), strict=True)
        for code in range(len(codes))
    ]
    first = sum(map(len, _one_hot(after)))
    return found + [first + number.index(stands[index]) for index in _columns(old)[1]]


def _width(prepared: Any) -> int:
    return sum(map(len, _one_hot(prepared))) + len(prepared.transformers_[1][2])
