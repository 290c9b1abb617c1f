"""Stand-ins for the gateway's own ports, for tests of one part at a time."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import count
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leaven.events.records import Event
from leaven.experiments.routing import RoutingTable, ShadowRoute, arms_for
from leaven.gateway.answering import Answers
from leaven.gateway.batching import Batcher, InProcess
from leaven.gateway.rows import Rows
from leaven.gateway.serving import Chance, Serving
from leaven.loop import Schema

SCHEMA = Schema((("x", "float", False),), "user", "regression")


class Says:
    """A model that answers `answer(x)`, row by row."""

    def __init__(self, answer: Callable[[float], float]) -> None:
        self._answer = answer

    def answer(self, columns: Mapping[str, NDArray[Any]]) -> NDArray[np.float64]:
        return np.array([self._answer(x) for x in columns["x"].tolist()])


class ListLog:
    """An event log that keeps events in a list, and takes no more than `room`."""

    def __init__(self, *, room: int = 10**9) -> None:
        self.events: list[Event] = []
        self._room, self._dropped = room, 0

    def counters(self) -> dict[str, int]:
        return {"dropped": self._dropped}

    def append(self, event: Event) -> bool:
        if len(self.events) >= self._room:
            self._dropped += 1
            return False
        self.events.append(event)
        return True

    def append_durably(self, events: Sequence[Event]) -> Future[None]:
        self.events += events
        done: Future[None] = Future()
        done.set_result(None)
        return done


def a_chance() -> Chance:
    """Ids id-0, id-1, …; every look at the timer is a second later."""
    ids, seconds = count(), count()
    return Chance(new_id=lambda: f"id-{next(ids)}", timer=lambda: float(next(seconds)))


def a_serving(
    models: Mapping[str, Answers], *, canary: str | None = None, share: float = 0.5, shadows: Sequence[str] = ()
) -> Serving:
    """The first model is the champion."""
    champion = next(iter(models))
    arms = arms_for((champion, f"artifact {champion}"), (canary, f"artifact {canary}") if canary else None, share=share)
    routes = tuple(ShadowRoute(version, f"artifact {version}") for version in shadows)
    answerers = {version: an_answerer(model) for version, model in models.items()}
    return Serving(RoutingTable("loop", 3, 0, SCHEMA, "salt", arms, routes), answerers)


THREADS = ThreadPoolExecutor(8)


def an_answerer(model: Answers) -> Batcher:
    return Batcher(InProcess(model, timer=time.perf_counter, threads=THREADS))


def some_rows(xs: Sequence[float], units: Sequence[str | None] | None = None) -> Rows:
    return Rows(len(xs), {"x": np.array(xs, dtype=float)}, {"x": list(xs)}, units or [None] * len(xs))
