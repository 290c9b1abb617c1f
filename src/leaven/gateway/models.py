"""How does a new routing table come to serve, without a request noticing?

Every version that the table names is opened first, aside; then one assignment makes the table the one that requests
take. A table with a version that cannot be opened is refused as a whole, and the one before it stays. The champion is
opened in this process; a challenger apart, where it can hurt nobody; one that only shadows aside, where it gives way as
well: nobody waits for it. A version that is to take over from a champion and
was never opened here is opened apart first, to see that it survives that.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from weakref import WeakValueDictionary

from leaven.errors import LeavenError
from leaven.experiments.routing import HOLDBACK, RoutingTable
from leaven.gateway.answering import Answerer, Place
from leaven.gateway.serving import Serving
from leaven.gateway.withdrawals import Withdrawal
from leaven.loop import Schema

Open = Callable[[str, Schema, Place], Answerer]  # artifact, schema, where


class TableRefused(LeavenError, RuntimeError):
    """A routing table cannot serve here, because a version that it names cannot be opened."""

    def __init__(self, loop: str, revision: int, version: str, why: str) -> None:
        super().__init__(loop, revision, version, why)
        self.loop, self.revision, self.version, self.why = loop, revision, version, why

    def __str__(self) -> str:
        return (
            f"routing table {self.revision} of {self.loop!r} is not taken: version {self.version} cannot be loaded "
            f"({self.why}). The table before it goes on serving; mend the artifact or publish another table."
        )


class ModelHost:
    """Keeps what every loop is served with. Reading `serving` is free of locks; any thread may `install`."""

    def __init__(self, open_version: Open) -> None:
        """Make a host that opens versions by `open_version(artifact, schema, place)`."""
        self.serving: dict[str, Serving] = {}
        self.withdrawn: dict[str, Withdrawal] = {}
        self._open = open_version
        # Weak: a version lives as long as a table, a request or a shadow's queue holds it, and is found while it does.
        self._alive: WeakValueDictionary[tuple[str, Place], Answerer] = WeakValueDictionary()
        self._lock = threading.Lock()
        self._opening: dict[tuple[str, Place], threading.Lock] = {}

    def install(self, table: RoutingTable) -> bool:
        """Open and warm what `table` names, then let it serve; False where it is not to serve any more.

        That is so where a newer table came to serve meanwhile, or the loop was withdrawn.

        Raises:
            TableRefused: a version cannot be opened; what served before still does.
        """
        models = {
            version: self._opened(table, version, artifact, _place(table, version, artifact))
            for version, artifact in table.artifacts().items()
        }
        with self._lock:
            now = self.serving.get(table.loop)
            if table.loop in self.withdrawn or (now is not None and now.table.revision > table.revision):
                return False
            self.serving[table.loop] = Serving(table, models)
        return True

    def withdraw(self, withdrawal: Withdrawal) -> None:
        """Take a loop out of service; requests under way are answered still."""
        with self._lock:
            self.withdrawn[withdrawal.loop] = withdrawal
            self.serving.pop(withdrawal.loop, None)

    def put_back(self, loop: str) -> None:
        """Let tables of a loop be installed again."""
        with self._lock:
            self.withdrawn.pop(loop, None)

    def revisions(self) -> dict[str, int]:
        """Return the revision of the table that each loop is served with."""
        return {loop: serving.table.revision for loop, serving in list(self.serving.items())}

    def draining(self) -> list[str]:
        """Return the artifacts that are in memory only because a request under way still needs them."""
        named = {artifact for serving in list(self.serving.values()) for artifact in serving.table.artifacts().values()}
        return sorted({artifact for artifact, _ in list(self._alive.keys())} - named)

    def _opened(self, table: RoutingTable, version: str, artifact: str, place: Place) -> Answerer:
        with self._lock:
            turn = self._opening.setdefault((artifact, place), threading.Lock())
        with turn:
            known = self._alive.get((artifact, place))
            if known is not None:
                return known
            try:
                tried = any((artifact, elsewhere) in self._alive for elsewhere in ("apart", "aside"))
                if place == "here" and table.loop in self.serving and not tried:
                    self._open(artifact, table.schema, "apart")
                opened = self._open(artifact, table.schema, place)
            except Exception as error:  # whatever a damaged or foreign artifact makes a library raise
                raise TableRefused(table.loop, table.revision, version, f"{type(error).__name__}: {error}") from error
            self._alive[artifact, place] = opened
            return opened


def _place(table: RoutingTable, version: str, artifact: str) -> Place:
    """Where a version of this table is to answer."""
    if artifact == table.champion.artifact:
        return "here"
    roles = {route.arm for route in table.arms if route.version == version}
    if roles - {HOLDBACK}:
        return "apart"
    shadows = any(route.version == version for route in table.shadows)
    return "aside" if shadows and not roles else "here"
