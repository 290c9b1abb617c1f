"""Visitors who never stop: threads that ask a gateway and report what came of it, and note every answer."""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import msgspec


@dataclass(frozen=True)
class Answer:
    """One reply, and when it was asked for and received (`time.monotonic`)."""

    asked: float
    received: float
    status: int
    version: str
    prediction: str = ""  # its id, where there was an answer


@dataclass
class Traffic:
    """What the visitors saw."""

    port: int
    feedback: bool = True
    users: int = 50  # different ones of each visitor
    rest: float = 0.02  # seconds that each visitor takes between two questions
    truthful: bool = False  # whether those with a positive x say that they bought, and others that they did not
    may_hang_up: bool = False  # whether a broken connection is to be expected; the visitor then comes again
    answers: list[Answer] = field(default_factory=list)
    acknowledged: list[str] = field(default_factory=list)  # ids of feedback that was answered 200
    sent: list[str] = field(default_factory=list)  # paths of all that was asked, whatever came of it
    reports: list[int] = field(default_factory=list)  # statuses of the answers to feedback
    hung_up: list[str] = field(default_factory=list)  # connections that broke before an answer
    refused: list[str] = field(default_factory=list)  # what else was answered, or went wrong
    come_again: list[str | None] = field(default_factory=list)  # the Retry-After of what was refused
    stopped: threading.Event = field(default_factory=threading.Event)

    def since(self, moment: float) -> list[Answer]:
        """Answers to what was asked after `moment`."""
        return [answer for answer in self.answers if answer.asked >= moment]

    def visit(self, number: int) -> None:
        """Ask and report until stopped."""
        connection: http.client.HTTPConnection | None = None
        turn = 0
        while not self.stopped.is_set():
            turn += 1
            try:
                connection = connection or http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
                prediction = self._ask(connection, f"user-{number}-{turn % self.users}", turn)
                if self.feedback and prediction:
                    self._tell(connection, prediction, int(not self.truthful or _x(turn) > 0))
            except (OSError, http.client.HTTPException) as error:
                if connection is not None:
                    connection.close()
                connection = None
                self.hung_up.append(repr(error))
                if not self.may_hang_up:
                    self.refused.append(repr(error))
            time.sleep(self.rest)  # leaves something of a small machine to those who are asked
        if connection is not None:
            connection.close()

    def _ask(self, connection: http.client.HTTPConnection, unit: str, turn: int) -> str:
        inputs = [{"name": name, "shape": [1], "datatype": "FP64", "data": [_x(turn)]} for name in ("x", "z")]
        asked = time.monotonic()
        status, said = self._post(connection, "/v2/models/shop/infer", {"parameters": {"unit": unit}, "inputs": inputs})
        version, prediction = (
            (said["parameters"]["version"], said["parameters"]["prediction_id"]) if status == 200 else ("", "")
        )
        self.answers.append(Answer(asked, time.monotonic(), status, version, prediction))
        if status != 200:
            self.refused.append(f"{status} {said}")
            return ""
        return str(prediction)

    def _tell(self, connection: http.client.HTTPConnection, prediction: str, bought: int) -> None:
        report = {"loop": "shop", "prediction_id": prediction, "name": "bought", "value": bought, "id": uuid4().hex}
        status, said = self._post(connection, "/v1/feedback", report)
        self.reports.append(status)
        if status == 200:
            self.acknowledged.append(report["id"])
        else:
            self.refused.append(f"{status} {said}")

    def _post(self, connection: http.client.HTTPConnection, path: str, body: Any) -> tuple[int, Any]:
        self.sent.append(path)
        connection.request("POST", path, msgspec.json.encode(body), {"Content-Type": "application/json"})
        reply = connection.getresponse()
        if reply.status != 200:
            self.come_again.append(reply.headers["retry-after"])
        return reply.status, msgspec.json.decode(reply.read())


def _x(turn: int) -> float:
    """What a visitor brings at this turn, for both features: -3 to 3."""
    return turn % 7 - 3.0


@contextmanager
def visitors(port: int, *, count: int = 2, **how: Any) -> Iterator[Traffic]:
    """Let `count` visitors come and go until the block ends."""
    traffic = Traffic(port, **how)
    threads = [threading.Thread(target=traffic.visit, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    try:
        yield traffic
    finally:
        traffic.stopped.set()
        for thread in threads:
            thread.join()
