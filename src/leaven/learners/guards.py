"""Can this data be learnt from, and does a parent read it as it is meant?

Libraries check little of this when a model is continued: a reordered column, a shifted category code or another
objective is often accepted silently and ruins the old part of the model. So each model is stored with a description
of its inputs, and a child must extend it.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256

import msgspec
import numpy as np
from numpy.typing import NDArray

from leaven.learners.formats import ModelDamaged
from leaven.training.encoding import Encoder
from leaven.training.learner import CannotLearn, Files, Model, TextModel, TrainingSet, answers_of

INPUTS_FILE = "inputs.json"
_PROBE_ROWS = 256
_FRESH = "Fit a version from scratch instead."


class Inputs(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a stored model takes and gives; `categories` holds, per feature, how many there were and their digest."""

    task: str
    features: tuple[tuple[str, str], ...]
    categories: dict[str, tuple[int, str]]
    made_by: str  # what must be the same for a model to be continued
    classes: tuple[str, ...] = ()  # that it tells apart, in order
    content: str = ""  # digest of the model's own file, where its library must not be handed a damaged one

    def to_bytes(self) -> bytes:
        """Return the description as canonical JSON."""
        return msgspec.json.encode(self, order="deterministic")


def inputs_in(files: Files, format: str) -> Inputs:
    """Return the description that a model of `format` was stored with.

    Raises:
        ModelDamaged: there is none, or it cannot be read.
    """
    if INPUTS_FILE not in files:
        raise ModelDamaged(format, f"there is no {INPUTS_FILE}")
    try:
        return msgspec.json.decode(files[INPUTS_FILE], type=Inputs)
    except msgspec.DecodeError as error:
        raise ModelDamaged(format, f"{INPUTS_FILE}: {error}") from error


def inputs_of(data: TrainingSet, *, made_by: str, content: bytes | None = None) -> Inputs:
    """Return the description of a model that is made from `data` by an algorithm called `made_by`.

    Args:
        data: What it is made from.
        made_by: What must be the same for the model to be continued.
        content: The model's own file, if `whole_file` is to find any damage to it.
    """
    return inputs_for(data.encoder, task=data.schema.task, made_by=made_by, content=content)


def inputs_for(encoder: Encoder, *, task: str, made_by: str, content: bytes | None = None) -> Inputs:
    """Return the description of a model that takes what `encoder` gives; the rest is as of `inputs_of`."""
    categories = {name: (len(known), _digest(known)) for name, known in encoder.categories.items()}
    sealed = "" if content is None else _sha256(content)
    return Inputs(task, _name_and_type(encoder), categories, made_by, encoder.classes, sealed)


def widened(inputs: Inputs, encoder: Encoder, *, content: bytes | None = None, made_by: str = "") -> Inputs:
    """Return the description of the model that `inputs` describe, once it takes what `encoder` gives.

    Args:
        inputs: Of the model before.
        encoder: What it takes now.
        content: The model's own file, as of `inputs_of`.
        made_by: Where it was given the classes of `encoder` as well: what must be the same for it to be continued.
    """
    categories = {name: (len(known), _digest(known)) for name, known in encoder.categories.items()}
    sealed = "" if content is None else _sha256(content)
    wide = msgspec.structs.replace(inputs, features=_name_and_type(encoder), categories=categories, content=sealed)
    return msgspec.structs.replace(wide, classes=encoder.classes, made_by=made_by) if made_by else wide


def check_takes(learner: str, parent: Files, encoder: Encoder) -> Inputs:
    """Return the parent's description if it takes what `encoder` gives, feature by feature and code by code.

    Raises:
        CannotLearn: it takes something else, or has no description.
        ModelDamaged: the description cannot be read.
    """
    if INPUTS_FILE not in parent:
        raise CannotLearn(learner, f"the parent has no {INPUTS_FILE}", _FRESH)
    inputs = inputs_in(parent, learner)
    if inputs.features != _name_and_type(encoder):
        raise CannotLearn(learner, feature_change(inputs.features, _name_and_type(encoder)), _FRESH)
    for name, (count, digest) in inputs.categories.items():
        known = encoder.categories.get(name, ())
        if len(known) != count or _digest(known) != digest:
            why = f"the categories of feature {name!r} are not the parent's {count}"
            raise CannotLearn(learner, why, f"Give the parent's own encoder. {_FRESH}")
    return inputs


