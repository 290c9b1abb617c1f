"""What does the controller do with an open trial now?"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import msgspec
from sqlalchemy import Connection

from leaven.controller import state
from leaven.controller.parts import Parts
from leaven.controller.promotion import promote, publish_routes
from leaven.controller.self_testing import salt_for
from leaven.duration import instant, micros
from leaven.experiments.evidence import Evidence
from leaven.experiments.stage import Stage, Traffic
from leaven.experiments.trial import Action, Trial, TrialState, evidence_digest, reconcile, steps_of
from leaven.loop import Loop
from leaven.registry import aliases, decisions, loops
from leaven.registry.decisions import Decision, record
from leaven.stats.metrics import default_metric


def begin_trial(
    parts: Parts, loop: Loop, challenger: int, *, refresh: str | None, now: datetime, step: int = 0, by: str = "rule"
) -> Trial:
    """Open a trial of `challenger` against the champion and route it; one that was opened before is returned.

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
        busy: Trial | state.Refresh | None = state.active_trial(connection, loop.name)
        if busy is None and refresh is None:  # a trial that a person asks for
            busy = state.active_refresh(connection, loop.name)
        if busy is not None:
            raise state.RefreshUnderWay(loop.name, busy.id, busy.state)
        champion = aliases.alias(connection, loop.name, "champion")
        assert champion is not None
        opened = Trial(trial_id, loop.name, str(challenger), str(champion), at, at, step=step, refresh=refresh,
                       salt=tested.salt)  # fmt: skip
        state.open_trial(connection, opened, rollout=repr(list(loop.rollout)))
        stage, _ = steps_of(loop.rollout)[step]
        decided = Decision(
            id=f"{trial_id}-begin", loop=loop.name, at=at, kind="trial", outcome="begin", version=challenger,
            rule={"rollout": [repr(each) for each in loop.rollout]} | _question(loop),
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
    if action.do == "hold" or (paused and action.do in ("advance", "promote")):
        return _hold(parts, trial, action, before, evidence, now=now)
    with parts.write() as connection:
        parts.fence(connection)
        current = state.find_trial(connection, trial.id)
        if current != trial:  # somebody was faster: a person, or an earlier life of this controller
            return current if current is not None else trial
        state.keep_evidence(connection, trial, evidence, now=micros(now))
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
    if not edited and champion == int(trial.champion):
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
        return end_trial(connection, current, "stopped", decided, now=at)


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


def _hold(
    parts: Parts, trial: Trial, action: Action, before: Evidence | None, evidence: Evidence, *, now: datetime
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
        state.keep_evidence(connection, trial, evidence, now=micros(now))
        if held != trial:
            state.save_trial(connection, held, now=micros(now))
    return held


def _act(
    connection: Connection, loop: Loop, trial: Trial, action: Action, evidence: Evidence, *, metric: str, now: datetime
) -> Trial:
    at, challenger = micros(now), int(trial.challenger)
    decided = Decision(
        id=f"{trial.id}-{action.step}-{action.do}", loop=loop.name, at=at, kind="trial", outcome=action.do,
        version=challenger,
        rule={
            "stage": action.rule, "step": _step_of_stage(loop.rollout, action.step), "look": action.look,
            "elapsed": at - trial.since, "metric": metric, "last": action.step == len(steps_of(loop.rollout)) - 1,
        },
        evidence=msgspec.to_builtins(evidence), why=action.why, by="rule", refresh=trial.refresh, trial=trial.id,
    )  # fmt: skip
    if action.do == "advance":
        record(connection, decided)
        moved = msgspec.structs.replace(trial, step=trial.step + 1, since=at, looks=0, seen="")
        state.save_trial(connection, moved, now=at)
        publish_routes(connection, loop.name, trial=moved, rollout=tuple(loop.rollout), now=at)
        return moved
    if action.do == "promote":
        promote(connection, loop.name, challenger, decided, now=at)
        return end_trial(connection, trial, "promoted", decided, now=at)
    record(connection, decided)
    return end_trial(connection, trial, "rolled_back" if action.do == "roll_back" else "stopped", decided, now=at)


def end_trial(connection: Connection, trial: Trial, outcome: TrialState, decided: Decision, *, now: int) -> Trial:
    """Close a trial, with the refresh that it belongs to, and route its units back; the decision is recorded."""
    ended = msgspec.structs.replace(trial, state=outcome)
    state.save_trial(connection, ended, now=now)
    if aliases.alias(connection, trial.loop, "challenger") == int(trial.challenger):
        aliases.set_alias(connection, trial.loop, "challenger", None, decision=decided.id, at=now)
    if trial.refresh is not None:
        proving = state.refresh(connection, trial.refresh)
        if proving.state in state.ACTIVE:
            result: state.RefreshState = "promoted" if outcome == "promoted" else "rejected"
            result = "cancelled" if proving.state == "cancelling" else result
            state.save_refresh(connection, msgspec.structs.replace(proving, state=result), now=now)
    publish_routes(connection, trial.loop, trial=None, now=now)
    return ended


def _step_of_stage(rollout: Sequence[Stage], step: int) -> int:
    """Number of the step within its own stage, from 0; one stage may stand in a rollout twice."""
    for stage in rollout:
        if step < len(stage.steps()):
            break
        step -= len(stage.steps())
    return step
