"""Where does a trial stand, what has it seen, and what is missing?

Everything is made from what the controller kept at its last look; no log is read.
"""

from __future__ import annotations

from datetime import datetime, timedelta

import msgspec
from sqlalchemy import Connection

from leaven.controller import state
from leaven.duration import instant
from leaven.experiments.showing import Shown, shown
from leaven.experiments.stage import Stage, Step
from leaven.experiments.trial import Trial, steps_of
from leaven.loop import Loop
from leaven.registry.decisions import Decision, decisions
from leaven.stats.metrics import default_metric

_MOVES = ("advance", "promote", "keep", "roll_back", "stop")


class Planned(msgspec.Struct, frozen=True):
    """One step of the rollout: what it is, and whether it is passed, present, skipped or to come."""

    step: int  # from 1
    stage: str  # as written
    kind: str  # what it routes: shadow, canary, wait, watch
    share: float
    stands: str


class Past(msgspec.Struct, frozen=True):
    """A step that is over: what was decided of it, and on what evidence."""

    step: int
    stage: str
    outcome: str
    at: str
    why: str
    by: str
    evidence: tuple[Shown, ...]


class Told(msgspec.Struct, frozen=True):
    """The verdict as of now; `why` says what is missing where it is `hold`."""

    outcome: str
    why: str


class Drawn(msgspec.Struct, frozen=True):
    """One look of the history: what was estimated then."""

    step: int
    at: str
    look: int
    outcome: str
    evidence: tuple[Shown, ...]


class Standing(msgspec.Struct, frozen=True):
    """A trial whole. Times are RFC 3339, lengths are days; None where it is not known or does not apply."""

    id: str
    loop: str
    state: str
    challenger: int
    champion: int  # that the trial began with
    refresh: str | None
    opened_at: str
    watching: bool  # whether the challenger is champion already, and watched
    paused: str | None  # since when, on whose word, and why
    step: int  # from 1
    steps: int
    stage: str
    kind: str
    share: float
    since: str
    elapsed_days: float
    at_least_days: float | None  # that are left of the time that the step takes in any case
    at_most_days: float | None  # that are left until the step ends, passed or not
    looks: int
    looked_at: str | None
    verdict: Told | None
    evidence: tuple[Shown, ...]
    seen: dict[str, object]  # the evidence itself
    plan: tuple[Planned, ...]
    past: tuple[Past, ...]
    history: tuple[Drawn, ...]


def standing(connection: Connection, loop: Loop, *, now: datetime) -> Standing | None:
    """Return where the loop's open trial stands, or else its latest one; None where there was none.

    A trial that began under another rollout than the loop's present one shows no steps: nobody can judge it.
    """
    found = state.latest_trials(connection, loop.name, limit=1)
    trial = state.active_trial(connection, loop.name) or (found[0] if found else None)
    if trial is None:
        return None
    same = state.trial_rollout(connection, trial.id) == repr(list(loop.rollout))
    steps = steps_of(loop.rollout) if same else []
    said = decisions(connection, loop.name, kind="trial", trial=trial.id)
    kept = state.all_evidence(connection, trial.id)
    metric = default_metric(loop.label.task)
    began = _first_step(steps, said)
    stage, step = steps[trial.step] if trial.step < len(steps) else (None, None)
    at, seen = kept.get(trial.step, (None, None))
    elapsed = max(timedelta(0), now - instant(trial.since))
    is_open = trial.state == "open"
    return Standing(
        id=trial.id, loop=trial.loop, state=trial.state, challenger=int(trial.challenger),
        champion=int(trial.champion), refresh=trial.refresh, opened_at=_time(trial.opened_at),
        watching=trial.watching, paused=_paused(trial, said), step=trial.step + 1, steps=len(steps),
        stage="" if stage is None else repr(stage), kind="" if step is None else step.kind,
        share=0.0 if step is None else step.share, since=_time(trial.since), elapsed_days=_days(elapsed) or 0.0,
        at_least_days=_days(step.at_least - elapsed) if step is not None and is_open else None,
        at_most_days=_days(step.at_most - elapsed) if step is not None and is_open else None,
        looks=trial.looks, looked_at=None if at is None else _time(at),
        verdict=_verdict(trial, stage, step, seen, elapsed, metric) if stage and step and is_open else _last(said),
        evidence=_rows(stage, step, seen, trial.looks, metric) if stage and step and seen else (),
        seen=dict(seen or {}),
        plan=tuple(_planned(number, each, trial, began) for number, each in enumerate(steps)),
        past=_past(steps, kept, said, metric),
        history=tuple(Drawn(one.step + 1, _time(one.at), one.look, one.outcome, one.rows)
                      for one in state.looks(connection, trial.id)),
    )  # fmt: skip


def _first_step(steps: list[tuple[Stage, Step]], said: list[Decision]) -> int:
    """Number of the step that the trial began with: a person may have skipped some."""
    return int(said[0].rule.get("from", 0)) if said and steps else 0


def _planned(number: int, each: tuple[Stage, Step], trial: Trial, began: int) -> Planned:
    stage, step = each
    ended = "passed" if trial.state == "promoted" else "ended"
    stands = "present" if trial.state == "open" else ended
    if number != trial.step:
        stands = "to come" if number > trial.step else "skipped" if number < began else "passed"
        if trial.state != "open" and number > trial.step:
            stands = "not reached"
    return Planned(number + 1, repr(stage), step.kind, step.share, stands)


def _verdict(
    trial: Trial, stage: Stage, step: Step, seen: dict[str, object] | None, elapsed: timedelta, metric: str
) -> Told | None:
    if seen is None:
        return None
    evidence = msgspec.convert(seen, stage.evidence)
    said = stage.judge(step, evidence, elapsed=elapsed, look=max(1, trial.looks), metric=stage.metric or metric)
    return Told(said.outcome, said.why)


def _last(said: list[Decision]) -> Told | None:
    return Told(said[-1].outcome, said[-1].why) if said else None


def _rows(stage: Stage, step: Step, seen: object, look: int, metric: str) -> tuple[Shown, ...]:
    evidence = msgspec.convert(seen, stage.evidence)
    return shown(stage, step, evidence, look=max(1, look), metric=stage.metric or metric)


def _past(
    steps: list[tuple[Stage, Step]], kept: dict[int, tuple[int, dict[str, object]]], said: list[Decision], metric: str
) -> tuple[Past, ...]:
    found = []
    for decided in said:
        number = _step_of(decided)
        if decided.outcome not in _MOVES or number is None or number >= len(steps):
            continue
        stage, step = steps[number]
        rows = _rows(stage, step, decided.evidence, decided.rule.get("look", 1), metric) if decided.evidence else ()
        found.append(Past(number + 1, repr(stage), decided.outcome, _time(decided.at), decided.why, decided.by, rows))
    return tuple(found)


def _step_of(decided: Decision) -> int | None:
    """Number of the step that a decision was about: `TRIAL-STEP-OUTCOME` names it."""
    number = decided.id.removeprefix(f"{decided.trial}-").partition("-")[0]
    return int(number) if number.isdecimal() else None


def _paused(trial: Trial, said: list[Decision]) -> str | None:
    if trial.paused_at is None:
        return None
    word = next((one for one in reversed(said) if one.outcome == "pause"), None)
    return _time(trial.paused_at) if word is None else f"{_time(trial.paused_at)}, {word.by}: {word.why}"


def _days(length: timedelta) -> float | None:
    return round(max(0.0, length / timedelta(days=1)), 4)


def _time(at: int) -> str:
    return instant(at).isoformat(timespec="seconds")
