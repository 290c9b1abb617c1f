"""What does the controller do with an open trial now?"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import msgspec
from sqlalchemy import Connection

from leaven.controller import state
from leaven.controller.moves import end_trial, move
from leaven.controller.parts import Parts
from leaven.controller.promotion import publish_routes
from leaven.controller.self_testing import salt_for
from leaven.duration import instant, micros
from leaven.experiments.evidence import Evidence
from leaven.experiments.showing import shown
from leaven.experiments.stage import Stage, Traffic
from leaven.experiments.trial import (
    NO_STAGES,
    Action,
    Trial,
    ends_in_promotion,
    evidence_digest,
    reconcile,
    stands_in_the_way,
    steps_of,
    superseded,
)
from leaven.loop import Loop
from leaven.registry import aliases, decisions, loops
from leaven.registry.decisions import Decision, record
from leaven.stats.metrics import default_metric


def begin_trial(
    parts: Parts, loop: Loop, challenger: int, *, refresh: str | None, now: datetime, step: int = 0, by: str = "rule"
) -> Trial:
    """Open a trial of `challenger` against the champion and route it; one that was opened before is returned.

    An open watch of the champion ends with that, by what it has seen so far.

    Raises:
        RefreshUnderWay: another trial of the loop is open.
    """
    at = micros(now)
    trial_id = _trial_of(refresh) if refresh is not None else f"{loop.name}-t-v{challenger}-{at}"
    tested = salt_for(parts, loop, trial_id, now=now, step=step)  # outside: it reads the log
    with parts.write() as connection:
        parts.fence(connection)
        known = state.find_trial(connection, trial_id)
        if known is not None:
            return known
        under_way = state.active_trial(connection, loop.name)
        watch = under_way if under_way is not None and under_way.watching else None
        busy: Trial | state.Refresh | None = under_way if watch is None else None
        if busy is None and refresh is None:  # a trial that a person asks for
            busy = state.active_refresh(connection, loop.name)
        if busy is not None:
            raise state.RefreshUnderWay(loop.name, busy.id, busy.state)
        if watch is not None:
            _end_watch(connection, loop, watch, challenger, now=now)
        champion = aliases.alias(connection, loop.name, "champion")
        assert champion is not None
        opened = Trial(trial_id, loop.name, str(challenger), str(champion), at, at, step=step, refresh=refresh,
                       salt=tested.salt)  # fmt: skip
        state.open_trial(connection, opened, rollout=repr(list(loop.rollout)))
        stage, _ = steps_of(loop.rollout)[step]
        decided = Decision(
            id=f"{trial_id}-begin", loop=loop.name, at=at, kind="trial", outcome="begin", version=challenger,
            rule={"rollout": [repr(each) for each in loop.rollout], "from": step} | _question(loop),
            evidence={"self_test": msgspec.to_builtins(tested)},
            why=f"version {challenger} begins with {stage!r}; {tested.why}",
            by=by, refresh=refresh, trial=trial_id,
        )  # fmt: skip
        record(connection, decided)
        aliases.set_alias(connection, loop.name, "challenger", challenger, decision=decided.id, at=at)
        publish_routes(connection, loop.name, trial=opened, rollout=tuple(loop.rollout), now=at)
    return opened


def _question(loop: Loop) -> dict[str, str]:
    """What a trial asks: whether the answers to these units come nearer to this label."""
    return {"label": repr(loop.label), "unit": loop.unit}


def _trial_of(refresh: str) -> str:
    """The id of a refresh's trial: of a loop that has "-r" in its own name as well."""
    loop, _, number = refresh.rpartition("-r")
    return f"{loop}-t{number}"


