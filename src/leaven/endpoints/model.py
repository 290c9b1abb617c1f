"""How does an endpoint answer many rows at once, where nobody waits for the reply: for gates?"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from leaven.endpoints.asking import Asking
from leaven.endpoints.description import MOST_SECONDS, Endpoint, decoded
from leaven.endpoints.failures import EndpointFailed
from leaven.settings import variable
from leaven.training.learner import Files

_ROWS = 256  # of a request: each is to be answered in time by a server that answers others meanwhile
_AT_ONCE = 2
_PAUSES = (0.2, 1.0, 3.0)  # seconds, between attempts


class EndpointModel:
    """An endpoint, asked as a model is; safe to ask from several threads."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint

    def answer(self, columns: Mapping[str, NDArray[Any]]) -> NDArray[np.float64]:
        """Return one answer per row, shape (rows,); asked again, a few times, where the endpoint fails.

        Raises:
            EndpointFailed: it does not answer all the same.
        """
        return asyncio.run(self._answers(columns))

    async def _answers(self, columns: Mapping[str, NDArray[Any]]) -> NDArray[np.float64]:
        count = len(next(iter(columns.values()))) if columns else 0
        if count == 0:
            return np.empty(0)
        gentle = msgspec.structs.replace(self.endpoint, at_once=_AT_ONCE, waiting=10_000)
        asking = Asking(gentle, variable=variable, timer=time.monotonic)
        parts = [slice(start, min(start + _ROWS, count)) for start in range(0, count, _ROWS)]
        try:
            said = [
                await _patiently(asking, {name: column[part] for name, column in columns.items()}, part)
                for part in parts
            ]
        finally:
            asking.pool.close()
            await asyncio.sleep(0)  # the connections are closed by the loop's next turn
        return np.concatenate(said)


async def _patiently(asking: Asking, columns: Mapping[str, NDArray[Any]], part: slice) -> NDArray[np.float64]:
    for pause in (*_PAUSES, None):
        try:
            return await asking.answers(columns, part.stop - part.start, seconds=MOST_SECONDS)
        except EndpointFailed as failed:
            if pause is None or failed.reason in ("refused", "not asked"):
                raise
            await asyncio.sleep(pause)
    raise AssertionError("the last attempt returns or raises")


def load_endpoint(files: Files) -> EndpointModel:
    """Return the endpoint that a version's files describe.

    Raises:
        BadDefinition: they describe none.
    """
    return EndpointModel(decoded(files))