def whole_file(files: Files, name: str, format: str) -> bytes | memoryview:
    """Return the file `name` if it is to the byte what its description says.

    Raises:
        ModelDamaged: it is missing, or differs by a single byte.
    """
    if name not in files:
        raise ModelDamaged(format, f"there is no {name}")
    if _sha256(files[name]) != inputs_in(files, format).content:
        raise ModelDamaged(format, f"{name} is not what it was when it was stored")
    return files[name]


def check_rows(learner: str, data: TrainingSet) -> None:
    """Refuse data that nothing can be learnt from.

    Raises:
        CannotLearn: there are no rows, a label is missing or infinite, or a binary label has one class only or is
            neither 0 nor 1 (where labels are soft: not between them).
    """
    label = data.label
    if data.matrix.shape != (len(label), len(data.encoder.features)):
        why = f"{data.matrix.shape} values came with {len(label)} labels and {len(data.encoder.features)} features"
        raise CannotLearn(learner, why, "Encode the rows with the encoder that is given.")
    if not len(label):
        raise CannotLearn(learner, "there are no examples", "Wait for labels to mature, or widen the loop's data.")
    if not np.isfinite(label).all():
        unknown = int((~np.isfinite(label)).sum())
        raise CannotLearn(learner, f"{unknown} labels are not numbers", "Train on rows whose label is known.")
    if data.schema.task == "regression":
        return
    found = np.unique(label)
    if data.schema.task == "multiclass":
        _check_places(learner, found, data.encoder.classes)
        return
    fits = (found >= 0.0) & (found <= 1.0) if data.soft else np.isin(found, (0.0, 1.0))
    if not fits.all():
        allowed = "lie between 0 and 1" if data.soft else "be 0 or 1"
        raise CannotLearn(learner, f"a binary label has the values {found[:5].tolist()}", f"Labels must {allowed}.")
    if len(found) < 2:
        why = f"all {len(label)} labels are {found[0]:g}"
        raise CannotLearn(learner, why, "Wait for both outcomes, or widen the loop's data.")


def _check_places(learner: str, found: NDArray[np.float64], classes: Sequence[str]) -> None:
    """Refuse labels that are no places in the list of classes, or all the same."""
    wrong = found[~np.isin(found, np.arange(len(classes)))]
    if len(wrong):
        mend = "A label is the place of its class in Label(…, classes=…), from 0."
        raise CannotLearn(learner, f"a label is {wrong[0]:g}, and there are {len(classes)} classes", mend)
    if len(found) < 2:
        why = f"all labels are {classes[int(found[0])]!r}"
        raise CannotLearn(learner, why, "Wait for other outcomes, or widen the loop's data.")


def check_continues(learner: str, parent: Files, data: TrainingSet, *, made_by: str) -> Inputs:
    """Return the parent's inputs if a model of them can go on with `data`.

    Raises:
        CannotLearn: features differ in name, type or order, a category map did not only grow, or the parent was made
            for another task or by another algorithm.
        ModelDamaged: the parent's description cannot be read.
    """
    if INPUTS_FILE not in parent:
        raise CannotLearn(learner, f"the parent has no {INPUTS_FILE}", _FRESH)
    old = inputs_in(parent, learner)
    if old.features != _name_and_type(data.encoder):
        raise CannotLearn(learner, feature_change(old.features, _name_and_type(data.encoder)), _FRESH)
    if old.task != data.schema.task:
        raise CannotLearn(learner, f"the parent answers a {old.task} task, this is {data.schema.task}", _FRESH)
    if old.made_by != made_by:
        raise CannotLearn(learner, f"the parent was made by {old.made_by}, this is {made_by}", _FRESH)
    if data.encoder.classes[: len(old.classes)] != old.classes:
        why = f"the classes do not begin with the parent's {', '.join(old.classes)}"
        raise CannotLearn(learner, why, f"List new classes behind the old ones. {_FRESH}")
    for name, (count, digest) in old.categories.items():
        known = data.encoder.categories.get(name, ())
        if len(known) < count or _digest(known[:count]) != digest:
            why = f"the categories of feature {name!r} do not begin with the parent's {count}"
            raise CannotLearn(learner, why, f"Extend the parent's encoder. {_FRESH}")
    return old


