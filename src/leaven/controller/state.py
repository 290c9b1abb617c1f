"""Which refreshes and trials are there, and where does each stand?"""

from __future__ import annotations

from typing import Any, Literal

import msgspec
from sqlalchemy import Connection, Row, func, insert, select, update

from leaven.errors import LeavenError
from leaven.experiments.showing import Shown
from leaven.experiments.trial import Trial
from leaven.storage.control.schema import refreshes, trial_evidence, trial_looks, trials
from leaven.triggers import Cause

RefreshState = Literal[
    "requested", "running", "proving", "cancelling",
    "promoted", "rejected", "refused", "nothing", "failed", "cancelled",
]  # fmt: skip
ACTIVE: tuple[RefreshState, ...] = ("requested", "running", "proving", "cancelling")


class Refresh(msgspec.Struct, frozen=True):
    """One run from trigger to decision."""

    id: str
    loop: str
    cause: Cause
    as_of: int
    state: RefreshState
    step: str
    payload: dict[str, Any]
    error: str | None
    created_at: int
    updated_at: int
    ended_at: int | None


class RefreshUnderWay(LeavenError, RuntimeError):
    """A loop has a refresh or trial that has not ended, and a second one was asked for."""

    def __init__(self, loop: str, what: str, state: str) -> None:
        super().__init__(loop, what, state)
        self.loop, self.what, self.state = loop, what, state

    def __str__(self) -> str:
        return (
            f"loop {self.loop!r} is busy: {self.what} is {self.state}. "
            f"Wait for it (`leaven status {self.loop}`), or end it with `leaven cancel {self.loop}`."
        )


def open_refresh(
    connection: Connection, loop: str, cause: Cause, *, as_of: int, now: int, state: RefreshState = "running"
) -> Refresh:
    """Start a refresh and return it.

    Raises:
        RefreshUnderWay: the loop has one that has not ended.
    """
    active = active_refresh(connection, loop)
    if active is not None:
        raise RefreshUnderWay(loop, active.id, active.state)
    count = connection.scalar(select(func.count()).select_from(refreshes).where(refreshes.c.loop == loop)) or 0
    made = Refresh(f"{loop}-r{count + 1}", loop, cause, as_of, state, "", {}, None, now, now, None)
    connection.execute(insert(refreshes).values(**_refresh_row(made)))
    return made


def active_refresh(connection: Connection, loop: str) -> Refresh | None:
    """Return the loop's refresh that has not ended, or None."""
    row = connection.execute(select(refreshes).where(refreshes.c.active == loop)).first()
    return None if row is None else _refresh(row)


def refresh(connection: Connection, refresh_id: str) -> Refresh:
    """Return a refresh by its id."""
    return _refresh(connection.execute(select(refreshes).where(refreshes.c.id == refresh_id)).one())


def latest_refreshes(connection: Connection, loop: str, *, limit: int = 10) -> list[Refresh]:
    """Return the loop's latest refreshes, newest first."""
    query = select(refreshes).where(refreshes.c.loop == loop).order_by(refreshes.c.created_at.desc(), refreshes.c.id)
    return [_refresh(row) for row in connection.execute(query.limit(limit))]


def last_refresh_as_of(connection: Connection, loop: str) -> int | None:
    """Return as of when the loop's latest refresh took its data, or None before the first."""
    latest: int | None = connection.scalar(select(func.max(refreshes.c.as_of)).where(refreshes.c.loop == loop))
    return latest


def save_refresh(connection: Connection, changed: Refresh, *, now: int) -> Refresh:
    """Store a refresh's new state; one that has ended is stamped with the time."""
    ended = changed.ended_at if changed.ended_at is not None or changed.state in ACTIVE else now
    saved = msgspec.structs.replace(changed, updated_at=now, ended_at=ended)
    connection.execute(update(refreshes).where(refreshes.c.id == saved.id).values(**_refresh_row(saved)))
    return saved


def _refresh_row(one: Refresh) -> dict[str, Any]:
    return msgspec.structs.asdict(one) | {"active": one.loop if one.state in ACTIVE else None}


def _refresh(row: Row[Any]) -> Refresh:
    return msgspec.convert({str(name): kept for name, kept in row._mapping.items() if name != "active"}, Refresh)


def open_trial(connection: Connection, made: Trial, *, rollout: str) -> None:
    """Store a new trial; the loop's only open one."""
    connection.execute(insert(trials).values(stages=rollout, **_trial_row(made, ended_at=None)))


def active_trial(connection: Connection, loop: str) -> Trial | None:
    """Return the loop's open trial, or None."""
    row = connection.execute(select(trials).where(trials.c.active == loop)).first()
    return None if row is None else _trial(row)


def trial_rollout(connection: Connection, trial_id: str) -> str:
    """Return the rollout that a trial was opened with, as written."""
    return str(connection.scalar(select(trials.c.stages).where(trials.c.id == trial_id)))


