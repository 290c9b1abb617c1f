"""Callers that ask a gateway again and again, and what they were told."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

import psutil

from leaven.registry.routing import gateways
from tests.gateway.installations import Installation, RunningGateway, a_flight


@dataclass
class Seen:
    """One reply, and when it was asked for and had."""

    began: float
    ended: float
    status: int
    said: dict[str, str] = field(default_factory=dict)


@dataclass
class Load:
    """Callers that ask again and again, each over one connection that is kept open."""

    seen: list[Seen] = field(default_factory=list)
    acknowledged: list[str] = field(default_factory=list)
    broken: int = 0


@contextmanager
def load_on(gateway: RunningGateway, *, callers: int = 3, feedback: bool = False) -> Iterator[Load]:
    """Ask again and again until the block ends; a connection that breaks is counted and made anew."""
    load, stop = Load(), threading.Event()

    def call(caller: int) -> None:
        connection = HTTPConnection(gateway.address, timeout=60)
        for number in range(10**6):
            if stop.is_set():
                break
            unit = f"{caller}-{number}"
            body: object = a_flight(tail_number=unit)
            path = "/v2/models/flights/infer"
            if feedback:
                body, path = {"loop": "flights", "name": "delay", "unit": unit, "id": unit}, "/v1/feedback"
            began = time.time()
            try:
                connection.request("POST", path, json.dumps(body))
                response = connection.getresponse()
                content = json.loads(response.read())
            except (OSError, HTTPException):
                load.broken += 1
                connection.close()
                time.sleep(0.01)
                continue
            ended = time.time()
            time.sleep(0.01)  # leaves something of a small machine to the gateway
            load.seen.append(Seen(began, ended, response.status, content.get("parameters", {})))
            if feedback and response.status == 200:
                load.acknowledged += content["ids"]
        connection.close()

    threads = [threading.Thread(target=call, args=(caller,)) for caller in range(callers)]
    for thread in threads:
        thread.start()
    try:
        yield load
    finally:
        stop.set()
        for thread in threads:
            thread.join(90)


def wait_until(holds: Callable[[], object], *, seconds: float = 180) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it did not come to be in time"
        time.sleep(0.02)


@dataclass
class System:
    """A gateway of two workers that all tests of this file share, on one installation."""

    installation: Installation
    gateway: RunningGateway
    log: Path

    def publish(self, **routes: Any) -> None:
        """Publish the next table and wait until both workers run it."""
        table = self.installation.publish(**routes)
        wait_until(lambda: self.reported() == [{"flights": table.revision}] * 2)

    def reported(self) -> list[dict[str, int]]:
        with self.installation.database.read() as connection:
            return [each.revisions for each in gateways(connection) if Path(f"/proc/{each.pid}").exists()]

    def workers(self) -> list[psutil.Process]:
        return psutil.Process(self.gateway.process.pid).children()

    def said(self, text: str) -> int:
        return self.log.read_text().count(text)
