"""What must a learner be able to do?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from leaven.errors import LeavenError
from leaven.loop import Schema
from leaven.training.encoding import Encoder, Matrix, encoder_for

# A fitted model in its own safe format, by file name; views where a stored one is not copied.
Files = Mapping[str, bytes | memoryview]
Answers = NDArray[np.float64]  # shape (rows,), or (rows, classes) of a multiclass task


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
    label: NDArray[np.float64]  # shape (rows,), 0 or 1 for a binary task, the place of the class for a multiclass one
    encoder: Encoder
    schema: Schema
    soft: bool = False  # labels of a binary task may lie between 0 and 1, as answers of a model do
    texts: Mapping[str, NDArray[np.object_]] = field(default_factory=dict)  # text features, each of shape (rows,)
    trusted: tuple[str, ...] = ()  # types of the owner's own that a model under the parent may be made of


def training_set(
    schema: Schema,
    columns: Mapping[str, NDArray[Any]],
    label: NDArray[np.float64],
    *,
    parent: Encoder | None = None,
    soft: bool = False,
    trusted: tuple[str, ...] = (),
) -> TrainingSet:
    """Return what a learner learns from: these rows, encoded so that they extend what `parent` knows.

    Args:
        schema: Of the loop.
        columns: Arrays of one length by feature name, as `Encoder.encode` takes them.
        label: Shape (rows,).
        parent: The encoder of the version that is continued, if one is.
        soft: Whether labels of a binary task may lie between 0 and 1.
        trusted: Types of the owner's own that a model under the parent may be made of.
    """
    encoder = encoder_for(schema, columns, parent=parent)
    return TrainingSet(encoder.encode(columns), label, encoder, schema, soft, encoder.texts(columns), trusted)


class Model(Protocol):
    """A fitted model, ready to answer; safe to call from several threads."""

    def predict(self, matrix: Matrix) -> NDArray[np.float64]:
        """Return one answer per row, shape (rows,): the probability of class 1, or the value.

        Of a multiclass task it is the probability of each class, shape (rows, classes).
        """
        ...


@runtime_checkable
class TextModel(Protocol):
    """A fitted model that reads texts beside the numbers; as safe to call as a `Model`."""

    def read(self, matrix: Matrix, texts: Mapping[str, NDArray[np.object_]]) -> NDArray[np.float64]:
        """Return one answer per row, as `Model.predict` does.

        Args:
            matrix: Shape (rows, features), NaN where missing and where a feature is text.
            texts: The text features, each of shape (rows,), empty where missing.
        """
        ...


def answers_of(model: Model | TextModel, matrix: Matrix, texts: Mapping[str, NDArray[np.object_]]) -> Answers:
    """Return what a model answers, whether it reads texts or not."""
    return model.read(matrix, texts) if texts and isinstance(model, TextModel) else model.predict(matrix)  # type: ignore[union-attr]


class Learner(Protocol):
    """How a model is fitted from scratch and, where `stateful`, continued.

    `format` names how the files are to be read: `leaven.learners.load(format, files)` gives the model back.

    Four attributes are optional: `tasks` names the kinds of label that it learns (binary and regression where it does
    not say); `reads_text = True` says that it learns from `TrainingSet.texts` and its models are `TextModel`s;
    `soft_labels = True` says that labels of a binary task may lie between 0 and 1 (older rows may then be labelled by
    the parent's answers); `reproduces_within` is the largest difference, as a share of the answer, of a model that is
    made again from the same rows, seed and parent (0, the same bits, where it is not said).
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
