"""What are the steps of a refresh?

snapshot → train → register → gate → trial → promote. Each takes and gives plain data (JSON), can be run again without
doing anything twice, and can be run alone, so an orchestrator can drive them instead of the controller.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

import msgspec
import numpy as np

from leaven.controller import state
from leaven.controller.parts import Parts
from leaven.controller.promotion import promote, publish_routes
from leaven.controller.surgery import surgery_in
from leaven.controller.trials import begin_trial, reconcile_trial
from leaven.curation.snapshot import Snapshot, define_snapshot, read_holdout, read_snapshot, taken
from leaven.curation.windows import Part, chosen
from leaven.duration import instant, micros
from leaven.endpoints.description import FORMAT as ENDPOINT
from leaven.events.columns import Examples
from leaven.events.source import Span
from leaven.experiments.trial import TrialState
from leaven.gates import judge_all
from leaven.gates.gate import Check, Rows
from leaven.learners.artifact import ModelArtifact
from leaven.loop import Loop
from leaven.registry import aliases, snapshots, versions
from leaven.registry.decisions import Decision, decisions, record
from leaven.registry.snapshots import SnapshotRecord
from leaven.stats.metrics import METRICS, shown_metrics
from leaven.training.encoding import encoder_for
from leaven.training.learner import TrainingSet
from leaven.training.plans import Mode

Code = Literal["done", "refused", "again", "nothing"]
Payload = dict[str, Any]
PAST_ROWS = 2_000


@dataclass(frozen=True, slots=True)
class StepResult:
    """How a step ended, and the refresh's data with what the step added."""

    code: Code
    payload: Payload


STEP_NAMES = ("snapshot", "train", "register", "gate", "trial", "promote")


def run_step(
    name: str, parts: Parts, payload: Payload, *, now: datetime, cancelled: Callable[[], bool] = lambda: False
) -> StepResult:
    """Run one step of the refresh that `payload` describes.

    Args:
        name: One of `STEP_NAMES`.
        parts: What to work with.
        payload: `loop`, `refresh`, `as_of` (microseconds) and `cause`, and what earlier steps added.
        now: The present moment; only `trial` and `promote` act on it, the others on `as_of`.
        cancelled: Asked during training; True ends it.
    """
    loop = parts.loop(payload["loop"])
    loop.need_model(f"step {name}")
    if name == "snapshot":
        return take_snapshot(parts, loop, payload)
    if name == "train":
        return train(parts, loop, payload, cancelled=cancelled)
    if name == "register":
        return register(parts, loop, payload, now=now)
    if name == "gate":
        return gate(parts, loop, payload, now=now)
    if name == "trial":
        return trial(parts, loop, payload, now=now)
    return promote_proven(parts, loop, payload, now=now)


def take_snapshot(parts: Parts, loop: Loop, payload: Payload) -> StepResult:
    """Choose the examples; `nothing` where there are none to learn from.

    Adds `snapshot`, `rows`, `mode`, `parent`, and `learnt`: the rows of all snapshots that the version continues.
    """
    as_of, source = instant(payload["as_of"]), parts.source(loop.name)
    with parts.database.read() as connection:
        champion = aliases.alias(connection, loop.name, "champion")
        parent = None if champion is None else versions.version(connection, loop.name, champion)
        before = None if parent is None or parent.snapshot is None else snapshots.snapshot(connection, parent.snapshot)
        own = () if champion is None else versions.ancestry(connection, loop.name, champion)
    mode = loop.plan.mode(has_parent=parent is not None and parent.format != ENDPOINT)
    first = source.first()
    until = as_of - loop.label.window - loop.holdout_length
    if first is None or first >= until:
        return StepResult("nothing", payload | {"why": "no example is old enough for its label to be mature"})
    chosen_parts = _parts(loop, mode == "update", before, first=first, until=until)
    definition = define_snapshot(
        loop.name, chosen_parts, holdout=Span(until, until + loop.holdout_length), rule=loop.label, as_of=as_of,
        marks=source.marks(), seed=loop.seed, lineage=[str(number) for number in own],
    )  # fmt: skip
    examples = read_snapshot(definition, source, loop.label) if chosen_parts else None
    if examples is None or not len(examples):
        return StepResult("nothing", payload | {"why": _nothing(loop, mode, until)})
    snapshot = taken(definition, examples)
    kept = SnapshotRecord(
        f"{payload['refresh']}-snapshot", loop.name, msgspec.to_builtins(snapshot), snapshot.rows, snapshot.digest,
        payload["as_of"],
    )  # fmt: skip
    with parts.write() as connection:
        parts.fence(connection)
        snapshots.put(connection, kept)
    before_it = int(parent.lineage.get("learnt", 0)) if parent is not None and mode == "update" else 0
    learnt = before_it + snapshot.rows
    added = {"snapshot": kept.id, "rows": snapshot.rows, "served": snapshot.served, "learnt": learnt, "mode": mode}
    return StepResult("done", payload | added | {"parent": champion})


