"""A model was changed without being trained: does it still answer as it did?

Surgery gives a model new inputs, layers or classes and leaves its answers alone, so that what it has learnt is kept and
training goes on from there. That it left them alone is not believed but shown, on stored rows, and the proof stays with
the version.

Source: T. Chen, I. Goodfellow, J. Shlens, "Net2Net: Accelerating Learning via Knowledge Transfer" (ICLR 2016).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from hashlib import blake2b
from typing import Any, Literal, Protocol, runtime_checkable

import msgspec
import numpy as np
from numpy.typing import NDArray

from leaven.errors import LeavenError
from leaven.training.encoding import Encoder, Matrix
from leaven.training.learner import CannotLearn, Files
from leaven.values import value

Precision = Literal["float32", "float64"]
Numbers = NDArray[Any]
TOLERANCE = 1e-6  # of the larger of the answer and the usual answer


@value
class AddFeatures:
    """The model takes these inputs as well; until it is trained on, they say nothing."""

    names: Sequence[str]

    def __post_init__(self) -> None:
        object.__setattr__(self, "names", tuple(self.names))


@value
class ReorderFeatures:
    """The model takes the inputs that it took, in another order."""


@value
class CorrectParent:
    """A model that starts from the parent's answers stands beside it, and takes these inputs as well."""

    names: Sequence[str]

    def __post_init__(self) -> None:
        object.__setattr__(self, "names", tuple(self.names))


@value
class DropFeature:
    """The model takes one input less; it answers as if the input had always been `constant`."""

    place: int
    constant: float


@value
class RefitScaler:
    """Inputs are scaled anew, and the layer behind the scaler takes it back, so that the scaler may follow drift."""


@value
class InsertLayer:
    """A layer more, which at first hands on what it gets: `"identity"`, or a `"residual"` block."""

    kind: Literal["identity", "residual"]


@value
class InsertNorm:
    """A batch normalisation more, which at first undoes what it does."""


@value
class Widen:
    """A layer gets more units, `to` as many: copies of its own, or ones that `nothing` listens to at first."""

    to: int
    by: Literal["copies", "nothing"]


@value
class WidenRecurrent:
    """A recurrent layer gets more units, `to` as many; the old ones do not hear them at first."""

    to: int


@value
class AddClasses:
    """The model knows `count` classes more, to which it gives a `share` of the probability at first."""

    count: int
    share: float


@value
class AddIds:
    """The model knows `count` ids more; each is like the mean of those that it knew."""

    count: int


@value
class AddAdapter:
    """A correction of low `rank` beside a layer that is kept as it is; at first it corrects nothing."""

    rank: int


class Difference(msgspec.Struct, frozen=True):
    """How far the answers of the model after surgery lie from those before it, at most."""

    precision: Precision
    absolute: float
    relative: float  # to the larger of the answer and the mean size of the answers
    tolerance: float  # the most that passes


class Proof(msgspec.Struct, frozen=True, omit_defaults=True):
    """What was done to a model, and what its answers to stored rows say about it."""

    operation: str  # as written: AddFeatures(["humidity"])
    way: str  # how it was done, in words
    probe_rows: int
    probe_digest: str
    differences: tuple[Difference, ...]
    same_order: bool  # rows are ranked, and classes chosen, as before
    passed: bool
    gradient: float | None = None  # of what is new, the least; None where nothing is trained by gradients

    def __str__(self) -> str:
        """Return the proof on one line."""
        order = "same order" if self.same_order else "ANOTHER ORDER"
        told = ", ".join(f"{_size(one.relative)} in {one.precision}" for one in self.differences)
        verdict = "proven" if self.passed else "NOT PROVEN"
        moves = "" if self.gradient is None else f", new parameters get gradients of {self.gradient:.1g} and more"
        return (
            f"{self.operation} by {self.way}: {verdict} on {self.probe_rows} rows ({self.probe_digest}): "
            f"largest relative difference {told}, {order}{moves}"
        )


class NotProven(LeavenError, ArithmeticError):
    """Surgery changed what a model answers, so the changed model was thrown away."""

    def __init__(self, proof: Proof) -> None:
        super().__init__(proof)
        self.proof = proof

    def __str__(self) -> str:
        return f"{self.proof}. The changed model was not kept; fit a version from scratch."


