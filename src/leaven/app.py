"""Which parts is this installation made of?

The one place where adapters are chosen and joined; everything else gets what it needs from here.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Connection

from leaven.clock import Clock, FileClock, clock_from
from leaven.loop import Loop
from leaven.loopfile import load_loop
from leaven.registry import loops
from leaven.registry.artifacts import ArtifactStore
from leaven.registry.changes import ChangeRefused
from leaven.registry.remote_artifacts import artifacts_at
from leaven.settings import Settings
from leaven.storage.control.database import ControlDatabase
from leaven.storage.horizon import Horizon
from leaven.storage.lake import Lake
from leaven.storage.writers import watermark

if TYPE_CHECKING:
    from leaven.controller.parts import Parts
    from leaven.learners.process import TrainingOutcome
    from leaven.storage.reading import LakeSource
    from leaven.training.learner import Files, TrainingSet
    from leaven.training.plans import Mode

# A record carries the moment of its request, a shadow's that of the request it stands beside; shadows that come more
# than five seconds late are dropped. Nothing older than this can still reach the log.
IN_FLIGHT = timedelta(seconds=8)

_log = logging.getLogger(__name__)


class App:
    """The parts of one installation, opened when they are first asked for."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._loops: dict[str, tuple[tuple[str, int], Loop]] = {}
        self._read: dict[str, tuple[tuple[str, int], Loop]] = {}
        self._refused: dict[str, tuple[str, int]] = {}

    @cached_property
    def clock(self) -> Clock:
        """The clock of every process of this installation."""
        return clock_from(self.settings.clock)

    @cached_property
    def database(self) -> ControlDatabase:
        """The control database, brought to what this code expects."""
        self.settings.home.mkdir(parents=True, exist_ok=True)
        database = ControlDatabase(self.settings.database)
        database.migrate()
        return database

    @cached_property
    def lake(self) -> Lake:
        """The tables of events."""
        return Lake(
            self.settings.lake,
            memory=self.settings.query_memory,
            scratch=self.settings.run / "lake",
            cache_mb=self.settings.cache_mb,
        )

    @cached_property
    def artifacts(self) -> ArtifactStore:
        """The models' files."""
        return artifacts_at(self.settings.artifacts, copies=self.settings.run / "artifacts")

    def close(self) -> None:
        """Give back what was opened; whatever is asked for afterwards is opened anew."""
        for name in ("lake", "database", "clock"):
            opened = self.__dict__.pop(name, None)
            if isinstance(opened, Lake | FileClock):
                opened.close()
            elif isinstance(opened, ControlDatabase):
                opened.dispose()

    def source(self, loop: str) -> LakeSource:
        """Return the log of `loop`, as it can be read."""
        return self.lake.source(loop, watermark=self.watermark)

    def watermark(self) -> datetime:
        """Return the moment up to which every event that was logged can be read."""
        return watermark(self.settings.wal, self._horizon.at(self.clock.now()))

    @cached_property
    def _horizon(self) -> Horizon:
        # Where the clock is set by a sender, it stands still until every reply is in.
        return Horizon(timedelta(0) if isinstance(self.clock, FileClock) else IN_FLIGHT, timer=time.monotonic)

    def enter(self, path: Path) -> Loop:
        """Register the loop that `path` defines, or its new definition, and return it."""
        loop = load_loop(path)
        with self.database.write() as connection:
            loops.put(connection, loop, path=str(path.absolute()), source=path.read_text(), at=self.clock.micros())
        return loop

    def loop(self, name: str) -> Loop:
        """Return a registered loop, from its file; an edit of the file is registered and takes effect."""
        with self.database.read() as connection:
            known = loops.loop(connection, name)
        path = Path(known.path)
        stamp = (known.path, path.stat().st_mtime_ns)
        kept = self._loops.get(name)
        if kept is not None and kept[0] == stamp:
            return kept[1]
        loaded = self._edited(name, stamp)
        if loaded.digest != known.digest:
            try:
                with self.database.write() as connection:
                    loops.put(connection, loaded, path=known.path, source=path.read_text(), at=self.clock.micros())
            except ChangeRefused as refused:
                if kept is None or kept[1].digest != known.digest:
                    raise
                if self._refused.get(name) != stamp:
                    _log.error("%s", refused)
                self._refused[name] = stamp
                return kept[1]  # what runs goes on as it was registered
        self._loops[name] = (stamp, loaded)
        return loaded

    def _edited(self, name: str, stamp: tuple[str, int]) -> Loop:
        """A loop from its file as it is now; read once, however often it is refused."""
        known = self._read.get(name)
        if known is None or known[0] != stamp:
            known = self._read[name] = (stamp, load_loop(Path(stamp[0]), name=name))
        return known[1]

    def loop_names(self) -> list[str]:
        """Return the names of all registered loops."""
        with self.database.read() as connection:
            return [record.name for record in loops.loops(connection)]

    def parts(self, fence: Callable[[Connection], None] = lambda connection: None) -> Parts:
        """Return what the controller's steps work with; `fence` raises where another controller has taken over."""
        from leaven.controller.parts import Parts
        from leaven.training.costs import Power

        return Parts(
            database=self.database,
            artifacts=self.artifacts,
            loop=self.loop,
            source=self.source,
            train=self._train,
            fence=fence,
            power=Power(*self.settings.power) if self.settings.power is not None else None,
            trusted=self.settings.trusted_types,
        )

    def _train(
        self, loop: Loop, data: TrainingSet, *, mode: Mode, parent: Files | None, cancelled: Callable[[], bool]
    ) -> TrainingOutcome:
        """Train in a process of its own, under the limits of the settings."""
        from leaven.learners.process import TrainingJob, train_in_process

        with self.database.read() as connection:
            path = Path(loops.loop(connection, loop.name).path)
        job = TrainingJob(path, loop.name, loop.digest, mode, loop.seed, data, parent)
        return train_in_process(
            job, seconds=self.settings.train_seconds, memory_mb=self.settings.train_memory_mb, cancelled=cancelled
        )


def this_process(role: str) -> str:
    """Return a name for this process that no other has at the same time."""
    return f"{role}-{socket.gethostname()}-{os.getpid()}"
