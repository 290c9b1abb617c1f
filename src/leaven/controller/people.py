"""What may a person decide, and what follows from it at once?

Each of these is one transaction on the control database: it needs no controller, and the gateways act on it within a
fraction of a second.
"""

from __future__ import annotations

from datetime import datetime

import msgspec
from sqlalchemy import Connection

from leaven.controller import state
from leaven.controller.moves import end_trial, lose
from leaven.controller.parts import Parts
from leaven.controller.promotion import earlier_champion, promote, publish_routes
from leaven.controller.trials import begin_trial
from leaven.duration import micros
from leaven.errors import BadDefinition, LeavenError
from leaven.experiments.trial import Trial, TrialState, steps_of
from leaven.loop import Loop
from leaven.registry import aliases, versions
from leaven.registry.decisions import Decision, decisions, record
from leaven.storage.control.database import ControlDatabase
from leaven.triggers import Cause


class NothingToCancel(LeavenError, RuntimeError):
    """A loop has neither a refresh nor a trial under way."""

    def __init__(self, loop: str) -> None:
        super().__init__(loop)
        self.loop = loop

    def __str__(self) -> str:
        return f"loop {self.loop!r} has no refresh and no trial under way; there is nothing to cancel."


def request_refresh(
    database: ControlDatabase, loop: str, *, by: str, now: datetime, as_of: datetime | None = None
) -> state.Refresh:
    """Ask for a refresh; the controller starts it at its next look.

    Args:
        database: The control database.
        loop: Name of the loop.
        by: Who asks.
        now: When.
        as_of: The moment whose knowledge it learns from; the present one by default.

    Raises:
        BadDefinition: `as_of` is yet to come.
        RefreshUnderWay: a refresh or a trial of the loop has not ended.
    """
    at = micros(now)
    if as_of is not None and as_of > now:
        raise BadDefinition("--as-of", f"{as_of:%Y-%m-%d %H:%M} is yet to come", "Give a moment of the past.")
    why = f"asked for by {by}" if as_of is None else f"asked for by {by}, as of {as_of:%Y-%m-%d %H:%M} UTC"
    with database.write() as connection:
        trial = state.active_trial(connection, loop)
        if trial is not None and not trial.watching:
            raise state.RefreshUnderWay(loop, trial.id, trial.state)
        cause = Cause("manual", why)
        asked = state.open_refresh(connection, loop, cause, as_of=micros(as_of or now), now=at, state="requested")
        if as_of is not None:
            named = msgspec.structs.replace(asked, payload={"as_of": asked.as_of})
            asked = state.save_refresh(connection, named, now=at)
        record(connection, _decision(f"{asked.id}-trigger", loop, at, "trigger", "refresh", by, refresh=asked.id))
    return asked


def request_cancel(database: ControlDatabase, loop: str, *, by: str, now: datetime) -> str:
    """Call off the loop's refresh or trial; return the id of what is called off.

    A watch after a promotion is called off only where nothing else is under way; the new champion serves on.

    Raises:
        NothingToCancel: there is none.
    """
    at = micros(now)
    with database.write() as connection:
        active = state.active_refresh(connection, loop)
        trial = state.active_trial(connection, loop)
        if trial is not None and not (trial.watching and active is not None):
            outcome = "keep" if trial.watching else "stop"
            decided = _decision(f"{trial.id}-cancel", loop, at, "trial", outcome, by, trial=trial, why="cancelled")
            if active is not None:
                state.save_refresh(connection, msgspec.structs.replace(active, state="cancelling"), now=at)
            record(connection, decided)
            end_trial(connection, trial, "promoted" if trial.watching else "stopped", decided, now=at)
            return trial.id
        if active is None:
            raise NothingToCancel(loop)
        # A refresh that runs is ended by the controller that runs it; one that nobody has begun ends here.
        stands: state.RefreshState = "cancelled" if active.state == "requested" else "cancelling"
        state.save_refresh(connection, msgspec.structs.replace(active, state=stands), now=at)
        return active.id