class UnknownText(CannotLearn):
    """A model's text is not one of those that we know how to change."""

    def __init__(self, learner: str, what: str) -> None:
        super().__init__(learner, what, _FRESH)
        self.args = (learner, what)


@runtime_checkable
class Grows(Protocol):
    """A learner that can give a fitted model more inputs; others are fitted from scratch where features are added.

    One that says `new_classes = "surgery"` gives it more classes by `grow` as well, behind those that it has; one that
    says "update" learns them in an update.
    """

    @property
    def grows(self) -> bool:
        """Whether `grow` can do it, as this learner is set."""
        ...

    def grow(
        self, parent: Files, *, old: Encoder, new: Encoder, probe: Matrix, trusted: Collection[str] = ()
    ) -> tuple[Files, Proof]:
        """Return the parent's model with the inputs of `new`, and the proof that it answers as before.

        Args:
            parent: The files of a model that takes the inputs of `old`.
            old: What the parent takes.
            new: What the grown model is to take: all of `old`, and more, in any order.
            probe: Rows as `new` encodes them, shape (rows, features of `new`), one or more.
            trusted: Types of the owner's own that a model under the parent may be made of.

        Raises:
            UnknownText: the parent is stored as a text that is not known, so only its answers can be gone on from.
            CannotLearn: the parent does not take `old`, `new` does not hold all of it, or this model cannot be grown.
            NotProven: the grown model answers something else.
        """
        ...


NewClasses = Literal["surgery", "update"]


def new_classes(learner: object) -> NewClasses | None:
    """Return how a learner's models get classes that they do not know: by `grow`, in an update, or not at all."""
    how: NewClasses | None = getattr(learner, "new_classes", None)
    return how


@runtime_checkable
class Corrects(Protocol):
    """A learner whose model can start from the answers of another, whatever that is, and learn to correct them."""

    @property
    def corrects(self) -> bool:
        """Whether `start` can do it, as this learner is set."""
        ...

    def start(self, encoder: Encoder, *, task: str) -> Files:
        """Return a model of no rounds that takes what `encoder` gives, for `update` to go on from."""
        ...


def prove(
    operation: object,
    *,
    way: str,
    probe: Sequence[Numbers],
    answers: Mapping[Precision, tuple[Numbers, Numbers]],
    gradients: Sequence[Numbers] | None = None,
    rounding: Mapping[Precision, float] | None = None,
) -> Proof:
    """Return what the answers before and after surgery say about it.

    Args:
        operation: What was done; its `repr` is kept.
        way: How, in words.
        probe: What was asked: arrays whose first axis is the row.
        answers: Before and after, per precision: shape (rows,), or (rows, classes) with larger for likelier.
        gradients: Of each new parameter that is to be trained; None where there are none of the kind.
        rounding: By how much the model's own answers are off in a precision, relative, as measured before surgery: a
            difference of a few times this says nothing. Otherwise `TOLERANCE` is the most that passes.
    """
    allowed = {name: max(TOLERANCE, 4 * (rounding or {}).get(name, 0.0)) for name in answers}
    differences = tuple(_difference(*pair, name, allowed[name]) for name, pair in answers.items())
    same = all(same_order(*pair, tolerance=allowed[name]) for name, pair in answers.items())
    gradient = None if gradients is None else min((float(np.abs(one).max()) for one in gradients), default=0.0)
    rows = len(probe[0])
    close = bool(differences) and all(one.relative <= one.tolerance for one in differences)
    passed = rows > 0 and close and same and (gradient is None or gradient > 0)
    return Proof(repr(operation), way, rows, digest(probe), differences, same, passed, gradient)


def proven(proof: Proof) -> Proof:
    """Return `proof` if it passed.

    Raises:
        NotProven: it did not.
    """
    if not proof.passed:
        raise NotProven(proof)
    return proof


