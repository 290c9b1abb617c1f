"""How does a version come to answer: here, apart, or elsewhere?"""

from __future__ import annotations

import logging
import threading
import weakref
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leaven.endpoints.asking import Asking
from leaven.gateway.answering import Answerer, Answers, Place
from leaven.gateway.batching import Batcher, InProcess
from leaven.gateway.endpoint import EndpointArm
from leaven.gateway.isolation import Isolated, ModelProcess
from leaven.gateway.parameters import ParametersArm
from leaven.loop import Schema

logger = logging.getLogger(__name__)

Row = dict[str, NDArray[Any]]


class Opener:
    """Opens versions for a `ModelHost`."""

    def __init__(
        self,
        load: Callable[[str], Answers],
        start: Callable[[str, Row, bool], ModelProcess],
        described: Callable[[str], Asking | ParametersArm | None] = lambda artifact: None,
        *,
        seconds: float,
        timer: Callable[[], float],
        clock: Callable[[], int],
        threads: Executor,
    ) -> None:
        """Make an opener.

        Args:
            load: Loads an artifact in this process, by its digest.
            start: Starts a process that has loaded the artifact and has answered the row, and that gives way to
                everything else on the machine or does not.
            described: Gives what asks the server that an artifact describes, or the parameters in it; None where it is
                a model.
            seconds: That a call of a version apart may take.
            timer: Seconds that pass, from any start.
            clock: Now, in microseconds since the Unix epoch.
            threads: For calls of models in this process that take long.
        """
        self._load, self._start, self._described = load, start, described
        self._seconds, self._timer, self._clock, self._threads = seconds, timer, clock, threads
        # One for all tables: a breaker that is open stays open when its arm is promoted. Weak, as the host's are.
        self._endpoints: weakref.WeakValueDictionary[str, EndpointArm] = weakref.WeakValueDictionary()
        self._lock = threading.Lock()

    def __call__(self, artifact: str, schema: Schema, place: Place) -> Answerer:
        """Return what stands for the artifact; warmed, where it is a model."""
        found = self._without_model(artifact)
        if found is not None:
            return found
        row = dummy_row(schema)
        if place != "here":
            isolated = Isolated(lambda: self._start(artifact, row, place == "aside"), seconds=self._seconds)
            batcher = Batcher(isolated, apart=None)
            weakref.finalize(batcher, isolated.close)  # with the last request or table that needs it
            return batcher
        model = self._load(artifact)
        _warm(model, row, artifact)
        return Batcher(InProcess(model, timer=self._timer, threads=self._threads))

    def _without_model(self, artifact: str) -> EndpointArm | ParametersArm | None:
        """The parameters in the artifact, or the endpoint that it describes.

        An endpoint need not answer now: a gateway starts without it.
        """
        with self._lock:
            known = self._endpoints.get(artifact)
            if known is not None:
                return known
            asking = self._described(artifact)
            if asking is None or isinstance(asking, ParametersArm):
                return asking
            arm = EndpointArm(asking, timer=self._timer, clock=self._clock)
            weakref.finalize(arm, asking.pool.close)
            self._endpoints[artifact] = arm
            return arm


def _warm(model: Answers, row: Mapping[str, NDArray[Any]], artifact: str) -> None:
    """Answer a row once, so that the first request does not pay for what a library puts off.

    A model that fails here is served all the same: the row is made up, and a model that fails on real rows is for the
    trial to find and for the champion to stand in for.
    """
    try:
        model.answer(row)
    except Exception as error:
        logger.info("artifact %s fails on a made-up row: %s", artifact[:12], str(error).partition("\n")[0])


def dummy_row(schema: Schema) -> Row:
    """Return one row that fits the schema: zeros, and categories that are missing."""
    return {
        name: np.array([None], dtype=object) if kind in ("category", "text") else np.zeros(1)
        for name, kind, _ in schema.features
    }