def reconcile_trial(parts: Parts, loop: Loop, trial: Trial, *, now: datetime) -> Trial:
    """Look at the evidence as of `now`, do what it says, and return the trial as it is afterwards.

    Evidence, decision, aliases and routes change in one transaction: a crash leaves all of it or none.
    """
    if (changed := _changed(parts, loop, trial, now=now)) is not None:
        return changed
    metric = default_metric(loop.label.task)
    before, evidence = _evidence(parts, loop, trial, metric=metric, now=now)
    action = reconcile(trial, loop.rollout, evidence, now=now, metric=metric)
    with parts.database.read() as connection:
        paused = loops.loop(connection, loop.name).paused
    # A paused loop still rolls back, but nothing moves forward; the look is spent all the same.
    if action.do == "hold" or stands_in_the_way(trial, action, paused=paused):
        return _hold(parts, loop, trial, action, before, evidence, now=now)
    with parts.write() as connection:
        parts.fence(connection)
        current = state.find_trial(connection, trial.id)
        if current != trial:  # somebody was faster: a person, or an earlier life of this controller
            return current if current is not None else trial
        _keep(connection, loop, trial, action, evidence, now=now)
        return _act(connection, loop, trial, action, evidence, metric=metric, now=now)


def _changed(parts: Parts, loop: Loop, trial: Trial, *, now: datetime) -> Trial | None:
    """End a trial under which its loop was edited, or its champion changed: it could not be judged fairly."""
    with parts.database.read() as connection:
        rollout = state.trial_rollout(connection, trial.id)
        champion = aliases.alias(connection, loop.name, "champion")
        begun = decisions.decisions(connection, loop.name, kind="trial", trial=trial.id)
    asked = begun[0].rule if begun else {}
    edited = [name for name, now_written in _question(loop).items() if asked.get(name, now_written) != now_written]
    edited += ["rollout"] if rollout != repr(list(loop.rollout)) else []
    if not edited and champion == int(trial.challenger if trial.watching else trial.champion):
        return None
    parts_edited = f"the loop's {' and '.join(edited)} {'was' if len(edited) == 1 else 'were'} edited"
    why = parts_edited if edited else "the champion was changed"
    at = micros(now)
    decided = Decision(
        id=f"{trial.id}-changed", loop=loop.name, at=at, kind="trial", outcome="stop", version=int(trial.challenger),
        why=f"{why} during the trial", by="rule", refresh=trial.refresh, trial=trial.id,
    )  # fmt: skip
    with parts.write() as connection:
        parts.fence(connection)
        current = state.find_trial(connection, trial.id)
        if current is None or current.state != "open":
            return current or trial
        record(connection, decided)
        # A challenger that was promoted before stays champion: nothing was found against it.
        return end_trial(connection, current, "promoted" if current.watching and edited else "stopped", decided, now=at)


def _evidence(
    parts: Parts, loop: Loop, trial: Trial, *, metric: str, now: datetime
) -> tuple[Evidence | None, Evidence]:
    """What the step had seen at the last look, and what it has seen now."""
    stage, step = steps_of(loop.rollout)[trial.step]
    with parts.database.read() as connection:
        kept = state.kept_evidence(connection, trial.id, trial.step)
    before: Evidence | None = None if kept is None else msgspec.convert(kept, stage.evidence)
    traffic = Traffic(
        parts.source(loop.name), loop.label, instant(trial.since), now, trial.champion, trial.challenger,
        stage.metric or metric, instant(trial.opened_at),
        lambda version, features: parts.model(loop.name, int(version)).answer(features),
    )  # fmt: skip
    return before, stage.observe(step, traffic, before)


def _keep(
    connection: Connection, loop: Loop, trial: Trial, action: Action, evidence: Evidence, *, now: datetime
) -> None:
    """Keep what the step has seen, and how its estimates stand at this look."""
    if action.rule == NO_STAGES:
        return
    state.keep_evidence(connection, trial, evidence, now=micros(now))
    stage, step = steps_of(loop.rollout)[trial.step]
    metric = stage.metric or default_metric(loop.label.task)
    rows = tuple(row for row in shown(stage, step, evidence, look=action.look, metric=metric) if row.low is not None)
    state.keep_look(connection, trial, state.Look(trial.step, micros(now), action.look, action.do, rows))