def _nothing(loop: Loop, mode: Mode, until: datetime) -> str:
    if mode == "update":
        return "no labelled example matured since the champion's snapshot"
    return (
        f"{loop.data!r} holds no labelled example before {until:%Y-%m-%d %H:%M} UTC. Log or import newer ones, or "
        f"learn from older ones: leaven retrain {loop.name} --as-of DATE"
    )


def _parts(
    loop: Loop, onwards: bool, before: SnapshotRecord | None, *, first: datetime, until: datetime
) -> Sequence[Part]:
    """The loop's data, or, going on from a parent, what came after the parent's own."""
    if not onwards or before is None:
        return loop.data.parts(until=until, first=first)
    seen = msgspec.convert(before.definition, Snapshot)
    start = instant(max(stretch.end for stretch in seen.stretches))
    if start >= until:
        return []
    newest = max(loop.data.parts(until=until, first=first), key=lambda part: part.span.end, default=None)
    return [Part(Span(start, until), arms="all" if newest is None else newest.arms)]


def train(parts: Parts, loop: Loop, payload: Payload, *, cancelled: Callable[[], bool]) -> StepResult:
    """Fit or update the model: adds `artifact`, `format`, `training` (what it took) and, if need was, `surgery`."""
    snapshot = _snapshot(parts, payload)
    examples = read_snapshot(snapshot, parts.source(loop.name), loop.label)
    parent = _artifact(parts, loop, payload["parent"]) if payload["mode"] == "update" else None
    columns = examples.predictions.features
    encoder = encoder_for(loop.schema, columns, parent=None if parent is None else parent.encoder)
    data = TrainingSet(encoder.encode(columns), examples.labels.value, encoder, loop.schema)
    outcome = parts.train(
        loop, data, mode=payload["mode"], parent=None if parent is None else parent.files, cancelled=cancelled
    )
    made = ModelArtifact(outcome.format, encoder, repr(loop.learner), outcome.files, outcome.libraries)
    cost = {
        "rows": len(examples), "cpu_seconds": outcome.cpu_seconds, "wall_seconds": outcome.wall_seconds,
        "peak_memory_mb": outcome.peak_memory_mb,
    }  # fmt: skip
    return StepResult(
        "done",
        payload
        | {"artifact": parts.artifacts.put(made.to_files()), "format": outcome.format, "training": cost}
        | surgery_in(outcome.files),
    )


def register(parts: Parts, loop: Loop, payload: Payload, *, now: datetime) -> StepResult:
    """Enter the new version in the registry, with its lineage: adds `version`."""
    known = ("cause", "training", "surgery", "rows", "served", "learnt", "snapshot")
    lineage: dict[str, Any] = {name: payload[name] for name in known if name in payload}
    with parts.write() as connection:
        parts.fence(connection)
        number = versions.register(
            connection, loop.name, artifact=payload["artifact"], format=payload["format"], mode=payload["mode"],
            definition_digest=loop.digest, at=micros(now),
            parent=payload["parent"] if payload["mode"] == "update" else None,
            snapshot=payload["snapshot"], refresh=payload["refresh"], lineage=lineage,
        )  # fmt: skip
    return StepResult("done", payload | {"version": number})


def gate(parts: Parts, loop: Loop, payload: Payload, *, now: datetime) -> StepResult:
    """Judge the new version by the loop's gates: adds `gate` and `why`. `refused` unless all pass."""
    check, fresh_metrics = _check(parts, loop, payload)
    outcome, reports = judge_all(loop.gates, check)
    decided = Decision(
        id=f"{payload['refresh']}-gate", loop=loop.name, at=micros(now), kind="gate", outcome=outcome,
        version=payload["version"], rule={"gates": [report.gate for report in reports]},
        evidence={
            "reports": [msgspec.to_builtins(report.evidence) for report in reports],
            "fresh": fresh_metrics,
        },
        why="\n".join(report.why for report in reports) or "the loop has no gates", by="gates",
        refresh=payload["refresh"],
    )  # fmt: skip
    with parts.write() as connection:
        parts.fence(connection)
        record(connection, decided)
    added = payload | {"gate": outcome, "why": decided.why}
    return StepResult("done" if outcome == "pass" else "refused", added)


