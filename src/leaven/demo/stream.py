"""Who sends the flights?

An application of its own, outside Leaven: it asks for a prediction when a flight is due to leave and reports the delay
when the flight has landed, over HTTP, in the order in which it all happened. Only the clock is not real: the sender
moves it from event to event, so that a week passes in seconds for every process alike.
"""

from __future__ import annotations

import http.client
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import msgspec
import numpy as np

from leaven.clock import FileClock
from leaven.duration import instant
from leaven.errors import LeavenError
from leaven.events.columns import column_time
from leaven.loop import Loop
from leaven.storage.history_file import History

_DATATYPES = {"category": "BYTES", "text": "BYTES", "float": "FP64", "int": "INT64", "bool": "BOOL"}


class RequestFailed(LeavenError, RuntimeError):
    """The gateway did not answer a request of the sender with success."""

    def __init__(self, path: str, status: int, body: str) -> None:
        super().__init__(path, status, body)
        self.path, self.status, self.body = path, status, body

    def __str__(self) -> str:
        return f"{self.path} was answered {self.status}: {self.body}. See the gateway's log."


@dataclass
class Sent:
    """What was sent so far, and what came back."""

    predictions: int = 0
    feedback: int = 0
    ids: dict[int, str] = field(default_factory=dict)  # of the prediction, by row of the flights
    # By row of the flights: answer, version, arm, and the real time at which it came.
    answers: dict[int, tuple[float, str, str, float]] = field(default_factory=dict)


class Sender:
    """Streams flights, and what came of them, to a gateway; the clock goes with them."""

    def __init__(
        self,
        loop: Loop,
        flights: History,
        *,
        host: str,
        port: int,
        clock: FileClock,
        timer: Callable[[], float] = time.time,
    ) -> None:
        self._loop, self._flights, self._clock, self._timer = loop, flights, clock, timer
        self._connection = http.client.HTTPConnection(host, port, timeout=30)
        self._next = int(np.searchsorted(flights.at, column_time(clock.now()), side="left"))
        # Outcomes in the order in which they become known; only of flights that this sender asks about.
        told = np.flatnonzero(~np.isnan(flights.outcome) & ~np.isnat(flights.label_at))
        told = told[told >= self._next]
        self._outcomes = told[np.argsort(flights.label_at[told], kind="stable")]
        self._told = 0
        self.sent = Sent()

    def send_until(self, until: datetime) -> None:
        """Send everything that happened before `until`, then let the clock show `until`.

        Raises:
            RequestFailed: the gateway did not answer with success.
        """
        end = int(np.searchsorted(self._flights.at, column_time(until), side="left"))
        while self._next < end:
            at = self._flights.at[self._next]
            self._report(at)
            self._clock.set(instant(int(at.astype(np.int64))))
            while self._next < end and self._flights.at[self._next] == at:
                self._ask(self._next)
                self._next += 1
        self._wait_for_shadows()
        self._clock.set(until)
        self._report(column_time(until))

    def _wait_for_shadows(self) -> None:
        """Wait until every shadow of what was sent is in the log: the next tick counts them."""
        deadline = time.monotonic() + 30
        while self._get("/v1/status")["shadow_rows_pending"] and time.monotonic() < deadline:
            time.sleep(0.005)

    def close(self) -> None:
        """Hang up."""
        self._connection.close()

    def _ask(self, row: int) -> None:
        body = {
            "parameters": {"unit": str(self._flights.unit[row])},
            "inputs": [
                {"name": feature.name, "shape": [1], "datatype": _DATATYPES[feature.type], "data": [value]}
                for feature in self._loop.features
                if (value := _plain(self._flights.features[feature.name][row], feature.type)) is not None
            ],
        }
        reply = self._post(f"/v2/models/{self._loop.name}/infer", body)
        said = reply["parameters"]
        self.sent.ids[row] = said["prediction_id"]
        self.sent.answers[row] = (reply["outputs"][0]["data"][0], said["version"], said["arm"], self._timer())
        self.sent.predictions += 1

    def _report(self, now: np.datetime64) -> None:
        """Report every delay that became known by `now`, in one request; the clock does not move."""
        known = self._told
        while known < len(self._outcomes) and self._flights.label_at[self._outcomes[known]] <= now:
            known += 1
        rows = [row for row in self._outcomes[self._told : known].tolist() if row in self.sent.ids]
        self._told = known
        if not rows:
            return
        self._clock.set(instant(int(now.astype("datetime64[us]").astype(np.int64))))
        items = [
            {
                "loop": self._loop.name,
                "prediction_id": self.sent.ids[row],
                "name": self._loop.label.name,
                "value": float(self._flights.outcome[row]),
                "at": int(self._flights.label_at[row].astype(np.int64)),
            }
            for row in rows
        ]
        self._post("/v1/feedback", {"feedback": items})
        self.sent.feedback += len(items)

    def _post(self, path: str, body: Mapping[str, Any]) -> Any:
        self._connection.request("POST", path, msgspec.json.encode(body), {"Content-Type": "application/json"})
        return self._answered(path)

    def _get(self, path: str) -> Any:
        self._connection.request("GET", path)
        return self._answered(path)

    def _answered(self, path: str) -> Any:
        reply = self._connection.getresponse()
        content = reply.read()
        if reply.status != 200:
            raise RequestFailed(path, reply.status, content.decode(errors="replace")[:300])
        return msgspec.json.decode(content)


def _plain(value: Any, kind: str) -> Any:
    """The value as JSON carries it; None where it is missing."""
    if value is None or value != value:
        return None
    return str(value) if kind in ("category", "text") else int(value) if kind == "int" else float(value)
