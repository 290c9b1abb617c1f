"""What may a person say about an open trial, and what follows at once?

Approve it, abort it, pause it, let it go on: each is one transaction on the control database, and a decision that says
who and why.
"""

from __future__ import annotations

from datetime import datetime

import msgspec
from sqlalchemy import Connection

from leaven.controller import state
from leaven.controller.moves import lose, move
from leaven.duration import micros
from leaven.errors import BadDefinition, LeavenError
from leaven.experiments.holding import Approval
from leaven.experiments.trial import Do, Trial, ends_in_promotion, steps_of
from leaven.loop import Loop
from leaven.registry.decisions import Decision, decisions, record
from leaven.storage.control.database import ControlDatabase


class NoTrial(LeavenError, RuntimeError):
    """A loop has no open trial."""

    def __init__(self, loop: str) -> None:
        super().__init__(loop)
        self.loop = loop

    def __str__(self) -> str:
        return f"loop {self.loop!r} has no open trial. Start one: leaven trial start {self.loop} VERSION."


class NotAsked(LeavenError, RuntimeError):
    """A person's word is not what an open trial waits for."""

    def __init__(self, loop: str, what: str, do: str) -> None:
        super().__init__(loop, what, do)
        self.loop, self.what, self.do = loop, what, do

    def __str__(self) -> str:
        return f"the trial of {self.loop!r} {self.what}. {self.do}"


def approve(
    database: ControlDatabase, loop: Loop, *, by: str, why: str, now: datetime, on_behalf_of: str | None = None
) -> Decision:
    """Let a trial that waits for an approval go on: to its next step, or to the promotion.

    Args:
        database: The control database.
        loop: Whose trial it is.
        by: Who approves.
        why: Kept with the decision.
        now: When.
        on_behalf_of: Where the rollout names somebody else, or a role: that name.

    Raises:
        NoTrial: none is open.
        NotAsked: it waits for something else, it is paused, or its rollout was edited.
        BadDefinition: the rollout asks for the word of somebody else.
    """
    with database.write() as connection:
        trial = _open(connection, loop.name)
        stage = _approval(connection, loop, trial)
        name = by.removeprefix("person:")
        if stage.by and stage.by not in (name, on_behalf_of):
            raise BadDefinition(
                f"approve {loop.name}", f"the rollout asks {stage.by}, and this is {name}",
                f"Where you may speak for {stage.by}, say so: --for {stage.by}.",
            )  # fmt: skip
        asked = f" for {stage.by}" if stage.by and stage.by != name else ""
        do: Do = "promote" if ends_in_promotion(loop.rollout, trial.step) else "advance"
        seen = state.kept_evidence(connection, trial.id, trial.step)
        decided = Decision(
            id=f"{trial.id}-{trial.step}-{do}", loop=loop.name, at=micros(now), kind="trial", outcome=do,
            version=int(trial.challenger), rule={"approval": repr(stage), "asked": stage.by}, evidence=seen or {},
            why=f"approved by {name}{asked}{f': {why}' if why else ''}", by=by, refresh=trial.refresh, trial=trial.id,
        )  # fmt: skip
        move(connection, trial, loop.rollout, do, decided, now=micros(now))
    return decided


def abort(database: ControlDatabase, loop: str, *, by: str, why: str, now: datetime) -> Decision:
    """End the open trial against its challenger: the champion it began with gets all units back.

    Raises:
        NoTrial: none is open.
    """
    with database.write() as connection:
        trial = _open(connection, loop)
        outcome = "roll_back" if trial.watching else "stop"
        decided = _word(trial, f"{trial.id}-abort", outcome, by=by, why=why or "aborted", now=now)
        lose(connection, trial, "stopped", decided, now=micros(now))
    return decided


def pause_trial(database: ControlDatabase, loop: str, *, by: str, why: str, now: datetime) -> Decision | None:
    """Let a trial stay as it is: its routes stay, nothing moves forward, harm still rolls back. None: it was paused.

    Raises:
        NoTrial: none is open.
    """
    with database.write() as connection:
        trial = _open(connection, loop)
        if trial.paused_at is not None:
            return None
        decided = record(
            connection, _word(trial, _numbered(connection, trial, "pause"), "pause", by=by, why=why, now=now)
        )
        state.save_trial(connection, msgspec.structs.replace(trial, paused_at=micros(now)), now=micros(now))
    return decided


def resume_trial(database: ControlDatabase, loop: str, *, by: str, why: str, now: datetime) -> Decision | None:
    """Let a paused trial go on; the time that it stood still counts. None: it was not paused.

    Raises:
        NoTrial: none is open.
    """
    with database.write() as connection:
        trial = _open(connection, loop)
        if trial.paused_at is None:
            return None
        decided = record(
            connection, _word(trial, _numbered(connection, trial, "resume"), "resume", by=by, why=why, now=now)
        )
        state.save_trial(connection, msgspec.structs.replace(trial, paused_at=None), now=micros(now))
    return decided


def _open(connection: Connection, loop: str) -> Trial:
    trial = state.active_trial(connection, loop)
    if trial is None:
        raise NoTrial(loop)
    return trial


def _approval(connection: Connection, loop: Loop, trial: Trial) -> Approval:
    """The stage that the trial waits at, if that is an approval and may be given now."""
    if state.trial_rollout(connection, trial.id) != repr(list(loop.rollout)):
        raise NotAsked(loop.name, "was begun under another rollout", "The controller ends it at its next look.")
    stage, _ = steps_of(loop.rollout)[trial.step]
    if not isinstance(stage, Approval):
        raise NotAsked(loop.name, f"is at {stage!r}, which waits for nobody's word", "See: leaven trial status.")
    if trial.paused_at is not None:
        raise NotAsked(loop.name, "is paused", f"Let it go on first: leaven trial resume {loop.name}.")
    return stage


def _word(trial: Trial, id: str, outcome: str, *, by: str, why: str, now: datetime) -> Decision:
    return Decision(
        id=id, loop=trial.loop, at=micros(now), kind="trial", outcome=outcome, version=int(trial.challenger),
        why=why or f"decided by {by}", by=by, refresh=trial.refresh, trial=trial.id,
    )  # fmt: skip


def _numbered(connection: Connection, trial: Trial, what: str) -> str:
    """An id for a word that may be said again."""
    said = [one for one in decisions(connection, trial.loop, kind="trial", trial=trial.id) if one.outcome == what]
    return f"{trial.id}-{what}-{len(said) + 1}"
