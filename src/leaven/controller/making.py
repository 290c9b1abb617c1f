"""How is a version made out of its snapshot, and, from time to time, a second one from scratch to compare it with?"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from leaven import __version__
from leaven.controller.parts import Parts
from leaven.controller.results import Payload, StepResult
from leaven.controller.surgery import surgery_in
from leaven.curation.snapshot import Snapshot, read_holdout, read_snapshot
from leaven.duration import instant
from leaven.events.columns import Examples, column_time
from leaven.gates.forgetting import row_loss_metric
from leaven.learners.artifact import ModelArtifact, load_artifact
from leaven.learners.growing import with_proof
from leaven.learners.residual import started
from leaven.loop import Loop
from leaven.registry import snapshots, versions
from leaven.stats.answers import given
from leaven.stats.intervals import mean_interval
from leaven.stats.metrics import METRICS
from leaven.stats.moments import moments, unit_means
from leaven.training.distilling import mixed_labels
from leaven.training.learner import CannotLearn, training_set
from leaven.training.plans import Choice, Mode
from leaven.training.rebuilding import Compared, relative_gap, taken_of

Cancelled = Callable[[], bool]
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Made:
    """A model, and what it took to make it."""

    artifact: ModelArtifact
    cost: Mapping[str, Any]


def train(parts: Parts, loop: Loop, payload: Payload, *, cancelled: Cancelled) -> StepResult:
    """Fit or update the model: adds `artifact`, `format`, `training` (what it took), `environment` and, where the
    parent was given features first, `surgery`: the proof.

    Where the plan asked for a comparison, a model from scratch is fitted as well; adds `compared`, and the rest of the
    data is that of the one that was taken.
    """
    snapshot = snapshot_of(parts, payload["snapshot"])
    examples = read_snapshot(snapshot, parts.source(loop.name), loop.label)
    parent = artifact_of(parts, loop, payload["parent"]) if payload["mode"] == "update" else None
    label = relabelled(parts, loop, payload, examples)
    residual = payload["plan"].get("grow_by") == "residual"
    made = make(
        parts, loop, examples, mode=payload["mode"], parent=parent, label=label, residual=residual, cancelled=cancelled
    )
    added: Payload = {}
    if payload.get("scratch"):
        made, added = _compared(parts, loop, payload, made, cancelled=cancelled)
    environment = {"leaven": __version__, **made.artifact.libraries}
    return StepResult("done", payload | added | {
        "artifact": parts.artifacts.put(made.artifact.to_files()), "format": made.artifact.format,
        "training": made.cost, "environment": environment,
    } | surgery_in(made.artifact.files))  # fmt: skip


def make(
    parts: Parts, loop: Loop, examples: Examples, *, mode: Mode, parent: ModelArtifact | None, label: Floats,
    cancelled: Cancelled, residual: bool = False,
) -> Made:  # fmt: skip
    """Return the model that `examples` make, fitted from scratch, continued from `parent`, or as its `residual`."""
    onwards = None if parent is None else parent.encoder
    soft = loop.label.task == "binary" and label is not examples.labels.value
    data = training_set(
        loop.schema, examples.predictions.features, label, parent=onwards, soft=soft, trusted=parts.trusted
    )
    before, proof = (None if parent is None else parent.files), None
    if parent is not None and residual:
        before, proof = started(
            loop.learner, parent, task=loop.label.task, new=data.encoder, matrix=data.matrix, trusted=parts.trusted
        )
    outcome = parts.train(loop, data, mode=mode, parent=before, cancelled=cancelled)
    files = with_proof(outcome.files, proof)
    cost = {
        "rows": len(examples), "cpu_seconds": outcome.cpu_seconds, "wall_seconds": outcome.wall_seconds,
        "peak_memory_mb": outcome.peak_memory_mb,
    }  # fmt: skip
    made = ModelArtifact(outcome.format, data.encoder, repr(loop.learner), files, outcome.libraries)
    return Made(made, cost)


def relabelled(parts: Parts, loop: Loop, facts: Mapping[str, Any], examples: Examples) -> Floats:
    """Return the labels to learn from: the stored ones, or of replayed older rows the parent's answers, or a mixture.

    Args:
        parts: What to work with.
        loop: Whose rows these are.
        facts: `parent`, `replayed`, `new_since`, `teacher` and `plan` of the refresh, or of a version's lineage.
        examples: The rows of the snapshot.
    """
    label: Floats = examples.labels.value
    if facts.get("teacher") is not None:
        answers = parts.model(loop.name, facts["teacher"]).answer(examples.predictions.features)
        return mixed_labels(label, answers, weight=facts["plan"]["distil"])
    if not facts.get("replayed") or facts.get("plan", {}).get("replay_labels") != "model":
        return label
    older = examples.predictions.at < column_time(instant(facts["new_since"]))
    columns = {name: column[older] for name, column in examples.predictions.features.items()}
    answers = parts.model(loop.name, facts["parent"]).answer(columns)
    soft = label.copy()
    soft[older] = np.where(np.isfinite(answers), answers, label[older])
    return soft


def _compared(
    parts: Parts, loop: Loop, payload: Payload, updated: Made, *, cancelled: Cancelled
) -> tuple[Made, Payload]:
    """The updated model or the one from scratch, and what the refresh's data becomes."""
    source = parts.source(loop.name)
    kept = snapshot_of(parts, payload["scratch"])
    examples = read_snapshot(kept, source, loop.label)
    try:
        scratch = make(
            parts, loop, examples, mode="fit", parent=None, label=examples.labels.value, cancelled=cancelled
        )  # fmt: skip
    except CannotLearn as error:
        return updated, {"not_compared": str(error)}
    fresh = read_holdout(snapshot_of(parts, payload["snapshot"]), source, loop.label)
    compared = _comparison(parts, loop, payload, fresh, updated=updated, scratch=scratch)
    added: Payload = {"compared": msgspec.to_builtins(compared)}
    if compared.taken == "updated":
        return updated, added
    return scratch, added | {
        "mode": "fit", "snapshot": payload["scratch"], "rows": kept.rows, "served": kept.served, "learnt": kept.rows,
        "replayed": 0,
    }  # fmt: skip


