"""How is a running system led through a past, so that one can watch what it does?

Time moves from tick to tick: the sender streams what happened, then waits until the controller has looked and the
gateways route what it decided. Nobody is hurried, so what is decided does not depend on how fast the machine is.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path

from leaven.app import App
from leaven.clock import FileClock
from leaven.controller import state
from leaven.demo.stream import Sender
from leaven.duration import micros
from leaven.errors import BadDefinition, LeavenError
from leaven.loop import Loop
from leaven.registry import aliases, decisions, loops, routing
from leaven.registry.decisions import Decision
from leaven.settings import Settings
from leaven.storage.history_file import History, read_history
from leaven.storage.importing import import_history
from leaven.system import System

MARK = "this-folder-is-a-leaven-demo"
PATIENCE_SECONDS = 120.0


class LiveStalled(LeavenError, TimeoutError):
    """The running system did not come to rest."""

    def __init__(self, waiting_for: str, seconds: float, logs: str) -> None:
        super().__init__(waiting_for, seconds, logs)
        self.waiting_for, self.seconds, self.logs = waiting_for, seconds, logs

    def __str__(self) -> str:
        return f"waited {self.seconds:g} s in vain for {self.waiting_for}. The parts' logs are in {self.logs}."


def fresh_home(home: Path) -> None:
    """Make `home` an empty folder for a demo; one that an earlier demo made is emptied.

    Raises:
        BadDefinition: the folder holds something else.
    """
    if home.exists() and any(home.iterdir()) and not (home / MARK).exists():
        raise BadDefinition(str(home), "this folder is not empty and no demo made it", "Name another with --home.")
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True)
    (home / MARK).touch()


@dataclass
class LiveFlights:
    """One installation, running, with a sender that leads it from tick to tick.

    Args:
        settings: Of the installation.
        loop_file: The owner's file.
        flights: Parquet of flights, as `leaven.demo.flights` writes it.
        tell: Told every decision, once, in order.
    """

    settings: Settings
    loop_file: Path
    flights: Path
    tell: Callable[[Decision], None] = lambda decision: None
    seen: list[Decision] = field(default_factory=list)
    settled_at: float = 0.0  # real time at which the latest routes were known to be in force

    def __post_init__(self) -> None:
        """Open the parts; nothing runs yet."""
        clock_file = self.settings.run / "clock"
        self.clock = FileClock(clock_file)
        self.settings = replace(self.settings, clock=f"file:{clock_file}", seal_seconds=0.1)
        self.app = App(self.settings)
        self.system = System(self.settings, port=0, logs=self.settings.home / "logs")
        self.sender: Sender | None = None

    def start(self, at: datetime) -> None:
        """Start gateway, flusher and controller with the clock at `at`; they have nothing to do yet."""
        self.clock.set(at)
        self.app.database.dispose()  # made before the parts start, so that none of them has to
        self.system.start()

    def import_between(self, loop: Loop, start: datetime, end: datetime) -> int:
        """Bring what happened in a stretch of the past into the log; return how many flights."""
        import duckdb

        part = self.settings.home / "part.parquet"
        with duckdb.connect() as connection:
            connection.execute(
                "COPY (FROM read_parquet($file) WHERE epoch_us(event_time) >= $start AND epoch_us(event_time) < $end) "
                f"TO '{str(part).replace(chr(39), chr(39) * 2)}' (FORMAT parquet)",
                {"file": str(self.flights), "start": micros(start), "end": micros(end)},
            )
        report = import_history(self.app.lake, loop, part, time="event_time", label_time="label_time")
        part.unlink()
        return report.predictions

    def begin_sending(self, loop: Loop, history: History | None = None) -> Sender:
        """Open the sender's connection; it sends what comes after the clock's present time."""
        flights = history or read_history(self.flights, loop, time="event_time", label_time="label_time")
        self.sender = Sender(loop, flights, host=self.system.host, port=self.system.port, clock=self.clock)
        return self.sender

    def pass_to(self, loop: Loop, now: datetime) -> None:
        """Let time pass to `now`: send what happens until then, and wait until everything it caused is done."""
        if self.sender is not None:
            self.sender.send_until(now)
        else:
            self.clock.set(now)
        self.settle(loop, now)

    def settle(self, loop: Loop, now: datetime) -> None:
        """Wait until the controller has looked at `now`, no refresh is in its steps, and the routes are in force."""
        self._wait(lambda: self._looked(loop) >= micros(now), "the controller to look")
        self._wait(lambda: not self._in_steps(loop), "the refresh to take its steps")
        self._wait(lambda: self._in_force(loop), "the gateways to take the routes")
        self.settled_at = time.time()
        self._tell(loop)

    def _looked(self, loop: Loop) -> int:
        with self.app.database.read() as connection:
            return loops.loop(connection, loop.name).looked_at or 0

    def _in_steps(self, loop: Loop) -> bool:
        with self.app.database.read() as connection:
            active = state.active_refresh(connection, loop.name)
        return active is not None and active.state != "proving"

    def _in_force(self, loop: Loop) -> bool:
        with self.app.database.read() as connection:
            latest = routing.latest(connection, loop.name)
            serving = routing.gateways(connection)
        if latest is None:
            return True
        living = [one for one in serving if Path(f"/proc/{one.pid}").exists()]
        return bool(living) and all(one.revisions.get(loop.name, 0) >= latest.revision for one in living)

    def champion(self, loop: Loop) -> int | None:
        """Return the version that serves."""
        with self.app.database.read() as connection:
            return aliases.alias(connection, loop.name, "champion")

    def _tell(self, loop: Loop) -> None:
        with self.app.database.read() as connection:
            known = decisions.decisions(connection, loop.name)
        for decision in known[len(self.seen) :]:
            self.seen.append(decision)
            self.tell(decision)

    def _wait(self, done: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not done():
            self.system.mend()
            if time.monotonic() > deadline:
                raise LiveStalled(what, PATIENCE_SECONDS, str(self.system.logs))
            time.sleep(0.02)

    def stop(self) -> None:
        """End every part."""
        if self.sender is not None:
            self.sender.close()
        self.system.stop()
        self.app.close()
        self.clock.close()