def promote_by_hand(
    database: ControlDatabase, loop: str, version: int, *, by: str, why: str, now: datetime
) -> Decision:
    """Make `version` the champion on a person's word; an open trial ends, won if it was this version's."""
    at = micros(now)
    with database.write() as connection:
        versions.version(connection, loop, version)
        decided = _decision(
            _numbered(connection, loop, "promote"), loop, at, "promote", "promote", by, version, why=why
        )
        trial = state.active_trial(connection, loop)
        promote(connection, loop, version, decided, now=at)
        if trial is not None:
            end_trial(connection, trial, _outcome_for(trial, version), decided, now=at)
        publish_routes(connection, loop, trial=None, now=at)
    return decided


def roll_back(database: ControlDatabase, loop: str, *, by: str, why: str, now: datetime) -> Decision:
    """End an open trial, or, where there is none, give all traffic back to the champion before this one.

    In a watch after a promotion both are the same: the old champion gets all traffic back.

    Raises:
        NothingToRollBack: there is neither.
    """
    at = micros(now)
    with database.write() as connection:
        trial = state.active_trial(connection, loop)
        if trial is not None:
            decided = _decision(f"{trial.id}-rollback", loop, at, "rollback", "roll_back", by, trial=trial, why=why)
            lose(connection, trial, "rolled_back", decided, now=at)
            return decided
        earlier = earlier_champion(connection, loop)
        decided = _decision(
            _numbered(connection, loop, "rollback"), loop, at, "rollback", "roll_back", by, earlier, why=why
        )
        promote(connection, loop, earlier, decided, now=at)
        publish_routes(connection, loop, trial=None, now=at)
    return decided


def prove(parts: Parts, loop: Loop, version: int, *, start_with: str | None, by: str, now: datetime) -> Trial:
    """Put a version into a trial against the champion, from the first stage or from the first of a kind on.

    Args:
        parts: What to work with.
        loop: Its rollout is gone through.
        version: The challenger.
        start_with: The first stage of this kind, such as "shadow", "canary", "watch"; None begins at the beginning.
        by: Who asks.
        now: When.

    Raises:
        BadDefinition: the loop has no such stage, or no champion, or the version is the champion.
        RefreshUnderWay: a refresh or another trial has not ended.
    """
    kinds = [type(stage).__name__.lower() for stage, _ in steps_of(loop.rollout)]
    where = f"prove {loop.name} {version}"
    if not kinds or (start_with is not None and start_with not in kinds):
        raise BadDefinition(where, f"the loop's rollout is {list(loop.rollout)!r}", "Add the stage to rollout=[…].")
    with parts.database.read() as connection:
        versions.version(connection, loop.name, version)
        champion = aliases.alias(connection, loop.name, "champion")
    if champion is None or champion == version:
        why = "the loop has no champion yet" if champion is None else f"version {version} is the champion"
        raise BadDefinition(where, why, "Name another version; `leaven versions` lists them.")
    step = 0 if start_with is None else kinds.index(start_with)
    return begin_trial(parts, loop, version, refresh=None, now=now, step=step, by=by)


def _numbered(connection: Connection, loop: str, what: str) -> str:
    """An id for a person's next decision: two within a moment, or under a clock that stands, are two."""
    return f"{loop}-{what}-{len(decisions(connection, loop, kind=what)) + 1}"


def _outcome_for(trial: Trial, version: int) -> TrialState:
    """What becomes of a trial when a person makes `version` the champion."""
    if version == int(trial.challenger):
        return "promoted"
    return "rolled_back" if trial.watching and version == int(trial.champion) else "stopped"


def _decision(
    id: str, loop: str, at: int, kind: str, outcome: str, by: str, version: int | None = None, *,
    why: str = "", refresh: str | None = None, trial: Trial | None = None,
) -> Decision:  # fmt: skip
    if trial is not None:
        version, refresh = int(trial.challenger), trial.refresh
    return Decision(
        id=id, loop=loop, at=at, kind=kind, outcome=outcome, version=version, why=why or f"decided by {by}", by=by,
        refresh=refresh, trial=None if trial is None else trial.id,
    )  # fmt: skip
