"""What must a learner be able to do?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from leaven.errors import LeavenError
from leaven.loop import Schema
from leaven.training.encoding import Encoder, Matrix

# A fitted model in its own safe format, by file name; views where a stored one is not copied.
Files = Mapping[str, bytes | memoryview]


class CannotLearn(LeavenError, RuntimeError):
    """A learner was given data, or a parent, that it cannot learn from."""

    def __init__(self, learner: str, why: str, mend: str) -> None:
        super().__init__(learner, why, mend)
        self.learner, self.why, self.mend = learner, why, mend

    def __str__(self) -> str:
        return f"{self.learner} cannot learn: {self.why}. {self.mend}"


@dataclass(frozen=True, slots=True)
class TrainingSet:
    """What a learner learns from; rows are in the order of the snapshot."""

    matrix: Matrix  # shape (rows, features), NaN where missing
    label: NDArray[np.float64]  # shape (rows,), 0 or 1 for a binary task
    encoder: Encoder
    schema: Schema
    soft: bool = False  # labels of a binary task may lie between 0 and 1, as answers of a model do


class Model(Protocol):
    """A fitted model, ready to answer; safe to call from several threads."""

    def predict(self, matrix: Matrix) -> NDArray[np.float64]:
        """Return one answer per row, shape (rows,): the probability of class 1, or the value."""
        ...


class Learner(Protocol):
    """How a model is fitted from scratch and, where `stateful`, continued.

    `format` names how the files are to be read: `leaven.learners.load(format, files)` gives the model back.

    Two attributes are optional: `soft_labels = True` says that labels of a binary task may lie between 0 and 1 (older
    rows may then be labelled by the parent's answers); `reproduces_within` is the largest difference, as a share of the
    answer, of a model that is made again from the same rows, seed and parent (0, the same bits, where it is not said).
    """

    @property
    def format(self) -> str:
        """Name of the format of the files that `fit` returns."""
        ...

    @property
    def stateful(self) -> bool:
        """Whether `update` can go on from a parent's files."""
        ...

    def fit(self, data: TrainingSet, *, seed: int) -> Files:
        """Return a model fitted to `data` alone.

        Raises:
            CannotLearn: the data cannot be learnt from (one class only, no rows, …).
        """
        ...

    def update(self, parent: Files, data: TrainingSet, *, seed: int) -> Files:
        """Return the parent's model, continued on `data`; the parent's answers' meaning (inputs, classes) is kept.

        Raises:
            CannotLearn: the learner is not stateful, or the parent does not fit the data.
        """
        ...