def _check(parts: Parts, loop: Loop, payload: Payload) -> tuple[Check, dict[str, Any]]:
    snapshot, source = _snapshot(parts, payload), parts.source(loop.name)
    fresh = read_holdout(snapshot, source, loop.label)
    past = _past(parts, loop, snapshot)
    challenger = parts.model(loop.name, payload["version"])
    champion = None if payload["parent"] is None else parts.model(loop.name, payload["parent"])

    def rows(examples: Examples) -> Rows:
        columns = examples.predictions.features
        theirs = champion.answer(columns) if champion is not None and len(examples) else None
        if champion is not None and theirs is None:
            theirs = np.empty(0)
        return Rows(examples, challenger.answer(columns) if len(examples) else np.empty(0), theirs)

    check = Check(rows(fresh), rows(past))
    label, answer = check.fresh.examples.labels.value, check.fresh.challenger
    measured = {name: METRICS[name].measure(label, answer) for name in shown_metrics(loop.label.task)}
    finite = {name: msgspec.to_builtins(interval) for name, interval in measured.items() if len(label) > 1}
    return check, finite


def _past(parts: Parts, loop: Loop, snapshot: Snapshot) -> Examples:
    """An even sample of everything before the holdout: what the new version must not have forgotten."""
    source = parts.source(loop.name)
    assert snapshot.holdout is not None
    until, first = instant(snapshot.holdout.start), source.first()
    span = Span(min(first or until, until), until)
    examples = source.examples(span, loop.label, as_of=instant(snapshot.as_of)).predicted().mature()
    part = Part(span, PAST_ROWS, "month")
    return examples.take(chosen(examples.predictions.id, examples.predictions.at, part, seed=loop.seed))


def trial(parts: Parts, loop: Loop, payload: Payload, *, now: datetime) -> StepResult:
    """Begin the trial, or look at it again: adds `trial`. `again` while it is open, `refused` if it was lost.

    Without a champion or without a rollout there is nothing to prove against, and the step is done.
    """
    with parts.database.read() as connection:
        champion = aliases.alias(connection, loop.name, "champion")
        known = state.find_trial(connection, payload["trial"]) if payload.get("trial") else None
    if known is None:
        if not loop.rollout or champion is None or champion == payload["version"]:
            return StepResult("done", payload | {"trial": None})
        begun = begin_trial(parts, loop, payload["version"], refresh=payload["refresh"], now=now)
        return StepResult("again", payload | {"trial": begun.id})
    if known.state == "open":
        known = reconcile_trial(parts, loop, known, now=now)
    return StepResult(_code_of(known.state), payload)


def _code_of(stands: TrialState | None) -> Code:
    """What a trial in this state means for the refresh."""
    return "again" if stands == "open" else "done" if stands == "promoted" else "refused"


def promote_proven(parts: Parts, loop: Loop, payload: Payload, *, now: datetime) -> StepResult:
    """Make the version champion: at once where no trial was needed; a trial that was won did it already."""
    at = micros(now)
    version = payload["version"]
    with parts.write() as connection:
        parts.fence(connection)
        if payload.get("trial") is not None:
            known = state.find_trial(connection, payload["trial"])
            return StepResult(_code_of(None if known is None else known.state), payload)
        if payload.get("gate") != "pass":
            return StepResult("refused", payload)
        if decisions(connection, loop.name, kind="promote", refresh=payload["refresh"]):
            return StepResult("done", payload)  # in an earlier run; a person may have decided otherwise since
        decided = Decision(
            id=f"{payload['refresh']}-promote", loop=loop.name, at=at, kind="promote",
            outcome="promote", version=version, rule={"stages": []}, evidence={},
            why="the gates are passed and no trial stands between", by="gates", refresh=payload["refresh"],
        )  # fmt: skip
        promote(connection, loop.name, version, decided, now=at)
        publish_routes(connection, loop.name, trial=None, now=at)
    return StepResult("done", payload)


def _snapshot(parts: Parts, payload: Payload) -> Snapshot:
    with parts.database.read() as connection:
        return msgspec.convert(snapshots.snapshot(connection, payload["snapshot"]).definition, Snapshot)


def _artifact(parts: Parts, loop: Loop, number: int) -> ModelArtifact:
    with parts.database.read() as connection:
        digest = versions.version(connection, loop.name, number).artifact
    return ModelArtifact.from_files(parts.artifacts.get(digest))
