"""How does a new routing table come to serve, without a request noticing?

Every version that the table names is fetched, loaded and warmed first, aside; then one assignment makes the table the
one that requests take. A table whose models cannot be loaded is refused as a whole, and the one before it stays.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from weakref import WeakValueDictionary

import numpy as np
from numpy.typing import NDArray

from leaven.errors import LeavenError
from leaven.experiments.routing import RoutingTable
from leaven.gateway.serving import Answers, Serving
from leaven.loop import Schema
from leaven.training.learner import Files

logger = logging.getLogger(__name__)


class TableRefused(LeavenError, RuntimeError):
    """A routing table cannot serve here, because a model that it names cannot be loaded."""

    def __init__(self, loop: str, revision: int, version: str, why: str) -> None:
        super().__init__(loop, revision, version, why)
        self.loop, self.revision, self.version, self.why = loop, revision, version, why

    def __str__(self) -> str:
        return (
            f"routing table {self.revision} of {self.loop!r} is not taken: version {self.version} cannot be loaded "
            f"({self.why}). The table before it goes on serving; mend the artifact or publish another table."
        )


@dataclass(frozen=True, slots=True, weakref_slot=True)
class LoadedModel:
    """A model in memory, by the digest of its artifact."""

    artifact: str
    model: Answers

    def answer(self, columns: Mapping[str, NDArray[Any]]) -> NDArray[np.float64]:
        """Return one answer per row of `columns`, shape (rows,)."""
        return self.model.answer(columns)


class ModelHost:
    """Keeps what every loop is served with. Reading `serving` is free of locks; only one thread may `install`."""

    def __init__(self, *, fetch: Callable[[str], Files], load: Callable[[Files], Answers]) -> None:
        """Make a host that gets artifacts by `fetch(digest)` and models out of them by `load(files)`."""
        self.serving: dict[str, Serving] = {}
        self._fetch, self._load = fetch, load
        # Weak: a model lives as long as a table, a request or a shadow's queue holds it, and is found while it does.
        self._alive: WeakValueDictionary[str, LoadedModel] = WeakValueDictionary()

    def install(self, table: RoutingTable) -> None:
        """Load and warm what `table` names, then let it serve.

        Raises:
            TableRefused: a model cannot be loaded; what served before still does.
        """
        models = {version: self._loaded(table, version, artifact) for version, artifact in table.artifacts().items()}
        self.serving[table.loop] = Serving(table, models)

    def revisions(self) -> dict[str, int]:
        """Return the revision of the table that each loop is served with."""
        return {loop: serving.table.revision for loop, serving in list(self.serving.items())}

    def draining(self) -> list[str]:
        """Return the artifacts that are in memory only because a request under way still needs them."""
        named = {artifact for serving in list(self.serving.values()) for artifact in serving.table.artifacts().values()}
        return sorted(set(self._alive.keys()) - named)

    def _loaded(self, table: RoutingTable, version: str, artifact: str) -> LoadedModel:
        known = self._alive.get(artifact)
        if known is not None:
            return known
        try:
            loaded = LoadedModel(artifact, self._load(self._fetch(artifact)))
        except Exception as error:  # whatever a damaged or foreign artifact makes a library raise
            raise TableRefused(table.loop, table.revision, version, f"{type(error).__name__}: {error}") from error
        _warm(loaded, table, version)
        self._alive[artifact] = loaded
        return loaded


def _warm(loaded: LoadedModel, table: RoutingTable, version: str) -> None:
    """Answer a row once, so that the first request does not pay for what a library puts off.

    A model that fails here is served all the same: the row is made up, and a model that fails on real rows is for the
    trial to find and for the champion to stand in for.
    """
    try:
        loaded.answer(dummy_row(table.schema))
    except Exception as error:
        first_line = str(error).partition("\n")[0]
        logger.info("version %s of %s fails on a made-up row: %s", version, table.loop, first_line)


def dummy_row(schema: Schema) -> dict[str, NDArray[Any]]:
    """Return one row that fits the schema: zeros, and categories that are missing."""
    return {
        name: np.array([None], dtype=object) if kind == "category" else np.zeros(1) for name, kind, _ in schema.features
    }
