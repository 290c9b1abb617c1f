"""What changes when a trial moves on, or ends?

Aliases, routes, the trial and its refresh change together, in the transaction of the decision.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from sqlalchemy import Connection

from leaven.controller import state
from leaven.controller.promotion import give_back, promote, publish_routes
from leaven.experiments.stage import Stage
from leaven.experiments.trial import Do, Trial, TrialState, watch_of
from leaven.registry import aliases
from leaven.registry.decisions import Decision, record


def move(
    connection: Connection, trial: Trial, rollout: Sequence[Stage], do: Do, decided: Decision, *, now: int
) -> Trial:
    """Do what was decided about an open trial, record it, and return the trial as it is afterwards."""
    if do == "advance":
        record(connection, decided)
        moved = msgspec.structs.replace(trial, step=trial.step + 1, since=now, looks=0, seen="")
        return _go_on(connection, moved, rollout, now=now)
    if do == "promote":
        promote(connection, trial.loop, int(trial.challenger), decided, now=now)
        return _promoted(connection, trial, rollout, decided, now=now)
    if do == "keep":
        record(connection, decided)
        return end_trial(connection, trial, "promoted", decided, now=now)
    return lose(connection, trial, "rolled_back" if do == "roll_back" else "stopped", decided, now=now)


def lose(connection: Connection, trial: Trial, outcome: TrialState, decided: Decision, *, now: int) -> Trial:
    """End a trial against its challenger, and record that: the champion it began with gets all units back."""
    if trial.watching:
        give_back(connection, trial.loop, int(trial.champion), decided, now=now)
        outcome = "rolled_back"
    else:
        record(connection, decided)
    return end_trial(connection, trial, outcome, decided, now=now)


def _promoted(connection: Connection, trial: Trial, rollout: Sequence[Stage], decided: Decision, *, now: int) -> Trial:
    watch = watch_of(rollout)
    if watch is None or trial.promoted_at is not None:
        return end_trial(connection, trial, "promoted", decided, now=now)
    _end_refresh(connection, trial, "promoted", now=now)
    watched = msgspec.structs.replace(trial, step=watch, since=now, looks=0, seen="", promoted_at=now)
    return _go_on(connection, watched, rollout, now=now)


def _go_on(connection: Connection, moved: Trial, rollout: Sequence[Stage], *, now: int) -> Trial:
    state.save_trial(connection, moved, now=now)
    publish_routes(connection, moved.loop, trial=moved, rollout=tuple(rollout), now=now)
    return moved


def end_trial(connection: Connection, trial: Trial, outcome: TrialState, decided: Decision, *, now: int) -> Trial:
    """Close a trial, with the refresh that it belongs to, and route its units back; the decision is recorded."""
    ended = msgspec.structs.replace(trial, state=outcome)
    state.save_trial(connection, ended, now=now)
    if aliases.alias(connection, trial.loop, "challenger") == int(trial.challenger):
        aliases.set_alias(connection, trial.loop, "challenger", None, decision=decided.id, at=now)
    _end_refresh(connection, trial, outcome, now=now)
    publish_routes(connection, trial.loop, trial=None, now=now)
    return ended


def _end_refresh(connection: Connection, trial: Trial, outcome: TrialState, *, now: int) -> None:
    if trial.refresh is None:
        return
    proving = state.refresh(connection, trial.refresh)
    if proving.state in state.ACTIVE:
        result: state.RefreshState = "promoted" if outcome == "promoted" else "rejected"
        result = "cancelled" if proving.state == "cancelling" else result
        state.save_refresh(connection, msgspec.structs.replace(proving, state=result), now=now)
