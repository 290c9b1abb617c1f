"""What does a controller process do all day?

It holds the lease, keeps the durable engine running, and ticks every loop at the loop's own pace. A tick is due once
the clock has passed it *and* everything logged before it can be read, so decisions never rest on half of an hour. Of
several that are due, the last one counts.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

import msgspec
from sqlalchemy import Connection

from leaven.app import App, this_process
from leaven.controller import state
from leaven.controller.controller import Controller
from leaven.controller.durable import DurableRunner
from leaven.controller.moves import end_trial
from leaven.duration import floor_to, instant, micros
from leaven.errors import LeavenError
from leaven.loop import Loop
from leaven.registry import loops
from leaven.registry.decisions import Decision, record
from leaven.storage.control.database import DatabaseUnavailable
from leaven.storage.control.leases import Lease, LeaseLost, fenced

LEASE = "controller"
PAUSE_SECONDS = 0.1
LEASE_SECONDS = 10.0

_log = logging.getLogger("leaven.controller")


def run_controller(app: App, stop: threading.Event) -> None:
    """Wait for the lease, then lead until told to stop; a second controller waits here until the first is gone."""
    lease = Lease(app.database, LEASE, this_process("controller"), seconds=LEASE_SECONDS)
    waiting = False
    while not stop.is_set():
        if not lease.acquire():
            if not waiting:
                _log.info("another controller leads; waiting to take over")
            waiting = True
            stop.wait(0.5)
            continue
        waiting = False
        _lead(app, lease, stop)


def _lead(app: App, lease: Lease, stop: threading.Event) -> None:
    def fence(connection: Connection) -> None:
        try:
            fenced(connection, LEASE, lease.token)
        except LeaseLost:
            # Somebody else leads by now. Nothing of ours may go on, in any thread: what is kept is kept, and the
            # supervisor starts this process anew, which then waits for the lease.
            _log.error("the lease was lost; this controller ends at once")
            os._exit(70)

    parts = app.parts(fence)
    runner = DurableRunner(parts, url=engine_url(app), now=app.clock.now)
    runner.launch()
    _log.info("this controller leads")
    try:
        leader = Leader(app, Controller(parts, runner), fence)
        while not stop.is_set():
            if not lease.keep():
                _log.error("the lease was lost; this controller ends at once")
                os._exit(70)
            leader.look()
            stop.wait(PAUSE_SECONDS)
    finally:
        runner.stop()
        lease.release()


def engine_url(app: App) -> str:
    """Return where the durable engine keeps its tables: a file beside an SQLite database, or the PostgreSQL itself."""
    if app.settings.database.startswith("sqlite"):
        return f"sqlite:///{app.settings.home / 'workflows.db'}"
    return app.settings.database


@dataclass
class Leader:
    """Ticks each loop when it is due, and sees to what people asked for in between."""

    app: App
    controller: Controller
    fence: Callable[[Connection], None]  # ends this process where another controller leads by now
    looked: dict[str, datetime] = field(default_factory=dict)
    complained: dict[str, str] = field(default_factory=dict)

    def look(self) -> None:
        """Look at every loop once."""
        for name in self._names():
            try:
                self._look_at(self.app.loop(name))
                self.complained.pop(name, None)
            except (LeavenError, OSError) as error:
                self._complain(name, error)

    def _names(self) -> list[str]:
        try:
            names = self.app.loop_names()
        except DatabaseUnavailable as error:
            self._complain("", error)
            return []
        self.complained.pop("", None)
        return names

    def _complain(self, name: str, error: Exception) -> None:
        """Log what stands in a loop's way once, not ten times a second; no name is all loops."""
        if self.complained.get(name) != str(error):
            _log.error("loop %s: %s", name or "*", error)
        self.complained[name] = str(error)

    def _look_at(self, loop: Loop) -> None:
        self._cancel_if_asked(loop)
        due = floor_to(self.app.clock.now(), loop.tick_length)
        asked = self._asked(loop)
        if not asked and self.looked.get(loop.name) == due:
            return
        readable = self.app.watermark()
        if not asked and readable < due:
            # Where the log is behind by more than a tick, the tick before it would never come: each is late by then.
            due = floor_to(readable, loop.tick_length)
            if due <= self._looked_last(loop.name):
                return
        # A person's request need not wait for the next tick: it is answered as of what can be read.
        self.controller.tick(loop, readable if asked else due)
        if not asked:
            self.looked[loop.name] = due
            with self.app.database.write() as connection:
                self.fence(connection)
                loops.looked(connection, loop.name, at=micros(due))

    def _looked_last(self, name: str) -> datetime:
        """The last tick that any controller looked at; before the first, the moment of the loop's definition."""
        with self.app.database.read() as connection:
            known = loops.loop(connection, name)
        return instant(max(known.looked_at or 0, known.registered_at))

    def _asked(self, loop: Loop) -> bool:
        with self.app.database.read() as connection:
            active = state.active_refresh(connection, loop.name)
        return active is not None and active.state == "requested"

    def _cancel_if_asked(self, loop: Loop) -> None:
        """End the trial of a refresh that is called off; one still in its steps ends itself."""
        with self.app.database.read() as connection:
            active = state.active_refresh(connection, loop.name)
            trial = state.active_trial(connection, loop.name)
        if active is None or active.state != "cancelling":
            return
        at = self.app.clock.micros()
        with self.app.database.write() as connection:
            self.fence(connection)
            if trial is not None and trial.refresh == active.id:
                decided = Decision(
                    id=f"{trial.id}-cancel", loop=loop.name, at=at, kind="trial", outcome="stop",
                    version=int(trial.challenger), why="cancelled", by="person", refresh=trial.refresh, trial=trial.id,
                )  # fmt: skip
                record(connection, decided)
                end_trial(connection, trial, "stopped", decided, now=at)
            elif not active.step:  # not begun yet
                ended = msgspec.structs.replace(active, state="cancelled")
                state.save_refresh(connection, ended, now=at)
