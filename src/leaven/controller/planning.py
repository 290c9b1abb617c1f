"""From which examples is the next version made: from the loop's data, or from what matured since the champion?

The first step of a refresh. What the plan chose, and why, is a decision on record.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import Connection

from leaven.controller.parts import Parts
from leaven.controller.results import Payload, StepResult
from leaven.controller.surgery import can_grow, why_not_corrected
from leaven.curation.snapshot import Snapshot, define_snapshot, read_snapshot, taken
from leaven.curation.windows import Part
from leaven.duration import instant
from leaven.endpoints.description import FORMAT as ENDPOINT
from leaven.events.source import ExampleSource, Span
from leaven.learners.artifact import ModelArtifact
from leaven.loop import Loop, Schema
from leaven.registry import aliases, snapshots, versions
from leaven.registry.decisions import Decision, record
from leaven.registry.snapshots import SnapshotRecord
from leaven.registry.versions import VersionRecord
from leaven.stats.intervals import Interval
from leaven.training.distilling import Distill
from leaven.training.encoding import Encoder
from leaven.training.plans import Choice, Mode, PlanHistory, Stateless


def take_snapshot(parts: Parts, loop: Loop, payload: Payload) -> StepResult:
    """Choose the examples; `nothing` where there are none to learn from.

    Adds `snapshot`, `rows`, `mode`, `parent`, `plan` (what was chosen and why), `learnt` (the new rows of all snapshots
    that the version continues), `replayed` (older rows that are shown again), `teacher` (a version whose answers are
    learnt) and, where a model from scratch is to be fitted beside an update, `scratch`: its snapshot.

    Raises:
        CannotLearn: the champion cannot be continued, and the plan does nothing else.
    """
    as_of, source = instant(payload["as_of"]), parts.source(loop.name)
    first, until = source.first(), as_of - loop.label.window - loop.holdout_length
    if first is None or first >= until:
        return StepResult("nothing", payload | {"why": "no example is old enough for its label to be mature"})
    with parts.database.read() as connection:
        champion = aliases.alias(connection, loop.name, "champion")
        parent = None if champion is None else versions.version(connection, loop.name, champion)
        before = None if parent is None or parent.snapshot is None else snapshots.snapshot(connection, parent.snapshot)
        own = () if champion is None else versions.ancestry(connection, loop.name, champion)
        history = _history(connection, parts, loop, parent, own, now=as_of)
    choice = loop.plan.choose(history)
    taking = _Taking(loop, source, payload, first, until, tuple(str(number) for number in own))
    data = loop.data.parts(until=until, first=first)
    kept = taking.take("snapshot", data if choice.mode == "fit" or before is None else taking.since(before, choice))
    if kept is None:
        return StepResult("nothing", payload | {"why": _nothing(loop, choice.mode, until)})
    beside = taking.take("scratch-snapshot", data) if choice.compare else None
    with parts.write() as connection:
        parts.fence(connection)
        for each in (kept, beside):
            if each is not None:
                snapshots.put(connection, each)
        if not isinstance(loop.plan, Stateless):  # which never has a choice
            record(connection, _decision(loop, payload, history, choice))
    before_it = int(parent.lineage.get("learnt", 0)) if parent is not None and choice.mode == "update" else 0
    replayed = 0 if taking.fresh is None else kept.rows - taking.fresh
    added: Payload = {
        "snapshot": kept.id, "rows": kept.rows, "served": kept.definition["served"], "mode": choice.mode,
        "learnt": before_it + kept.rows - replayed, "parent": champion, "plan": msgspec.to_builtins(choice),
        "updates": history.updates,
    }  # fmt: skip
    added |= {"replayed": replayed, "new_since": taking.new_since} if replayed else {}
    added |= {"teacher": history.teacher} if choice.distil else {}
    return StepResult("done", payload | added | ({} if beside is None else {"scratch": beside.id}))


class _Taking:
    """Takes the snapshots of one refresh."""

    def __init__(
        self, loop: Loop, source: ExampleSource, payload: Payload, first: datetime, until: datetime,
        lineage: Sequence[str],
    ) -> None:  # fmt: skip
        self._loop, self._source, self._payload, self._lineage = loop, source, payload, lineage
        self._first, self._until = first, until
        self._marks = source.marks()
        self.fresh: int | None = None  # new rows, where older ones are shown again with them
        self.new_since = 0  # micros, where the new ones begin

    def since(self, before: SnapshotRecord, choice: Choice) -> Sequence[Part]:
        """What came after the parent's own examples, and as many older ones as the choice says."""
        seen = msgspec.convert(before.definition, Snapshot)
        edge = max(stretch.end for stretch in seen.stretches)
        start = instant(edge)
        data = self._loop.data.parts(until=self._until, first=self._first)
        newest = max(data, key=lambda part: part.span.end, default=Part(Span(start, self._until)))
        if start >= newest.span.end:
            return []
        arms = newest.arms
        new = Part(Span(start, newest.span.end), arms=arms)
        if not choice.replay or self._first >= start:
            return [new]
        self.fresh = len(read_snapshot(self._define([new]), self._source, self._loop.label))
        self.new_since = edge
        older = Part(Span(self._first, start), max(1, round(choice.replay * self.fresh)), "month", arms)
        return [older, new] if self.fresh else []

    def take(self, name: str, chosen: Sequence[Part]) -> SnapshotRecord | None:
        """The record of the snapshot of these parts; None where it holds nothing."""
        if not chosen:
            return None
        definition = self._define(chosen)
        examples = read_snapshot(definition, self._source, self._loop.label)
        if not len(examples):
            return None
        held = taken(definition, examples)
        return SnapshotRecord(
            f"{self._payload['refresh']}-{name}", self._loop.name, msgspec.to_builtins(held), held.rows, held.digest,
            self._payload["as_of"],
        )  # fmt: skip

    def _define(self, chosen: Sequence[Part]) -> Snapshot:
        loop, until = self._loop, self._until
        return define_snapshot(
            loop.name, chosen, holdout=Span(until, until + loop.holdout_length), rule=loop.label,
            as_of=instant(self._payload["as_of"]), marks=self._marks, seed=loop.seed, lineage=self._lineage,
        )  # fmt: skip


