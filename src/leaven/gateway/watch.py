"""How does a gateway learn of a new routing table, and what does it do when nobody can tell it?

A thread asks for newer tables a few times a second, far from any request. What a table names is opened on a thread of
its own, so a version that takes minutes to load holds up neither other loops nor the rollback that follows it. Each
table that serves is also kept as a file, so that a gateway that starts while the control database is away still knows
what it served last.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

import msgspec

from leaven.experiments.routing import RoutingTable
from leaven.gateway.models import ModelHost, TableRefused
from leaven.gateway.withdrawals import Withdrawals

logger = logging.getLogger(__name__)


class TableSource(Protocol):
    """Where tables are published, and where a gateway says which it runs."""

    def newer(self, known: Mapping[str, int]) -> list[RoutingTable]:
        """Return the newest table of every loop whose revision is above the known one."""
        ...

    def report(self, revisions: Mapping[str, int]) -> None:
        """Say that this gateway is alive and runs tables of these revisions."""
        ...

    def leave(self) -> None:
        """Say that this gateway stops."""
        ...


class TableWatch:
    """Brings published tables to a host; `run` is a thread's work, `step` one look."""

    def __init__(
        self,
        host: ModelHost,
        source: TableSource,
        *,
        cache: Path,
        timer: Callable[[], float],
        every: float = 0.2,
        beat: float = 2.0,
        retry: float = 5.0,
        patience: float = 0.2,
        beside: Callable[[], None] = lambda: None,
        withdrawals: Withdrawals | None = None,
    ) -> None:
        """Make a watch; all lengths in seconds.

        Args:
            host: What the tables are installed in.
            source: Where they come from.
            cache: Folder for the last table of each loop.
            timer: Seconds that pass, from any start.
            every: Between two looks.
            beat: Between two reports of the same revisions.
            retry: Between two attempts to install a table that was refused.
            beside: What else is looked for where tables are, each time; it may raise as `source` does.
            patience: To wait for a table's versions before looking further; most are open by then.
            withdrawals: Loops that are not to be served, whatever tables there are.
        """
        self._host, self._source, self._cache, self._timer = host, source, cache, timer
        self._every, self._beat, self._retry, self._patience = every, beat, retry, patience
        self._beside = beside
        self._reported: tuple[float, dict[str, int]] | None = None
        self._withdrawals = withdrawals
        self._looking = threading.RLock()  # whoever asks for another look waits for the one under way
        self._refused: dict[str, tuple[int, float]] = {}  # loop -> revision, time of the next attempt
        self._why: dict[str, tuple[RoutingTable, str]] = {}  # loop -> the table that was refused, and why
        self._opening: dict[str, tuple[RoutingTable, threading.Thread]] = {}  # loop -> table, who opens it
        self._trouble: str | None = None

    def run(self, stop: threading.Event, *, looked: Callable[[], None], ready: Callable[[], None]) -> None:
        """Look until `stop` is set.

        Args:
            stop: Set by whoever wants this to end.
            looked: Called once, after the first look, whatever it brought.
            ready: Called once, when it is known what to serve.
        """
        first, known = True, False
        while not stop.is_set():
            read = self.step()
            self.restore()
            waits = self._waits()
            if not known and (read or self._host.serving) and not waits:
                ready()
                known = True
            if first and not waits:
                looked()
                first = False
            stop.wait(self._every)
        self._attempt(self._source.leave)

    def step(self) -> bool:
        """Withdraw what is to be, install what is newer, and report; return whether the source could be read."""
        with self._looking:
            self._heed_withdrawals()
            return self._step()

    def look_again(self) -> None:
        """Look at once for what is newest, refused tables included."""
        with self._looking:
            self._refused.clear()
            self.step()
            self.restore()

    def opening(self) -> dict[str, RoutingTable]:
        """Return the tables that are being opened, by loop."""
        return {loop: table for loop, (table, opener) in list(self._opening.items()) if opener.is_alive()}

    def refused(self) -> dict[str, tuple[RoutingTable, str]]:
        """Return the newest tables that were refused, by loop, and why."""
        return dict(self._why)

    def _heed_withdrawals(self) -> None:
        if self._withdrawals is None:
            return
        now = self._withdrawals.all()
        for loop in [loop for loop in self._host.withdrawn if loop not in now]:
            self._host.put_back(loop)
        for loop, withdrawal in now.items():
            if loop not in self._host.withdrawn:
                self._host.withdraw(withdrawal)
                logger.info("%s: out of service, on request", loop)

    def _step(self) -> bool:
        read = self._attempt(self._look)
        now, revisions = self._timer(), self._host.revisions()
        due = self._reported is None or self._reported[1] != revisions or now - self._reported[0] >= self._beat
        if read and due and self._attempt(lambda: self._source.report(revisions)):
            self._reported = (now, revisions)
        return read

    def restore(self) -> None:
        """Install the kept tables of loops that are not served yet."""
        if not self._cache.is_dir():
            return
        for path in sorted(self._cache.glob("*.json")):
            if any(path.stem in known for known in (self._host.serving, self._opening, self._host.withdrawn)):
                continue
            try:
                table = msgspec.json.decode(path.read_bytes(), type=RoutingTable)
            except (OSError, msgspec.DecodeError) as error:
                self._say_once(f"the kept routing table {path} is of no use: {error}")
                continue
            if self._is_due(table):
                self._open(table)

    def _look(self) -> None:
        self._forget_opened()
        for table in self._source.newer(self._host.revisions()):
            opening, _ = self._opening.get(table.loop, (None, None))
            under_way = opening is not None and opening.revision == table.revision
            if not under_way and table.loop not in self._host.withdrawn and self._is_due(table):
                self._open(table)
        self._beside()

    def _is_due(self, table: RoutingTable) -> bool:
        """Whether it is time to try the table; one that was refused is tried again after a while."""
        revision, again_at = self._refused.get(table.loop, (table.revision, 0.0))
        return revision != table.revision or self._timer() >= again_at

    def _open(self, table: RoutingTable) -> None:
        opening = threading.Thread(target=self._install, args=(table,), name=f"open {table.loop}", daemon=True)
        self._opening[table.loop] = (table, opening)
        opening.start()
        opening.join(self._patience)
        self._forget_opened()

    def _forget_opened(self) -> None:
        self._opening = {loop: entry for loop, entry in self._opening.items() if entry[1].is_alive()}

    def _waits(self) -> bool:
        """Whether a loop that is not served yet is being opened."""
        self._forget_opened()
        return any(loop not in self._host.serving for loop in self._opening)

    def _install(self, table: RoutingTable) -> None:
        try:
            installed = self._host.install(table)
        except TableRefused as refused:
            revision, again_at = self._refused.get(table.loop, (-1, 0.0))
            if revision != table.revision or again_at == 0.0:
                logger.error("%s", refused)
            self._refused[table.loop] = (table.revision, self._timer() + self._retry)
            self._why[table.loop] = (table, refused.why)
            return
        self._refused.pop(table.loop, None)
        self._why.pop(table.loop, None)
        if installed:
            logger.info("%s: serving routing table %d", table.loop, table.revision)
            self._keep(table)

    def _keep(self, table: RoutingTable) -> None:
        """Write the table beside the log; a table that cannot be kept still serves."""
        if self._host.revisions().get(table.loop) != table.revision:
            return  # a newer one came to serve meanwhile, and keeps itself
        path = self._cache / f"{table.loop}.json"
        temporary = path.with_suffix(f".{os.getpid()}")  # another worker may be writing the same table
        try:
            self._cache.mkdir(parents=True, exist_ok=True)
            temporary.write_bytes(msgspec.json.encode(table))
            temporary.replace(path)
        except OSError as error:
            logger.warning("the routing table of %s could not be kept for a restart: %s", table.loop, error)

    def _attempt(self, act: Callable[[], None]) -> bool:
        """Do what may fail while the control database is away; say so once, and when it is back."""
        try:
            act()
        except Exception as error:  # this thread must outlive whatever the control plane does
            self._say_once(f"the control database does not answer, serving goes on without it: {error}")
            return False
        if self._trouble is not None:
            logger.warning("the control database answers again")
            self._trouble = None
        return True

    def _say_once(self, trouble: str) -> None:
        if trouble != self._trouble:
            logger.warning("%s", trouble)
            self._trouble = trouble