def check_prefix(learner: str, *, before: np.ndarray, after: np.ndarray) -> None:
    """Refuse a continued model whose old part no longer answers as the parent did.

    Args:
        before: The parent's answers on some rows, shape (rows,).
        after: Answers of the child's old part on the same rows, shape (rows,).
    """
    if not np.array_equal(before, after, equal_nan=True):
        gap = float(np.nanmax(np.abs(before - after)))
        raise CannotLearn(learner, f"continuing changed the parent's part of the model (by up to {gap:.3g})", _FRESH)


def check_answers(learner: str, model: Model | TextModel, data: TrainingSet) -> None:
    """Refuse a model, made by code that is not ours, that does not answer rows as it will have to.

    Raises:
        CannotLearn: it fails on rows that it was made from, does not give one finite number for each, or, for a binary
            label, gives what is no probability.
    """
    asked = data.matrix[-_PROBE_ROWS:]
    mend = "It is asked for the very columns that it was trained on: see that it takes them."
    try:
        texts = {name: column[-_PROBE_ROWS:] for name, column in data.texts.items()}
        answers = np.asarray(answers_of(model, asked, texts), dtype=np.float64)
    except Exception as error:  # whatever the code of others raises
        why = f"the new model fails on rows that it was made from ({type(error).__name__}: {error})"
        raise CannotLearn(learner, why.splitlines()[0], mend) from error
    classes = data.encoder.classes
    if answers.shape != ((len(asked), len(classes)) if classes else (len(asked),)):
        raise CannotLearn(learner, f"the new model answers {answers.shape} to {len(asked)} rows", mend)
    if not np.isfinite(answers).all():
        raise CannotLearn(learner, "the new model answers what is no number", mend)
    if data.schema.task != "regression" and not ((answers >= 0) & (answers <= 1)).all():
        wrong = float(answers[(answers < 0) | (answers > 1)][0])
        what = "of each class" if classes else "of class 1"
        raise CannotLearn(learner, f"the new model answers {wrong:g}, which is no probability", f"Answer that {what}.")
    if classes and (np.abs(answers.sum(axis=1) - 1) > 1e-3).any():
        mend = "Answer the probability of each class; those of a row add up to 1."
        raise CannotLearn(learner, f"the classes of a row add up to {answers.sum(axis=1).max():g}", mend)


def _name_and_type(encoder: Encoder) -> tuple[tuple[str, str], ...]:
    return tuple((name, kind) for name, kind, _ in encoder.features)


def _sha256(content: bytes | memoryview) -> str:
    return sha256(content).hexdigest()


def _digest(categories: Sequence[str]) -> str:
    return sha256(msgspec.json.encode(tuple(categories))).hexdigest()[:16]


def feature_change(old: Sequence[tuple[str, str]], new: Sequence[tuple[str, str]]) -> str:
    """Return in words how the features (name, type) of a parent differ from those of now."""
    gone, come = (
        [f"{n} ({t})" for n, t in old if (n, t) not in new],
        [f"{n} ({t})" for n, t in new if (n, t) not in old],
    )
    if not gone and not come:
        return "the features are in another order than the parent's"
    parts = [f"{verb} {', '.join(names)}" for verb, names in (("lost", gone), ("gained", come)) if names]
    return f"the features {' and '.join(parts)} since the parent"
