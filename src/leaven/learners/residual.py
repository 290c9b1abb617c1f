"""How does training go on from a model that cannot itself be continued?

The parent is kept whole, as the artifact that it is, and its raw score is where a new model starts: that learns what
the parent leaves unexplained, and may look at features which the parent never saw. The parent may be of any learner.
At zero rounds the two answer as the parent does, which is proven before anything is learnt.

Source: J. Friedman, "Greedy Function Approximation: A Gradient Boosting Machine" (2001), whose first model is a
constant; here it is the parent. XGBoost calls the start `base_margin`, LightGBM `init_score`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leaven.learners.artifact import MANIFEST, ModelArtifact, load_artifact
from leaven.learners.formats import load
from leaven.learners.guards import inputs_in
from leaven.training.encoding import Encoder, Matrix
from leaven.training.learner import CannotLearn, Files, Learner, Model, TextModel, answers_of
from leaven.training.surgery import CorrectParent, Corrects, Proof, added, places, probe_rows, prove, proven

MOST_PARENTS = 3  # that may stand on each other: each is asked for every row
CERTAIN = 1e-10  # a probability nearer to 0 or 1 is taken for this; its logit, 23, leaves room to be corrected
_FOLDER = "base/"
_FRESH = "Fit a version from scratch instead."

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Base:
    """The parent that a model starts from, and which columns of the model's it takes."""

    model: Model | TextModel
    places: tuple[int, ...]
    task: str

    def raw(self, matrix: Matrix) -> Floats:
        """Return what the parent says of each row, shape (rows,): the logit of a probability, or the value."""
        said = answers_of(self.model, np.ascontiguousarray(matrix[:, list(self.places)]), {})
        if self.task != "binary":
            return said
        sure = np.clip(said, CERTAIN, 1 - CERTAIN)
        return np.asarray(np.log(sure) - np.log1p(-sure))


class ResidualModel:
    """A parent and what corrects it; safe to ask from several threads, as both are."""

    def __init__(self, base: Base, correction: Callable[[Matrix], NDArray[Any]] | None) -> None:
        """Add the raw scores that `correction` gives to those of `base`; with none, answer as `base` does."""
        self._base, self._correction = base, correction

    def predict(self, matrix: Matrix) -> Floats:
        """Return one answer per row, shape (rows,): the probability of class 1, or the value."""
        if not len(matrix):
            return np.empty(0)
        raw = self._base.raw(matrix)
        if self._correction is not None:
            raw = raw + self._correction(matrix)
        return from_raw(raw, self._base.task)


def from_raw(raw: NDArray[Any], task: str) -> NDArray[Any]:
    """Return the answers of these raw scores, in their own precision."""
    if task != "binary":
        return raw
    with np.errstate(over="ignore"):  # of a score below -709 the answer is 0
        return np.asarray(1 / (1 + np.exp(-raw)))


def base_files(parent: ModelArtifact) -> dict[str, bytes | memoryview]:
    """Return the files in which a parent is kept among those of the model that starts from it."""
    return {f"{_FOLDER}{name}": content for name, content in parent.to_files().items()}


def kept_base(files: Files) -> dict[str, bytes | memoryview]:
    """Return the files of `base_files` that are among `files`, or none."""
    return {name: content for name, content in files.items() if name.startswith(_FOLDER)}


def base_in(files: Files, *, format: str, trusted: Collection[str]) -> Base | None:
    """Return the parent that the model of `format` in `files` starts from, or None for a model that stands alone.

    Raises:
        ModelDamaged: it is not whole, or does not fit the model's own description.
        leaven.learners.scikit_learn_storage.UntrustedTypes: it is made of types that are not in `trusted`.
    """
    kept = {name.removeprefix(_FOLDER): content for name, content in kept_base(files).items()}
    if not kept:
        return None
    parent, inputs = load_artifact(kept, trusted=trusted), inputs_in(files, format)
    stands = {name: index for index, (name, _) in enumerate(inputs.features)}
    return Base(parent.model, tuple(stands[name] for name, _, _ in parent.encoder.features), inputs.task)


def parents_in(files: Files) -> int:
    """Return how many models stand under the one in `files`."""
    deepest = [name.count(_FOLDER) for name in files if name.endswith(f"{_FOLDER}{MANIFEST}")]
    return max(deepest, default=0)


def why_not(learner: object, parent: ModelArtifact) -> str:
    """Return in words why no model of `learner` can start from this parent; empty where one can."""
    if parent.encoder.classes:
        return "it answers for several classes, which are not corrected yet"
    texts = [name for name, kind, _ in parent.encoder.features if kind == "text"]
    if texts:
        return f"it reads the text {texts[0]!r}, and only numbers and categories are handed on to it"
    if not isinstance(learner, Corrects) or not learner.corrects:
        return f"{type(learner).__name__}, as it is set, cannot start from another model's answers"
    if parents_in(parent.files) >= MOST_PARENTS:
        return f"{MOST_PARENTS} models already stand under it, which is the most"
    return ""


def started(
    learner: Learner, parent: ModelArtifact, *, task: str, new: Encoder, matrix: Matrix, trusted: Collection[str] = (),
    why: str = "",
) -> tuple[Files, Proof]:  # fmt: skip
    """Return a model of no rounds that stands on the parent, to be continued, and the proof that it answers as that.

    Args:
        learner: Whose model it is to be.
        parent: The parent, whole; of any learner.
        task: Kind of the label.
        new: What the model is to take: all that the parent takes, and more, in any order.
        matrix: Rows as `new` encodes them, oldest first, to prove it on.
        trusted: Types of the owner's own that the parent may be made of.
        why: Why it is done so, where something else was tried first.

    Raises:
        CannotLearn: the learner cannot start from another model, too many stand under the parent, or `new` does not
            hold all that it takes.
        NotProven: the two answer something else than the parent.
    """
    name, reason = type(learner).__name__, why_not(learner, parent)
    if reason or not isinstance(learner, Corrects):
        raise CannotLearn(name, f"the champion cannot be corrected: {reason}", _FRESH)
    stands = places(name, parent.encoder, new)
    files = {**learner.start(new, task=task), **base_files(parent)}
    fresh = [index for index in range(len(new.features)) if index not in set(stands)]
    probe = probe_rows(matrix, new=fresh)
    base = base_in(files, format=learner.format, trusted=trusted)
    assert base is not None
    before = answers_of(base.model, np.ascontiguousarray(probe[:, list(stands)]), {})
    after = answers_of(load(learner.format, files, trusted=trusted), probe, {})
    single = from_raw(base.raw(probe).astype(np.float32), task)  # as a booster that is fitted takes it
    way = f"starting from the raw score of its {parent.format}, kept whole" + (f", as {why}" if why else "")
    proof = prove(
        CorrectParent(added(parent.encoder, new)), way=way, probe=[probe],
        answers={"float32": (before.astype(np.float32), single), "float64": (before, after)},
    )  # fmt: skip
    return files, proven(proof)
