"""What are the steps of a refresh?

snapshot → train → register → gate → trial → promote. Each takes and gives plain data (JSON), can be run again without
doing anything twice, and can be run alone, so an orchestrator can drive them instead of the controller.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from hashlib import sha256
from typing import Any

import msgspec
import numpy as np
from sqlalchemy import Connection

from leaven.controller import state
from leaven.controller.making import loop_metric, snapshot_of, train
from leaven.controller.parts import Parts
from leaven.controller.planning import take_snapshot
from leaven.controller.promotion import promote, publish_routes
from leaven.controller.results import Code, Payload, StepResult
from leaven.controller.trials import begin_trial, reconcile_trial
from leaven.curation.snapshot import Snapshot, read_holdout
from leaven.curation.windows import Part, chosen
from leaven.duration import instant, micros
from leaven.endpoints.description import FORMAT as ENDPOINT
from leaven.events.columns import Examples
from leaven.events.source import Span
from leaven.experiments.trial import Trial
from leaven.gates import judge_all
from leaven.gates.forgetting import forgetting
from leaven.gates.gate import Check, Rows
from leaven.loop import Loop
from leaven.registry import aliases, loops, versions
from leaven.registry.decisions import Decision, decisions, record
from leaven.stats.metrics import METRICS, shown_metrics
from leaven.training.costs import counterfactual, energy

PAST_ROWS = 2_000
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


def register(parts: Parts, loop: Loop, payload: Payload, *, now: datetime) -> StepResult:
    """Enter the new version in the registry, with its lineage: adds `version`."""
    with parts.write() as connection:
        parts.fence(connection)
        if "compared" in payload:
            record(connection, _comparison_decision(loop, payload))
        lineage = _lineage(connection, parts, loop, payload)
        number = versions.register(
            connection, loop.name, artifact=payload["artifact"], format=payload["format"], mode=payload["mode"],
            definition_digest=loop.digest, at=micros(now),
            parent=payload["parent"] if payload["mode"] == "update" else None,
            snapshot=payload["snapshot"], refresh=payload["refresh"], lineage=lineage,
        )  # fmt: skip
    return StepResult("done", payload | {"version": number})


_KEPT = (
    "cause", "training", "rows", "served", "learnt", "snapshot", "plan", "replayed", "new_since", "compared",
    "not_compared", "environment", "surgery", "teacher",
)  # fmt: skip


def _lineage(connection: Connection, parts: Parts, loop: Loop, payload: Payload) -> dict[str, Any]:
    """What is kept of how the version came to be, and what the other way would have cost (an estimate)."""
    kept: dict[str, Any] = {name: payload[name] for name in _KEPT if name in payload}
    earlier = [
        (one.number, one.mode, one.lineage.get("training", {}))
        for one in versions.versions(connection, loop.name)
        if one.format != ENDPOINT and one.refresh != payload["refresh"]
    ]
    source = loops.loop(connection, loop.name).source
    beside = payload.get("compared", {}).get("other", {})  # what was trained only to compare
    spent = payload["training"]["cpu_seconds"] + beside.get("cpu_seconds", 0.0)
    facts = {
        "replaces": payload["parent"],  # the champion of then, whether it is continued or not
        "code": sha256(source.encode()).hexdigest()[:16] if source else None,  # of the loop file's text
        "otherwise": counterfactual(payload["mode"], earlier, beside=beside),
        "energy": energy(spent, parts.power),
    }
    return kept | msgspec.to_builtins({name: fact for name, fact in facts.items() if fact is not None})  # type: ignore[no-any-return]


def _comparison_decision(loop: Loop, payload: Payload) -> Decision:
    compared = {name: fact for name, fact in payload["compared"].items() if name != "other"}
    return Decision(
        id=f"{payload['refresh']}-compare", loop=loop.name, at=payload["as_of"], kind="compare",
        outcome=compared["taken"], rule={"take_above": payload["plan"]["take_above"]}, evidence=compared,
        why=compared["why"], by="rule", refresh=payload["refresh"],
    )  # fmt: skip


def gate(parts: Parts, loop: Loop, payload: Payload, *, now: datetime) -> StepResult:
    """Judge the new version by the loop's gates: adds `gate` and `why`. `refused` unless all pass."""
    check, fresh_metrics = _check(parts, loop, payload)
    outcome, reports = judge_all(loop.gates, check)
    changed = forgetting(check, metric=loop_metric(loop), task=loop.label.task)
    decided = Decision(
        id=f"{payload['refresh']}-gate", loop=loop.name, at=micros(now), kind="gate", outcome=outcome,
        version=payload["version"], rule={"gates": [report.gate for report in reports]},
        evidence={
            "reports": [msgspec.to_builtins(report.evidence) for report in reports],
            "fresh": fresh_metrics,
        } | ({} if changed is None else {"forgetting": msgspec.to_builtins(changed)}),
        why="\n".join(report.why for report in reports) or "the loop has no gates", by="gates",
        refresh=payload["refresh"],
    )  # fmt: skip
    with parts.write() as connection:
        parts.fence(connection)
        record(connection, decided)
    added = payload | {"gate": outcome, "why": decided.why}
    return StepResult("done" if outcome == "pass" else "refused", added)


def _check(parts: Parts, loop: Loop, payload: Payload) -> tuple[Check, dict[str, Any]]:
    snapshot, source = snapshot_of(parts, payload["snapshot"]), parts.source(loop.name)
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
    if known.state == "open" and not known.watching:
        known = reconcile_trial(parts, loop, known, now=now)
    return StepResult(_code_of(known), payload)


def _code_of(known: Trial | None) -> Code:
    """What a trial means for its refresh: one whose challenger was promoted and is watched is won."""
    if known is None or known.state in ("rolled_back", "stopped"):
        return "refused"
    return "again" if known.state == "open" and not known.watching else "done"


def promote_proven(parts: Parts, loop: Loop, payload: Payload, *, now: datetime) -> StepResult:
    """Make the version champion: at once where no trial was needed; a trial that was won did it already."""
    at = micros(now)
    version = payload["version"]
    with parts.write() as connection:
        parts.fence(connection)
        if payload.get("trial") is not None:
            known = state.find_trial(connection, payload["trial"])
            return StepResult(_code_of(known), payload)
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
