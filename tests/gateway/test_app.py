"""The application alone: what it says while it starts, is overloaded, stops, or its log fails."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from leaven.clock import FileClock
from leaven.events.log import LogUnavailable
from leaven.events.records import Event
from leaven.gateway.access import Access
from leaven.gateway.app import Gateway
from leaven.gateway.counters import Counters
from leaven.gateway.http import Limits
from leaven.gateway.models import ModelHost
from leaven.gateway.notes import Notes
from leaven.gateway.predicting import Predicting
from leaven.gateway.shadow import Shadows
from tests.gateway.fakes import ListLog, Says, a_chance, a_serving, an_answerer

REQUEST = json.dumps({"inputs": [{"name": "x", "shape": [1], "datatype": "FP64", "data": [2.5]}]}).encode()
REPORT = json.dumps({"loop": "loop", "name": "y", "unit": "u"}).encode()
Make = Callable[..., Gateway]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    clock = FileClock(tmp_path / "clock")

    def made(
        log: Any, *, begun: bool = True, limits: Limits | None = None, log_first: bool = False, **serving: Any
    ) -> Gateway:
        host = ModelHost(lambda artifact, schema, place: an_answerer(Says(float)))
        shadows, limits = Shadows(log, timer=lambda: 0.0), limits or Limits()
        counters = Counters(worker="w", log=getattr(log, "counters", dict))
        predicting = Predicting(
            host.serving, log, shadows, clock=clock, chance=a_chance(), counters=counters,
            log_first=log_first, durable_seconds=limits.durable_seconds,
        )  # fmt: skip
        gateway = Gateway(
            host, predicting, shadows, counters=counters, version="1.0", limits=limits,
            access=Access(required=False, now=lambda: 0), notes=Notes(slow=60, timer=lambda: 0.0),
        )  # fmt: skip
        if begun:
            host.serving["loop"] = a_serving({"1": Says(float)} | serving)
            gateway.begin()
        return gateway

    yield made
    clock.close()


async def call(app: Gateway, method: str, path: str, *messages: dict[str, Any]) -> tuple[int, dict[str, str], Any]:
    waiting, sent = list(messages), list[dict[str, Any]]()

    async def receive() -> dict[str, Any]:
        return waiting.pop(0)

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    await app({"type": "http", "method": method, "path": path, "headers": []}, receive, send)
    if not sent:
        return 0, {}, None
    headers = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return sent[0]["status"], headers, json.loads(sent[1]["body"])


def ask(app: Gateway, path: str, body: bytes | None = None) -> tuple[int, dict[str, str], Any]:
    message = {"type": "http.request", "body": body or b"", "more_body": False}
    return asyncio.run(call(app, "GET" if body is None else "POST", path, message))


INFER = "/v2/models/loop/infer"


def test_before_the_first_look_nothing_is_known_and_that_is_no_404(make: Make):
    gateway = make(ListLog(), begun=False)
    for path, body in ((INFER, REQUEST), ("/v1/feedback", REPORT), ("/v2/health/ready", None)):
        status, headers, said = ask(gateway, path, body)
        assert status == 503
        assert body is None or ("retry-after" in headers and "starting" in said["error"])
    assert ask(gateway, "/v2/health/live")[0] == 200


def test_a_gateway_that_stops_is_not_ready_and_closes_connections_but_answers(make: Make):
    gateway = make(ListLog())
    assert "connection" not in ask(gateway, INFER, REQUEST)[1]
    gateway.drain()
    assert ask(gateway, "/v2/health/ready")[0] == 503
    status, headers, said = ask(gateway, INFER, REQUEST)
    assert (status, headers["connection"], said["outputs"][0]["data"]) == (200, "close", [2.5])
    gateway.begin()  # a late first look must not make it ready again
    assert not gateway.ready


def test_more_requests_at_once_than_the_limit_are_sent_away(make: Make):
    gateway = make(ListLog(), limits=Limits(under_way=0))
    status, headers, said = ask(gateway, INFER, REQUEST)
    assert (status, headers["retry-after"]) == (503, "1")
    assert "under way" in said["error"]


def test_a_prediction_that_the_log_has_no_room_for_is_answered_and_counted(make: Make):
    gateway = make(ListLog(room=0))
    assert ask(gateway, INFER, REQUEST)[0] == 200
    assert gateway.status()["predictions_dropped"] == 1


def test_where_the_log_comes_first_a_prediction_it_cannot_keep_is_refused(make: Make):
    log = StuckLog(refuses=True)
    status, headers, said = ask(make(log, log_first=True), INFER, REQUEST)
    assert (status, headers["retry-after"]) == (503, "1")
    assert "disk full" in said["error"]
    assert ask(make(ListLog(), log_first=True), INFER, REQUEST)[0] == 200


class StuckLog(ListLog):
    """Never confirms; or says at once that it cannot."""

    def __init__(self, *, refuses: bool) -> None:
        super().__init__()
        self.given: list[Future[None]] = []
        self._refuses = refuses

    def append_durably(self, events: Sequence[Event]) -> Future[None]:
        self.given.append(Future())
        if self._refuses:
            self.given[-1].set_exception(LogUnavailable("disk full"))
        return self.given[-1]


@pytest.mark.parametrize("refuses", [True, False])
def test_feedback_that_is_not_durable_is_not_acknowledged(make: Make, refuses: bool):
    log = StuckLog(refuses=refuses)
    gateway = make(log, limits=Limits(durable_seconds=0.05))
    status, headers, said = ask(gateway, "/v1/feedback", REPORT)
    assert (status, headers["retry-after"]) == (503, "1")
    assert ("disk full" if refuses else "did not confirm") in said["error"]
    assert gateway.status()["feedback_acknowledged"] == 0
    assert not log.given[0].cancelled()  # the log may still resolve it


def test_a_caller_that_goes_away_in_the_middle_of_a_body_is_no_error(make: Make):
    gateway = make(ListLog())
    half = {"type": "http.request", "body": REQUEST[:9], "more_body": True}
    assert asyncio.run(call(gateway, "POST", INFER, half, {"type": "http.disconnect"}))[0] == 0
    assert gateway.status()["requests"] == {"499": 1}


def test_a_body_in_many_pieces_is_refused_once_it_is_too_long(make: Make):
    gateway = make(ListLog(), limits=Limits(body=100))
    piece = {"type": "http.request", "body": b"x" * 60, "more_body": True}
    status, _, said = asyncio.run(call(gateway, "POST", INFER, piece, piece, piece))
    assert (status, "larger than 100 bytes" in said["error"]) == (413, True)


def test_a_body_that_does_not_come_is_given_up(make: Make):
    gateway = make(ListLog(), limits=Limits(body_seconds=0.05))

    async def never() -> dict[str, Any]:
        await asyncio.sleep(60)
        return {}

    sent: list[dict[str, Any]] = []

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": INFER, "headers": [(b"content-length", b"9")]}
    asyncio.run(gateway(scope, never, send))
    assert sent[0]["status"] == 408