def same_order(before: Numbers, after: Numbers, *, tolerance: float = TOLERANCE) -> bool:
    """Whether rows are ranked (one answer each) or classes chosen (several) as before, but for ties.

    Answers that differed by less than the tolerance before are ties: either may come first.
    """
    if before.shape != after.shape or not np.isfinite(after).all():
        return False
    slack = tolerance * _usual(before)
    if before.ndim == 1:
        ordered = after[np.argsort(before, kind="stable")]
        return bool((np.maximum.accumulate(ordered) - ordered <= slack).all())
    chosen = after.argmax(axis=-1)[..., None]
    return bool((before.max(axis=-1) - np.take_along_axis(before, chosen, axis=-1)[..., 0] <= slack).all())


def digest(probe: Sequence[Numbers]) -> str:
    """Return 16 hexadecimal digits that change with any value of the probe; one NaN is as good as another."""
    hashed = blake2b(digest_size=8)
    for array in probe:
        numbers = np.where(np.isnan(array), np.nan, array).astype("<f8")
        hashed.update(f"{numbers.shape}\0".encode())
        hashed.update(numbers.tobytes())
    return hashed.hexdigest()


def added(old: Encoder, new: Encoder) -> tuple[str, ...]:
    """Return the names of the features of `new` that `old` does not have, in the order of `new`."""
    known = {name for name, _, _ in old.features}
    return tuple(name for name, _, _ in new.features if name not in known)


def change(old: Encoder, new: Encoder) -> AddFeatures | ReorderFeatures:
    """Return the operation that leads from the inputs of `old` to those of `new`."""
    names = added(old, new)
    return AddFeatures(names) if names else ReorderFeatures()


def places(learner: str, old: Encoder, new: Encoder) -> tuple[int, ...]:
    """Return where in `new` each feature of `old` stands.

    Raises:
        CannotLearn: one is gone or has another type, or its categories do not begin with those that `old` knows.
    """
    found = {name: (index, kind) for index, (name, kind, _) in enumerate(new.features)}
    for name, kind, _ in old.features:
        if name not in found or found[name][1] != kind:
            why = f"feature {name!r} ({kind}) of the parent " + ("has another type" if name in found else "is gone")
            raise CannotLearn(learner, why, _FRESH)
        known = old.categories.get(name, ())
        if new.categories.get(name, ())[: len(known)] != known:
            why = f"the categories of feature {name!r} do not begin with the parent's {len(known)}"
            raise CannotLearn(learner, why, f"Extend the parent's encoder. {_FRESH}")
    return tuple(found[name][0] for name, _, _ in old.features)


def probe_rows(matrix: Matrix, *, new: Sequence[int], rows: int = 256) -> Matrix:
    """Return the newest rows and as many of the older ones, as they are, and once more with the new features missing.

    Older ones are taken evenly, as the newest may all be of one hour.

    Args:
        matrix: Rows, oldest first, shape (rows, features).
        new: Columns of the features that are new.
        rows: How many of the newest to take, and of the older ones.
    """
    older, newest = matrix[:-rows], matrix[-rows:]
    spread = older[np.linspace(0, len(older) - 1, min(rows, len(older))).astype(np.intp)]
    known = np.concatenate([spread, newest])
    without = known.copy()
    without[:, list(new)] = np.nan
    return np.concatenate([known, without])


_FRESH = "Fit a version from scratch instead."


def relative_difference(before: Numbers, after: Numbers) -> float:
    """Return how far the answers after lie from those before, at most, in shares of these; infinite if any is none."""
    return _difference(before, after, "float64", TOLERANCE).relative


def _difference(before: Numbers, after: Numbers, precision: Precision, tolerance: float) -> Difference:
    if before.shape != after.shape or not (np.isfinite(before).all() and np.isfinite(after).all()):
        return Difference(precision, np.inf, np.inf, tolerance)
    gap = np.abs(after.astype(np.float64) - before.astype(np.float64))
    size = np.maximum(np.abs(before), _usual(before)).astype(np.float64)
    share = np.divide(gap, size, out=np.where(gap > 0, np.inf, 0.0), where=size > 0)
    return Difference(precision, float(gap.max(initial=0)), float(share.max(initial=0)), tolerance)


def _usual(answers: Numbers) -> float:
    return float(np.abs(answers).mean()) if answers.size else 0.0


def _size(relative: float) -> str:
    return "0" if relative == 0 else f"{relative:.1g}"
