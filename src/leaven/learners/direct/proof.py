"""Does a model's direct form answer what the library answers?

It is asked when the model is loaded, of rows that were chosen for it; a form that differs anywhere is dropped, and the
library answers as it would have done. What a direct form cannot answer (its answer is not finite) is the library's to
answer or to refuse, so that errors too are the library's own.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import isfinite
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leaven.errors import LeavenError
from leaven.learners.direct.probes import Probes, probes_for
from leaven.learners.guards import Inputs
from leaven.training.encoding import Matrix
from leaven.training.learner import Model

logger = logging.getLogger(__name__)

TOLERANCE = 1e-12  # of the larger of the answer and the usual answer: sums may be taken in another order

Answers = NDArray[np.float64]


class NoDirectForm(LeavenError, TypeError):
    """A model holds something for which there is no direct form."""

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.what = what

    def __str__(self) -> str:
        return f"{self.what} has no direct form. The library answers; nothing needs to be done."


@dataclass(frozen=True, slots=True)
class DirectForm:
    """A way to answer rows without the library.

    `answer` takes at least one row of the model's width and answers each, or one of them by what is not finite if the
    library must be asked. `edges` are values, per column, at which the answer changes abruptly; `most_rows` is how many
    rows at once it is worth while for.
    """

    answer: Callable[[Matrix], Answers]
    edges: Mapping[int, NDArray[np.float64]] = field(default_factory=dict)
    most_rows: int = 2**62
    tolerance: float = TOLERANCE


class DirectModel:
    """A model that answers by its direct form, and by the library where that form does not answer."""

    def __init__(self, form: DirectForm, library: Model, width: int) -> None:
        self._answer, self._most_rows, self._library, self._width = form.answer, form.most_rows, library, width

    def predict(self, matrix: Matrix) -> Answers:
        """Return one answer per row, shape (rows,): the probability of class 1, or the value."""
        rows, width = matrix.shape
        if 0 < rows <= self._most_rows and width == self._width:
            answers = self._answer(matrix)
            if isfinite(answers.sum()):
                return answers
        return self._library.predict(matrix)


def prefer_direct(library: Model, make: Callable[[], DirectForm], inputs: Inputs) -> Model:
    """Return the model that `make` gives a direct form, if that is proven equal to `library`, else `library` itself.

    Args:
        library: The model as its library answers it.
        make: Returns the direct form, or raises what it stumbles over.
        inputs: What the model takes.
    """
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")  # the rows are made up, and are meant to be strange
        try:
            form = make()
        except Exception as reason:  # private parts of a library may have changed: then there is no direct form
            logger.info("the library answers: %s", reason if isinstance(reason, LeavenError) else repr(reason))
            return library
        difference = _difference(form, library, probes_for(inputs, form.edges))
    if difference is not None:
        logger.info("the library answers: the direct form is not equal to it, %s", difference)
        return library
    return DirectModel(form, library, len(inputs.features))


def _difference(form: DirectForm, library: Model, probes: Probes) -> str | None:
    """What differs, in words; None where nothing does."""
    usual, answered = 0.0, False
    for name, rows in probes.batches():
        for asked in (rows[i : i + form.most_rows] for i in range(0, len(rows), form.most_rows)):
            ours, theirs = _or_nothing(form.answer, asked), _or_nothing(library.predict, asked)
            if ours is None or (theirs is None and not np.isfinite(ours).all()):
                continue  # the library is asked for these
            if theirs is None or ours.shape != theirs.shape:
                return f"which refuses {name}"
            usual = usual or float(np.median(np.abs(theirs)))
            apart = np.abs(ours - theirs) - form.tolerance * np.maximum(np.abs(theirs), usual)
            wrong = np.isfinite(ours) & ~(apart <= 0)
            if wrong.any():
                row = int(np.argmax(wrong))
                return f"which answers {float(theirs[row])!r} to {name}, not {float(ours[row])!r}"
            answered = answered or bool(np.isfinite(ours).any())
    return None if answered else "which was asked for every row"


def _or_nothing(answer: Callable[[Matrix], Any], rows: Matrix) -> Answers | None:
    try:
        return np.asarray(answer(rows.copy()), dtype=np.float64)
    except Exception:  # the library refuses these rows, in one of many ways
        return None
