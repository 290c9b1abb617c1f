"""How does a refresh survive the death of its controller?

Each step's result is kept by a durable workflow engine (DBOS) beside the control database; after a kill the next
controller goes on at the step the last one was in. Everything the engine keeps is JSON: it never unpickles.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

import msgspec
from dbos import DBOS, SetWorkflowID, WorkflowSerializationFormat

from leaven.controller import state
from leaven.controller.parts import Parts
from leaven.controller.refreshes import RefreshCancelled, carry_out, end_with, noter
from leaven.controller.steps import Payload, StepResult, run_step
from leaven.errors import LeavenError
from leaven.learners.process import TrainingCancelled
from leaven.storage.control.database import DatabaseUnavailable

# Fixed, so that any controller of this installation takes up what another one left; a change of the steps that could
# not go on from older results must change it.
APPLICATION = "leaven"
STEPS_VERSION = "1"
EXECUTOR = "controller"
ATTEMPTS, FIRST_PAUSE_SECONDS, BACKOFF = 5, 1.0, 2.0


class DurableRunner:
    """Runs refreshes on the engine; only the process that holds the controller's lease may launch it."""

    def __init__(self, parts: Parts, *, url: str, now: Callable[[], datetime]) -> None:
        self.parts, self.now = parts, now
        self._url = url
        self._started: set[str] = set()

    def launch(self) -> None:
        """Start the engine; it takes up at once what was under way when the last controller ended."""
        global _runner
        _runner = self
        DBOS(
            config={
                "name": APPLICATION,
                "system_database_url": self._url,
                "application_version": STEPS_VERSION,
                "executor_id": EXECUTOR,
                "log_level": "WARNING",
                "enable_otlp": False,
            }
        )
        DBOS.launch()

    def start(self, refresh: state.Refresh, *, now: datetime) -> None:
        """Begin the refresh, or do nothing where it is under way."""
        if refresh.id in self._started or refresh.state == "proving":
            return
        self._started.add(refresh.id)
        with SetWorkflowID(refresh.id):
            DBOS.start_workflow(_refresh, refresh.id)

    def stop(self) -> None:
        """Stop the engine; what is under way stays unfinished, for the next controller."""
        global _runner
        DBOS.destroy(workflow_completion_timeout_sec=0)
        _runner = None
        self._started.clear()


_runner: DurableRunner | None = None


@DBOS.workflow(name="refresh", serialization_type=WorkflowSerializationFormat.PORTABLE)
def _refresh(refresh_id: str) -> str:
    runner = _current()
    with runner.parts.database.read() as connection:
        refresh = state.refresh(connection, refresh_id)

    def call(name: str, payload: Payload) -> StepResult:
        done = msgspec.json.decode(_step(name, msgspec.json.encode(payload).decode()))
        if done["error"] is not None:
            raise _Stopped(done["error"], cancelled=done["cancelled"])
        return StepResult(done["code"], done["payload"])

    try:
        carry_out(refresh, call, noter(runner.parts, refresh_id, runner.now))
    except LeavenError as error:
        cancelled = isinstance(error, RefreshCancelled) or (isinstance(error, _Stopped) and error.cancelled)
        end_with(runner.parts, refresh_id, RefreshCancelled(refresh_id) if cancelled else error, now=runner.now())
    return refresh_id


def _worth_another_try(error: BaseException) -> bool:
    return isinstance(error, DatabaseUnavailable | OSError)


@DBOS.step(
    name="step", retries_allowed=True, max_attempts=ATTEMPTS, interval_seconds=FIRST_PAUSE_SECONDS,
    backoff_rate=BACKOFF, should_retry=_worth_another_try,
)  # fmt: skip
def _step(name: str, payload: str) -> str:
    """Run one step; what it returned, or why it cannot succeed, is kept as JSON."""
    runner = _current()
    given: Payload = msgspec.json.decode(payload)

    def cancelled() -> bool:
        with runner.parts.database.read() as connection:
            return state.refresh(connection, given["refresh"]).state == "cancelling"

    result: dict[str, Any] = {"code": "done", "payload": given, "error": None, "cancelled": False}
    try:
        done = run_step(name, runner.parts, given, now=runner.now(), cancelled=cancelled)
        result |= {"code": done.code, "payload": done.payload}
    except LeavenError as error:
        if _worth_another_try(error):
            raise
        result |= {"error": str(error), "cancelled": isinstance(error, TrainingCancelled)}
    return msgspec.json.encode(result).decode()


class _Stopped(LeavenError, RuntimeError):
    """A step could not be done; the text is the step's own."""

    def __init__(self, why: str, *, cancelled: bool) -> None:
        super().__init__(why)
        self.why, self.cancelled = why, cancelled

    def __str__(self) -> str:
        return self.why


def _current() -> DurableRunner:
    if _runner is None:
        raise RuntimeError("the durable engine is not launched")
    return _runner
