"""How does a refresh survive the death of its controller?

Each step's result is kept by a durable workflow engine (DBOS) beside the control database; after a kill the next
controller goes on at the step the last one was in. Everything the engine keeps is JSON: it never unpickles.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections.abc import Callable
from datetime import datetime
from typing import Any, TypeVar

import msgspec
from dbos import DBOS, SetWorkflowID, WorkflowSerializationFormat
from dbos._error import DBOSMaxStepRetriesExceeded

from leaven.clock import SystemClock
from leaven.controller import state
from leaven.controller.parts import Parts
from leaven.controller.refreshes import RefreshCancelled, carry_out, end_with, noter
from leaven.controller.results import Payload, StepResult
from leaven.controller.steps import run_step
from leaven.errors import LeavenError
from leaven.learners.process import TrainingCancelled
from leaven.storage.control.database import DatabaseUnavailable

# Fixed, so that any controller of this installation takes up what another one left; a change of the steps that could
# not go on from older results must change it.
APPLICATION = "leaven"
STEPS_VERSION = "1"
EXECUTOR = "controller"
ATTEMPTS, FIRST_PAUSE_SECONDS, BACKOFF = 5, 1.0, 2.0
LONGEST_PAUSE_SECONDS = 10.0

T = TypeVar("T")
_log = logging.getLogger(__name__)


class DurableRunner:
    """Runs refreshes on the engine; only the process that holds the controller's lease may launch it."""

    def __init__(self, parts: Parts, *, url: str, now: Callable[[], datetime]) -> None:
        self.parts, self.now = parts, now
        self._url = url
        self._started: set[str] = set()
        self._stopping = threading.Event()

    def launch(self) -> None:
        """Start the engine; it takes up at once what was under way when the last controller ended."""
        global _runner
        _runner = self
        self._stopping.clear()
        DBOS(
            config={
                "name": APPLICATION,
                "system_database_url": self._url,
                "application_version": STEPS_VERSION,
                "executor_id": EXECUTOR,
                "log_level": "WARNING",
                "enable_otlp": False,
                "db_engine_kwargs": _engine_settings(self._url),
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
        self._stopping.set()
        DBOS.destroy(workflow_completion_timeout_sec=0)
        _runner = None
        self._started.clear()

    def go_on(self) -> None:
        """Return while the engine runs; called in the middle of a step, it leaves the step when the engine stops."""
        if self._stopping.is_set():
            raise _EngineStops

    def patiently(self, act: Callable[[], T]) -> T:
        """Return what `act` returns, once the control database can be used: an outage delays a refresh, no more."""
        pause = FIRST_PAUSE_SECONDS
        while True:
            try:
                return act()
            except DatabaseUnavailable as error:
                _log.warning("a refresh waits for the control database: %s", error)
                self._stopping.wait(pause)
                self.go_on()
                pause = min(LONGEST_PAUSE_SECONDS, pause * BACKOFF)


def _engine_settings(url: str) -> dict[str, Any]:
    """What the engine's own database connections need beyond their defaults.

    From Python 3.12 on the engine takes SQLite to be 3.42 or newer, which knows milliseconds. Python may be linked
    with an older one (that of Debian 12 is 3.40), where the engine's own tables then refuse every row.
    """
    old = url.startswith("sqlite") and sqlite3.sqlite_version_info < (3, 42)
    return {"connect_args": {"factory": _Milliseconds}} if old else {}


class _Milliseconds(sqlite3.Connection):
    """A connection to an older SQLite, with the one function of a newer one that the engine calls."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self.create_function("unixepoch", 1, lambda modifier: SystemClock().micros() / 1e6)


_runner: DurableRunner | None = None


class _EngineStops(BaseException):
    """Ends a step without a result, as a kill would; no `Exception`, for the engine would keep that as its end."""


@DBOS.workflow(name="refresh", serialization_type=WorkflowSerializationFormat.PORTABLE)
def _refresh(refresh_id: str) -> str:
    runner = _current()
    note = noter(runner.parts, refresh_id, runner.now)
    try:
        carry_out(
            runner.patiently(lambda: _opened(runner, refresh_id)),
            _call,
            lambda step, payload, stands, error: runner.patiently(lambda: note(step, payload, stands, error)),
        )
    except Exception as error:  # of whatever kind: a refresh that nobody ended would block its loop for good
        if not isinstance(error, LeavenError):
            _log.exception("refresh %s failed", refresh_id)
        cancelled = isinstance(error, RefreshCancelled) or (isinstance(error, _Stopped) and error.cancelled)
        ended = RefreshCancelled(refresh_id) if cancelled else error
        runner.patiently(lambda: end_with(runner.parts, refresh_id, ended, now=runner.now()))
    return refresh_id


def _opened(runner: DurableRunner, refresh_id: str) -> state.Refresh:
    with runner.parts.database.read() as connection:
        return state.refresh(connection, refresh_id)


def _call(name: str, payload: Payload) -> StepResult:
    try:
        done = msgspec.json.decode(_step(name, msgspec.json.encode(payload).decode()))
    except DBOSMaxStepRetriesExceeded as error:
        raise _Stopped(f"step {name} failed {ATTEMPTS} times: {error.errors[-1]}", cancelled=False) from error
    if done["error"] is not None:
        raise _Stopped(done["error"], cancelled=done["cancelled"])
    return StepResult(done["code"], done["payload"])


def _worth_another_try(error: BaseException) -> bool:
    return isinstance(error, OSError)


@DBOS.step(
    name="step", retries_allowed=True, max_attempts=ATTEMPTS, interval_seconds=FIRST_PAUSE_SECONDS,
    backoff_rate=BACKOFF, should_retry=_worth_another_try,
)  # fmt: skip
def _step(name: str, payload: str) -> str:
    """Run one step; what it returned, or why it cannot succeed, is kept as JSON."""
    runner = _current()
    given: Payload = msgspec.json.decode(payload)

    def cancelled() -> bool:
        runner.go_on()
        try:
            return _opened(runner, given["refresh"]).state == "cancelling"
        except DatabaseUnavailable:
            return False  # nobody can have asked, and the training need not wait for it

    result: dict[str, Any] = {"code": "done", "payload": given, "error": None, "cancelled": False}
    try:
        done = runner.patiently(lambda: run_step(name, runner.parts, given, now=runner.now(), cancelled=cancelled))
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