def find_trial(connection: Connection, trial_id: str) -> Trial | None:
    """Return a trial by its id, or None."""
    row = connection.execute(select(trials).where(trials.c.id == trial_id)).first()
    return None if row is None else _trial(row)


def latest_trials(connection: Connection, loop: str, *, limit: int = 10) -> list[Trial]:
    """Return the loop's latest trials, newest first."""
    query = select(trials).where(trials.c.loop == loop).order_by(trials.c.opened_at.desc(), trials.c.id.desc())
    return [_trial(row) for row in connection.execute(query.limit(limit))]


def save_trial(connection: Connection, changed: Trial, *, now: int) -> None:
    """Store a trial's new state."""
    row = _trial_row(changed, ended_at=None if changed.state == "open" else now)
    connection.execute(update(trials).where(trials.c.id == changed.id).values(**row))


def all_evidence(connection: Connection, trial_id: str) -> dict[int, tuple[int, dict[str, Any]]]:
    """Return what each step of a trial had seen at the last look at it: the moment of that look, and the evidence."""
    query = select(trial_evidence).where(trial_evidence.c.trial == trial_id).order_by(trial_evidence.c.step)
    return {row.step: (row.at, row.evidence) for row in connection.execute(query)}


def kept_evidence(connection: Connection, trial_id: str, step: int) -> dict[str, Any] | None:
    """Return what a step of a trial had seen at the last look at it, or None before the first."""
    mine = (trial_evidence.c.trial == trial_id) & (trial_evidence.c.step == step)
    kept: dict[str, Any] | None = connection.scalar(select(trial_evidence.c.evidence).where(mine))
    return kept


def keep_evidence(connection: Connection, trial: Trial, evidence: Any, *, now: int) -> None:
    """Store what the trial's present step has seen, in place of what was stored before."""
    key = {"trial": trial.id, "step": trial.step}
    mine = (trial_evidence.c.trial == trial.id) & (trial_evidence.c.step == trial.step)
    seen = {"evidence": msgspec.to_builtins(evidence), "at": now}
    if not connection.execute(update(trial_evidence).where(mine).values(**seen)).rowcount:
        connection.execute(insert(trial_evidence).values(**key, **seen))


class Look(msgspec.Struct, frozen=True):
    """What one look at a step found: the outcome, and of each row that has an interval the estimate with it."""

    step: int
    at: int
    look: int
    outcome: str
    rows: tuple[Shown, ...]


def keep_look(connection: Connection, trial: Trial, found: Look) -> None:
    """Add a look to the history of the trial's present step.

    Of looks that found nothing new to do, those are left out that come sooner after the last kept one than a 200th of
    the step's age: the history of a step grows with the logarithm of its length, however often one looks.
    """
    mine = (trial_looks.c.trial == trial.id) & (trial_looks.c.step == found.step)
    last = connection.scalar(select(func.max(trial_looks.c.at)).where(mine))
    soon = last is not None and found.at - last < (found.at - trial.since) / 200
    if last == found.at or (soon and found.outcome == "hold"):
        return
    row = {"look": found.look, "outcome": found.outcome, "rows": msgspec.to_builtins(found.rows)}
    connection.execute(insert(trial_looks).values(trial=trial.id, step=found.step, at=found.at, **row))


def looks(connection: Connection, trial_id: str) -> list[Look]:
    """Return the history of a trial's looks, oldest first."""
    query = select(trial_looks).where(trial_looks.c.trial == trial_id).order_by(trial_looks.c.at, trial_looks.c.step)
    columns = ("step", "at", "look", "outcome", "rows")
    return [msgspec.convert({name: row._mapping[name] for name in columns}, Look) for row in connection.execute(query)]


def _trial_row(one: Trial, *, ended_at: int | None) -> dict[str, Any]:
    return {
        "id": one.id, "loop": one.loop, "refresh": one.refresh, "challenger": int(one.challenger),
        "champion": int(one.champion), "stage": one.step, "stage_since": one.since, "state": one.state,
        "looks": one.looks, "facts": _facts(one), "opened_at": one.opened_at, "ended_at": ended_at,
        "active": one.loop if one.state == "open" else None,
    }  # fmt: skip


def _facts(one: Trial) -> dict[str, Any]:
    """What has no column of its own; what is not so is left out."""
    facts = {"seen": one.seen, "salt": one.salt, "promoted_at": one.promoted_at, "paused_at": one.paused_at}
    return {name: kept for name, kept in facts.items() if kept is not None}


def _trial(row: Row[Any]) -> Trial:
    return Trial(
        id=row.id, loop=row.loop, challenger=str(row.challenger), champion=str(row.champion), opened_at=row.opened_at,
        since=row.stage_since, step=row.stage, looks=row.looks,
        state=row.state, refresh=row.refresh, **row.facts,
    )  # fmt: skip