def _history(
    connection: Connection, parts: Parts, loop: Loop, parent: VersionRecord | None, own: Sequence[int], *, now: datetime
) -> PlanHistory:
    """What a plan may know of the versions so far; the champion's files are read where the plan has a choice."""
    trained = parent is not None and parent.format != ENDPOINT
    if isinstance(loop.plan, Distill):
        return PlanHistory(now, trained, teacher=_teacher(connection, loop, loop.plan))
    if parent is None or not trained:
        return PlanHistory(now, has_parent=False)
    if isinstance(loop.plan, Stateless):
        return PlanHistory(now, has_parent=True)
    files = parts.artifacts.get(parent.artifact)
    artifact = ModelArtifact.from_files(files)
    made = versions.versions(connection, loop.name)
    root = next(version for version in made if version.number == own[-1])
    barred = why_not_corrected(loop, artifact)
    return PlanHistory(
        now, True, _as_of(connection, root), len(own) - 1, _uncompared(made),
        changed=changes(artifact.encoder, loop.schema, artifact.format, loop.learner.format),
        grows=can_grow(loop, artifact.encoder, artifact.format), corrects=not barred, barred=barred,
        model_bytes=sum(len(content) for content in files.values()),
        gap=_latest_gap([version for version in made if version.number > root.number]),
    )  # fmt: skip


def _teacher(connection: Connection, loop: Loop, plan: Distill) -> int | None:
    """The version that a plan names; None where there is none of its alias yet."""
    if plan.teacher.isdigit():
        return aliases.resolve(connection, loop.name, plan.teacher)
    return aliases.alias(connection, loop.name, plan.teacher)


def _as_of(connection: Connection, version: VersionRecord) -> datetime:
    """As of when a version took its data; of one that took none here, when it was entered."""
    if version.snapshot is None:
        return instant(version.created_at)
    return instant(int(snapshots.snapshot(connection, version.snapshot).definition["as_of"]))


def _uncompared(made: Sequence[VersionRecord]) -> int:
    """How many updates there were since one was last compared with a model from scratch."""
    count = 0
    for version in reversed(made):
        if "compared" in version.lineage:
            break
        count += version.mode == "update"
    return count


def _latest_gap(made: Sequence[VersionRecord]) -> Interval | None:
    shares = [version.lineage["compared"].get("share") for version in made if "compared" in version.lineage]
    return msgspec.convert(shares[-1], Interval) if shares and shares[-1] is not None else None


def changes(encoder: Encoder, schema: Schema, format_then: str, format_now: str) -> str:
    """Return in what a loop no longer fits a model, in words; empty where it does."""
    old = [(name, kind) for name, kind, _ in encoder.features]
    new = [(name, kind) for name, kind, _ in schema.features]
    told = [f"the kind of model changed from {format_then} to {format_now}"] if format_then != format_now else []
    told += [_classes_changed(encoder.classes, schema.classes)] if encoder.classes != schema.classes else []
    return " and ".join(told + ([_features_changed(old, new)] if old != new else []))


def _classes_changed(old: Sequence[str], new: Sequence[str]) -> str:
    if not old or not new:
        return f"the label {'gained' if new else 'lost'} its classes"
    gone, come = [name for name in old if name not in new], [name for name in new if name not in old]
    told = [f"{verb} {', '.join(names)}" for verb, names in (("lost", gone), ("gained", come)) if names]
    return f"the classes {' and '.join(told) or 'changed their order'}"


def _features_changed(old: Sequence[tuple[str, str]], new: Sequence[tuple[str, str]]) -> str:
    gone, come = ([f"{n} ({t})" for n, t in a if (n, t) not in b] for a, b in ((old, new), (new, old)))
    told = [f"{verb} {', '.join(names)}" for verb, names in (("lost", gone), ("gained", come)) if names]
    return f"the features {' and '.join(told) or 'changed their order'}"


def _decision(loop: Loop, payload: Payload, history: PlanHistory, choice: Choice) -> Decision:
    evidence: dict[str, Any] = msgspec.to_builtins(history)
    return Decision(
        id=f"{payload['refresh']}-plan", loop=loop.name, at=payload["as_of"], kind="plan", outcome=choice.mode,
        rule={"plan": repr(loop.plan)}, evidence=evidence, why=choice.why, by="rule", refresh=payload["refresh"],
    )  # fmt: skip


def _nothing(loop: Loop, mode: Mode, until: datetime) -> str:
    if mode == "update":
        return "no labelled example matured since the champion's snapshot"
    return (
        f"{loop.data!r} holds no labelled example before {until:%Y-%m-%d %H:%M} UTC. Log or import newer ones, or "
        f"learn from older ones: leaven retrain {loop.name} --as-of DATE"
    )
