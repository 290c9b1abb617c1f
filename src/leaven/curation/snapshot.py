"""Exactly which examples were these, and are they still the same?

A snapshot is logical: high-water marks of the tables, stretches of time, the label rule, the moment as of which labels
count, and the sample's seed. Reading it again after appends, compaction or vacuum gives the same rows, which the digest
proves.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from hashlib import blake2b
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from leaven.curation.windows import Arms, Part, Stratum, chosen, served_by
from leaven.duration import instant, micros
from leaven.errors import LeavenError
from leaven.events.columns import Examples, Labels, Predictions
from leaven.events.labels import LabelRule
from leaven.events.source import ExampleSource, Marks, Span
from leaven.stats.answers import alike


class Stretch(msgspec.Struct, frozen=True):
    """One part of a snapshot: from `start` up to `end` (microseconds), sampled to `rows` where that is given."""

    start: int
    end: int
    rows: int | None = None
    by: Stratum | None = None
    arms: Arms = "all"
    half_life: int | None = None  # microseconds
    balance: float | None = None  # share of label 1


class Snapshot(msgspec.Struct, frozen=True):
    """The definition of an exact set of examples; `rows` and `digest` say what it held when it was taken."""

    loop: str
    stretches: tuple[Stretch, ...]
    holdout: Stretch | None
    label: str  # the rule as written
    as_of: int
    predictions_mark: int
    feedback_mark: int
    seed: int
    rows: int = 0
    digest: str = ""
    tombstones_mark: int = 0  # what was erased up to here was gone when it was taken
    lineage: tuple[str, ...] = ()  # versions whose rows are one's own, where a stretch asks for these
    served: dict[str, int] = {}  # rows by the arm that answered them, when it was taken


class SnapshotChanged(LeavenError, RuntimeError):
    """A snapshot was read again and holds other rows than when it was taken."""

    def __init__(self, loop: str, expected: str, found: str, rows: int) -> None:
        super().__init__(loop, expected, found, rows)
        self.loop, self.expected, self.found, self.rows = loop, expected, found, rows

    def __str__(self) -> str:
        return (
            f"a snapshot of {self.loop!r} with digest {self.expected} now reads as {self.found} ({self.rows} rows). "
            "Its label rule was edited, or its tables were changed by another program; start a new refresh."
        )


class SnapshotErased(SnapshotChanged):
    """A snapshot was read again, and some of its rows have been erased since it was taken, or grew too old."""

    def __init__(self, loop: str, expected: str, found: str, rows: int, taken: int, erased: int) -> None:
        super().__init__(loop, expected, found, rows)
        self.args = (loop, expected, found, rows, taken, erased)
        self.taken, self.erased = taken, erased

    def __str__(self) -> str:
        return (
            f"{self.erased:,} rows erased since a snapshot of {self.loop!r} was taken: it held {self.taken:,} examples "
            f"and now reads as {self.rows:,}. What was trained on it stands; to train again, start a new refresh."
        )


def define_snapshot(
    loop: str,
    parts: Sequence[Part],
    *,
    holdout: Span | None,
    rule: LabelRule,
    as_of: datetime,
    marks: Marks,
    seed: int,
    lineage: Sequence[str] = (),
) -> Snapshot:
    """Return the definition of the snapshot that holds these parts, as of this moment and these marks.

    `lineage` names the versions whose rows a part with `arms="own"` keeps.
    """
    return Snapshot(
        loop=loop,
        stretches=tuple(_stretch(part) for part in parts),
        holdout=None if holdout is None else Stretch(micros(holdout.start), micros(holdout.end)),
        label=repr(rule),
        as_of=micros(as_of),
        predictions_mark=marks.predictions,
        feedback_mark=marks.feedback,
        seed=seed,
        tombstones_mark=marks.tombstones,
        lineage=tuple(lineage) if any(part.arms == "own" for part in parts) else (),
    )


def _stretch(part: Part) -> Stretch:
    life = None if part.half_life is None else part.half_life // timedelta(microseconds=1)
    return Stretch(micros(part.span.start), micros(part.span.end), part.rows, part.by, part.arms, life, part.balance)


def unsampled(snapshot: Snapshot) -> Snapshot:
    """Return the snapshot of all rows in the same stretches."""
    whole = tuple(Stretch(each.start, each.end, arms=each.arms) for each in snapshot.stretches)
    return msgspec.structs.replace(snapshot, stretches=whole, rows=0, digest="", served={})


def taken(definition: Snapshot, examples: Examples) -> Snapshot:
    """Return the snapshot with what it held when it was taken: rows, by which arms they were served, and digest."""
    arms, counts = np.unique(examples.predictions.arm.astype(str), return_counts=True)
    return msgspec.structs.replace(
        definition, rows=len(examples), digest=examples_digest(examples),
        served=dict(zip(arms.tolist(), counts.tolist(), strict=True)),
    )  # fmt: skip


def read_snapshot(snapshot: Snapshot, source: ExampleSource, rule: LabelRule) -> Examples:
    """Return the examples of `snapshot`: mature predictions with a label, each once, oldest first.

    Raises:
        SnapshotErased: the snapshot was taken before, and rows were erased since.
        SnapshotChanged: the snapshot was taken before, and the rows are not the same any more for another reason.
    """
    found = [_read(stretch, snapshot, source, rule) for stretch in snapshot.stretches]
    examples = _once(found)
    if snapshot.digest and (digest := examples_digest(examples)) != snapshot.digest:
        changed = (snapshot.loop, snapshot.digest, digest, len(examples))
        erased = erased_since(snapshot, source)
        raise SnapshotErased(*changed, snapshot.rows, erased) if erased else SnapshotChanged(*changed)
    return examples


def erased_since(snapshot: Snapshot, source: ExampleSource) -> int:
    """Return how many rows (predictions, and feedback) that the snapshot could read were erased since it was taken.

    Of days that were dropped because they grew too old, all rows count, if it could read some of them.
    """
    marks, as_of = _marks(snapshot), instant(snapshot.as_of)
    found = [source.erased(_span(stretch), as_of=as_of, marks=marks) for stretch in _apart(snapshot.stretches)]
    return sum(found)


def _apart(stretches: Sequence[Stretch]) -> list[Stretch]:
    """The same stretches of time without overlap, so that nothing counts twice."""
    out: list[Stretch] = []
    for stretch in sorted(stretches, key=lambda each: each.start):
        if out and stretch.start < out[-1].end:
            out[-1] = Stretch(out[-1].start, max(out[-1].end, stretch.end))
        else:
            out.append(stretch)
    return out


def _span(stretch: Stretch) -> Span:
    return Span(instant(stretch.start), instant(stretch.end))


def _marks(snapshot: Snapshot) -> Marks:
    return Marks(snapshot.predictions_mark, snapshot.feedback_mark, snapshot.tombstones_mark)


def read_holdout(snapshot: Snapshot, source: ExampleSource, rule: LabelRule) -> Examples:
    """Return the mature examples that were kept from the snapshot, to judge by."""
    if snapshot.holdout is None:
        raise ValueError("the snapshot keeps no holdout")
    return _read(snapshot.holdout, snapshot, source, rule)


def _read(stretch: Stretch, snapshot: Snapshot, source: ExampleSource, rule: LabelRule) -> Examples:
    span = _span(stretch)
    found = source.examples(span, rule, as_of=instant(snapshot.as_of), marks=_marks(snapshot))
    examples = found.predicted().mature()
    if stretch.arms != "all":
        by = examples.predictions
        examples = examples.take(served_by(by.arm, by.version, stretch.arms, lineage=snapshot.lineage))
    life = None if stretch.half_life is None else timedelta(microseconds=stretch.half_life)
    part = Part(span, stretch.rows, stretch.by, half_life=life, balance=stretch.balance)
    return examples.take(kept_of(examples, part, seed=snapshot.seed))


def kept_of(examples: Examples, part: Part, *, seed: int) -> NDArray[np.intp]:
    """Return the positions of the examples that `part` keeps, ascending, whatever it samples by."""
    served = examples.predictions
    return chosen(served.id, served.at, part, seed=seed, label=examples.labels.value, features=served.features)


def _once(found: Sequence[Examples]) -> Examples:
    """Join several sets of examples into one, each example once, oldest first, ties by id."""
    if len(found) == 1:
        return found[0]
    both = join_examples(found)
    _, first = np.unique(both.predictions.id.astype(str), return_index=True)
    kept = both.take(np.sort(first))
    return kept.take(np.lexsort((kept.predictions.id.astype(str), kept.predictions.at)))


def join_examples(found: Sequence[Examples]) -> Examples:
    """Return the rows of all `found`, one after the other."""
    names = dict.fromkeys(name for one in found for name in one.predictions.features)
    served = {f: np.concatenate([getattr(one.predictions, f) for one in found]) for f in Predictions.__slots__[:-1]
              if f != "answer"}  # fmt: skip
    served["answer"] = np.concatenate(alike([one.predictions.answer for one in found]))
    features = {name: np.concatenate([_feature(one, name) for one in found]) for name in names}
    labels = Labels(*(np.concatenate([getattr(one.labels, f) for one in found]) for f in Labels.__slots__))
    return Examples(Predictions(**served, features=features), labels)


def _feature(examples: Examples, name: str) -> NDArray[Any]:
    missing = np.full(len(examples), None, dtype=object)
    return examples.predictions.features.get(name, missing)


def examples_digest(examples: Examples) -> str:
    """Return 32 hexadecimal digits that change with any id, time, unit, feature or label, or with their order."""
    hashed = blake2b(digest_size=16)
    for name, column in (
        ("id", examples.predictions.id),
        ("at", examples.predictions.at),
        ("unit", examples.predictions.unit),
        *((f"feature {name}", examples.predictions.features[name]) for name in sorted(_told(examples))),
        ("label", examples.labels.value),
    ):
        hashed.update(f"{name}\0{len(column)}\0".encode())
        hashed.update(_bytes(column))
    return hashed.hexdigest()


def _told(examples: Examples) -> list[str]:
    """Features that some row tells: a column that later rows added to the table is empty in these, and says nothing."""
    features = examples.predictions.features
    return [name for name, column in features.items() if any(v is not None and v == v for v in column.tolist())]


def _bytes(column: NDArray[Any]) -> bytes:
    """The column's content, independent of whether numbers came as ints, floats or objects, and gaps as None or NaN."""
    if column.dtype.kind == "M":
        return column.astype("datetime64[us]").astype("<i8").tobytes()
    if column.dtype.kind in "iufb" or not any(isinstance(given, str) for given in column.tolist()):
        numbers = column.astype("<f8")
        return np.where(np.isnan(numbers), np.nan, numbers).tobytes()  # one NaN for all
    return msgspec.msgpack.encode(column.tolist())
