"""Does a version come out again as it was: same rows, same seed, same parent, same learner?"""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import numpy as np

from leaven.controller.making import artifact_of, make, relabelled, snapshot_of
from leaven.controller.parts import Parts
from leaven.curation.snapshot import Snapshot, read_snapshot
from leaven.endpoints.description import FORMAT as ENDPOINT
from leaven.errors import LeavenError
from leaven.learners.artifact import ModelArtifact, load_artifact
from leaven.loop import Loop
from leaven.registry import versions
from leaven.registry.versions import VersionRecord


class NotReproducible(LeavenError, RuntimeError):
    """A version cannot be made again, for a reason that can be named beforehand."""

    def __init__(self, loop: str, version: int, why: str, mend: str) -> None:
        super().__init__(loop, version, why, mend)
        self.loop, self.version, self.why, self.mend = loop, version, why, mend

    def __str__(self) -> str:
        return f"version {self.version} of loop {self.loop!r} cannot be made again: {self.why}. {self.mend}"


class Reproduction(msgspec.Struct, frozen=True):
    """A version beside itself, made again."""

    loop: str
    version: int
    equal: bool
    why: str
    artifact: str  # digest of the recorded one
    same_files: bool  # bit by bit
    rows: int  # of the snapshot: what both answered
    largest_difference: float | None  # of the answers to these rows; None where one of them is no number
    tolerance: float  # that the learner promises, as a share of the answer; 0 is bit by bit
    libraries: dict[str, tuple[str | None, str | None]]  # those of another version: then, now
    cpu_seconds: float


def reproduce(parts: Parts, loop: Loop, number: int, *, cancelled: Callable[[], bool] = lambda: False) -> Reproduction:
    """Train version `number` again from its snapshot, and compare the two by their files, then by their answers.

    Nothing is registered or kept. A learner may promise less than equal bits: its attribute `reproduces_within` is the
    largest difference, as a share of the answer.

    Raises:
        NotReproducible: it was not trained here, or the loop file says by now what would make another model of it.
        SnapshotErased, SnapshotChanged: the rows are not the same any more.
        CannotLearn, TrainingFailed, …: as of training.
    """
    with parts.database.read() as connection:
        version = versions.version(connection, loop.name, number)
        parent = None if version.parent is None else versions.version(connection, loop.name, version.parent)
    snapshot = _checked(parts, loop, version, parent)
    recorded = artifact_of(parts, loop, number)
    _check_definition(loop, number, recorded, snapshot)
    examples = read_snapshot(snapshot, parts.source(loop.name), loop.label)
    onwards = artifact_of(parts, loop, parent.number) if parent is not None and version.mode == "update" else None
    label = relabelled(parts, loop, version.lineage | {"parent": version.parent}, examples)
    residual = version.lineage.get("plan", {}).get("grow_by") == "residual"
    made = make(
        parts, loop, examples, mode=version.mode, parent=onwards, label=label, residual=residual, cancelled=cancelled
    )
    columns = examples.predictions.features
    then, now = (
        load_artifact(each.to_files(), trusted=parts.trusted).answer(columns) for each in (recorded, made.artifact)
    )
    return _compared(loop, version, recorded, made.artifact, then, now, cpu_seconds=float(made.cost["cpu_seconds"]))


def _checked(parts: Parts, loop: Loop, version: VersionRecord, parent: VersionRecord | None) -> Snapshot:
    """The snapshot of a version that was trained here."""
    if version.format == ENDPOINT:
        mend = "Only versions that were trained here can be."
        raise NotReproducible(loop.name, version.number, "an endpoint elsewhere answers for it", mend)
    if parent is not None and version.mode == "update" and parent.format == ENDPOINT:
        why = f"it continues version {parent.number}, for which an endpoint elsewhere answers"
        raise NotReproducible(loop.name, version.number, why, "Its parent's files are not here.")
    if version.snapshot is None:
        mend = "Only versions that a refresh made can be."
        raise NotReproducible(loop.name, version.number, "it has no snapshot: it was entered by hand", mend)
    return snapshot_of(parts, version.snapshot)


def _check_definition(loop: Loop, number: int, recorded: ModelArtifact, snapshot: Snapshot) -> None:
    """What a model comes of, besides its rows, must be written in the loop file as it was then."""
    then = [(name, kind) for name, kind, _ in recorded.encoder.features]
    now = [(name, kind) for name, kind, _ in loop.schema.features]
    for what, before, after in (
        ("learner", recorded.learner, repr(loop.learner)),
        ("features", str(then), str(now)),
        ("label", snapshot.label, repr(loop.label)),
        ("seed", str(snapshot.seed), str(loop.seed)),
    ):
        if before != after:
            why = f"its {what} was {before}, and the loop file says {after} now"
            mend = f"Put the loop file back as it was for a moment (`leaven show {loop.name} {number}` prints it)."
            raise NotReproducible(loop.name, number, why, mend)


def _compared(
    loop: Loop, version: VersionRecord, recorded: ModelArtifact, made: ModelArtifact,
    then: np.ndarray, now: np.ndarray, *, cpu_seconds: float,
) -> Reproduction:  # fmt: skip
    tolerance = float(getattr(loop.learner, "reproduces_within", 0.0))
    same = _bytes(recorded) == _bytes(made)
    apart = np.abs(now - then)
    finite = bool(np.isfinite(apart).all())
    largest = float(apart.max(initial=0.0)) if finite else None
    within = bool((apart <= tolerance * np.abs(then)).all()) or bool(np.array_equal(then, now, equal_nan=True))
    libraries = _differing(recorded, made)
    return Reproduction(
        loop.name, version.number, same or within, _why(same, within, largest, len(then), tolerance, libraries),
        version.artifact, same, len(then), largest, tolerance, libraries, cpu_seconds,
    )  # fmt: skip


def _bytes(artifact: ModelArtifact) -> dict[str, bytes]:
    return {name: bytes(content) for name, content in artifact.to_files().items()}


def _differing(then: ModelArtifact, now: ModelArtifact) -> dict[str, tuple[str | None, str | None]]:
    """Libraries that both were made with, in other versions, or that only the first was made with."""
    names = dict.fromkeys(then.libraries)
    return {
        name: (then.libraries.get(name), now.libraries.get(name))
        for name in names
        if then.libraries.get(name) != now.libraries.get(name)
    }


def _why(
    same: bool, within: bool, largest: float | None, rows: int, tolerance: float,
    libraries: dict[str, tuple[str | None, str | None]],
) -> str:  # fmt: skip
    if same:
        return "the same files, bit by bit"
    told = "one of them answers with no number" if largest is None else f"answers differ by up to {largest:.3g}"
    if within:
        how = "the same answers, bit by bit" if not largest else f"{told}, within the promised {tolerance:g} of each"
        return f"{how}, to the {rows:,} rows of the snapshot"
    others = ", ".join(f"{name} {before} then, {after or 'absent'} now" for name, (before, after) in libraries.items())
    cause = f"; it was made with other versions: {others}" if others else "; the libraries are the same"
    return f"{told} on the {rows:,} rows of the snapshot{cause}"