def _comparison(
    parts: Parts, loop: Loop, payload: Payload, fresh: Examples, *, updated: Made, scratch: Made
) -> Compared:
    """What both lose on the fresh holdout, paired by unit, and which is taken."""
    choice = msgspec.convert(payload["plan"], Choice)
    metric = loop_metric(loop)
    row_loss = METRICS[metric].row_loss
    assert row_loss is not None
    answers = [_answers(parts, made, fresh) for made in (updated, scratch)]
    told = given(answers[0]) & given(answers[1])
    unit, label = fresh.predictions.unit[told], fresh.labels.value[told]
    ours, theirs = (unit_means(unit, row_loss(label, answer[told])) for answer in answers)
    gap = moments(ours - theirs)
    share = relative_gap(moments(ours), moments(theirs), gap)
    taken = taken_of(share, choice.take_above)
    why = "too few fresh units to compare the two"
    if share is not None:
        against = "" if choice.take_above is None else f", against {choice.take_above:.1%} that it may"
        why = (
            f"{metric} on {len(label)} fresh rows: the updated model loses {share.estimate:+.2%} [{share.low:+.2%}, "
            f"{share.high:+.2%}] more than one from scratch{against}: the {taken} one is taken"
        )
    other = updated.cost if taken == "scratch" else scratch.cost
    difference = None if share is None else mean_interval(gap, alpha=0.05)
    return Compared(
        metric, len(label), float(ours.mean()) if len(ours) else 0.0, float(theirs.mean()) if len(ours) else 0.0,
        difference, share, payload.get("updates", 0) + 1, taken, why, dict(other),
    )  # fmt: skip


def _answers(parts: Parts, made: Made, fresh: Examples) -> Floats:
    if not len(fresh):
        return np.empty(0)
    return load_artifact(made.artifact.to_files(), trusted=parts.trusted).answer(fresh.predictions.features)


def loop_metric(loop: Loop) -> str:
    """Return the loss that versions of this loop are compared by: that of its first gate on rows, or the usual one."""
    return row_loss_metric(tuple(getattr(gate, "metric", "") for gate in loop.gates), loop.label.task)


def snapshot_of(parts: Parts, name: str) -> Snapshot:
    """Return the definition of a snapshot."""
    with parts.database.read() as connection:
        return msgspec.convert(snapshots.snapshot(connection, name).definition, Snapshot)


def artifact_of(parts: Parts, loop: Loop, number: int) -> ModelArtifact:
    """Return what is kept of a version."""
    with parts.database.read() as connection:
        digest = versions.version(connection, loop.name, number).artifact
    return ModelArtifact.from_files(parts.artifacts.get(digest))
