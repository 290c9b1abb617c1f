"""How does a refresh go through its steps?

One function takes an opened refresh through the steps until it ends or waits for its trial. Live, every step of it is
kept by the durable engine; in a replay it runs straight through.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

import msgspec

from leaven.controller import state
from leaven.controller.parts import Parts
from leaven.controller.results import Payload, StepResult
from leaven.controller.steps import STEP_NAMES, run_step
from leaven.duration import micros
from leaven.errors import LeavenError
from leaven.learners.process import TrainingCancelled

Call = Callable[[str, Payload], StepResult]


def carry_out(
    refresh: state.Refresh, call: Call, note: Callable[[str, Payload, state.RefreshState, str | None], None]
) -> None:
    """Run the steps of `refresh` in order.

    Args:
        refresh: An opened refresh.
        call: Runs one step by name; a durable one returns what it returned in an earlier life.
        note: Stores where the refresh stands: step, data, state, error.
    """
    payload: Payload = {
        "refresh": refresh.id, "loop": refresh.loop, "as_of": refresh.as_of,
        "cause": msgspec.to_builtins(refresh.cause),
    }  # fmt: skip
    for name in STEP_NAMES:
        note(name, payload, "running", None)
        result = call(name, payload)
        payload = result.payload
        if result.code == "again":
            note(name, payload, "proving", None)  # from here on the trial's own reconciler leads
            return
        if result.code != "done":
            note(name, payload, "nothing" if result.code == "nothing" else "refused", None)
            return
    note(STEP_NAMES[-1], payload, "promoted", None)


def noter(
    parts: Parts, refresh_id: str, now: Callable[[], datetime]
) -> Callable[[str, Payload, state.RefreshState, str | None], None]:
    """Return a function that stores where a refresh stands, unless it has ended or is being cancelled."""

    def note(step: str, payload: Payload, stands: state.RefreshState, error: str | None) -> None:
        at = micros(now())
        with parts.write() as connection:
            parts.fence(connection)
            current = state.refresh(connection, refresh_id)
            if current.state not in state.ACTIVE:
                return  # ended meanwhile: its trial was faster, or a person
            if current.state == "cancelling":
                if stands not in ("running", "proving"):
                    stands = "cancelled"
                else:
                    raise RefreshCancelled(refresh_id)
            changed = msgspec.structs.replace(current, step=step, payload=payload, state=stands, error=error)
            state.save_refresh(connection, changed, now=at)

    return note


class RefreshCancelled(LeavenError, RuntimeError):
    """Somebody called a refresh off."""

    def __init__(self, refresh_id: str) -> None:
        super().__init__(refresh_id)
        self.refresh_id = refresh_id

    def __str__(self) -> str:
        return f"refresh {self.refresh_id} was cancelled; the champion serves on. Start another: leaven retrain."


def end_with(parts: Parts, refresh_id: str, error: Exception, *, now: datetime) -> None:
    """Close a refresh that an error ended."""
    cancelled = isinstance(error, RefreshCancelled | TrainingCancelled)
    with parts.write() as connection:
        parts.fence(connection)
        current = state.refresh(connection, refresh_id)
        if current.state in state.ACTIVE:
            ended = msgspec.structs.replace(
                current, state="cancelled" if cancelled else "failed", error=str(error) or type(error).__name__
            )
            state.save_refresh(connection, ended, now=micros(now))


class InlineRunner:
    """Runs a refresh at once, in this thread, without keeping its steps: for a replay, which starts anew anyway."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def start(self, refresh: state.Refresh, *, now: datetime) -> None:
        """Run the refresh to its end, or to its trial."""

        def call(name: str, payload: Payload) -> StepResult:
            return run_step(name, self._parts, payload, now=now)

        try:
            carry_out(refresh, call, noter(self._parts, refresh.id, lambda: now))
        except LeavenError as error:
            end_with(self._parts, refresh.id, error, now=now)