def _hold(
    parts: Parts,
    loop: Loop,
    trial: Trial,
    action: Action,
    before: Evidence | None,
    evidence: Evidence,
    *,
    now: datetime,
) -> Trial:
    if evidence == before:
        return trial
    held = trial
    if action.looked:
        held = msgspec.structs.replace(trial, looks=action.look, seen=evidence_digest(evidence))
    with parts.write() as connection:
        parts.fence(connection)
        current = state.find_trial(connection, trial.id)
        if current != trial:
            return current if current is not None else trial
        _keep(connection, loop, trial, action, evidence, now=now)
        if held != trial:
            state.save_trial(connection, held, now=micros(now))
    return held


def _act(
    connection: Connection, loop: Loop, trial: Trial, action: Action, evidence: Evidence, *, metric: str, now: datetime
) -> Trial:
    judged = action.rule != NO_STAGES
    decided = Decision(
        id=f"{trial.id}-{action.step}-{action.do}", loop=loop.name, at=micros(now), kind="trial", outcome=action.do,
        version=int(trial.challenger),
        rule=_rule(loop, trial, action.look, metric=metric, now=now) if judged else {"stages": []},
        evidence=msgspec.to_builtins(evidence) if judged else {}, why=action.why, by="rule", refresh=trial.refresh,
        trial=trial.id,
    )  # fmt: skip
    return move(connection, trial, loop.rollout, action.do, decided, now=micros(now))


def _rule(loop: Loop, trial: Trial, look: int, *, metric: str, now: datetime) -> dict[str, Any]:
    """All that a verdict on the present step rests on beside its evidence, so that it can be judged again."""
    stage, step = steps_of(loop.rollout)[trial.step]
    rule = {
        "stage": repr(stage), "step": _step_of_stage(loop.rollout, trial.step), "look": look,
        "elapsed": max(0, micros(now) - trial.since), "metric": metric,
        "last": ends_in_promotion(loop.rollout, trial.step),
    }  # fmt: skip
    return rule | ({"routes": {"kind": step.kind, "share": step.share}} if step.holds else {})


def _end_watch(connection: Connection, loop: Loop, watch: Trial, challenger: int, *, now: datetime) -> None:
    """End an open watch for the trial of another challenger, by what was seen at the last look at it."""
    if state.trial_rollout(connection, watch.id) != repr(list(loop.rollout)):
        rule, why, seen = {}, superseded("the rollout was edited meanwhile", challenger), None
    else:
        stage, step = steps_of(loop.rollout)[watch.step]
        seen = state.kept_evidence(connection, watch.id, watch.step)
        evidence = stage.evidence() if seen is None else msgspec.convert(seen, stage.evidence)
        metric = default_metric(loop.label.task)
        rule = _rule(loop, watch, max(1, watch.looks), metric=metric, now=now) | {"superseded_by": challenger}
        verdict = stage.judge(
            step, evidence, elapsed=timedelta(microseconds=rule["elapsed"]), look=rule["look"],
            metric=stage.metric or metric,
        )  # fmt: skip
        why, seen = superseded(verdict.why, challenger), msgspec.to_builtins(evidence)
    decided = Decision(
        id=f"{watch.id}-{watch.step}-keep", loop=loop.name, at=micros(now), kind="trial", outcome="keep",
        version=int(watch.challenger), rule=rule, evidence=seen or {}, why=why, by="rule", refresh=watch.refresh,
        trial=watch.id,
    )  # fmt: skip
    move(connection, watch, loop.rollout, "keep", decided, now=micros(now))


def _step_of_stage(rollout: Sequence[Stage], step: int) -> int:
    """Number of the step within its own stage, from 0; one stage may stand in a rollout twice."""
    for stage in rollout:
        if step < len(stage.steps()):
            break
        step -= len(stage.steps())
    return step
