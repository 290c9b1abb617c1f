"""Both clients with a real gateway: asked, told, killed in the middle, back again."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
import pytest

from leaven import AsyncClient, Client
from leaven.client import GatewayUnavailable, Refused, Report
from leaven.events.records import FeedbackReceived, PredictionServed
from tests.client.servers import Kinds, client
from tests.gateway.installations import (
    FLIGHTS,
    Installation,
    RunningGateway,
    gateway_on,
    good_artifact,
    installation_in,
)

ROW = {"carrier": "AA", "dep_hour": 8, "dep_delay": 3.5, "weekend": False}
both = pytest.mark.parametrize("kind", Kinds)


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """One for all tests here; each reports under names of its own."""
    artifact = good_artifact(FLIGHTS, rounds=5)
    with installation_in(tmp_path_factory.mktemp("client"), {"1": artifact}) as made:
        made.publish(champion="1")
        yield made


@pytest.fixture(scope="module")
def gateway(installation: Installation) -> Iterator[RunningGateway]:
    with gateway_on(installation.settings) as running:
        running.until_revision(1)
        yield running


def logged(found: Installation, kind: type, *, name: str = "delay") -> list[Any]:
    """What is in the log: predictions (written a little after the reply), or feedback of this name."""
    return [event for event in found.events() if isinstance(event, kind) and getattr(event, "name", name) == name]


def until(holds: Callable[[], object], *, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.05)


@both
def test_ask_and_tell(kind: str, gateway: RunningGateway, installation: Installation):
    at = datetime(2026, 1, 2, tzinfo=UTC)
    with client(kind, gateway.url, timeout=60) as asked:
        one = asked.predict("flights", ROW, unit="N1")
        many = asked.predict_many("flights", [ROW, ROW | {"dep_delay": None}, ROW], units=["N1", "N2", None])
        arm = asked.assign("flights", "N1")
        report = asked.feedback("flights", prediction_id=one.id, name=kind, value=31, at=at)
    assert 0 < one.answer < 1
    assert (one.version, one.arm, one.propensity) == ("1", "champion", 1.0)
    assert [many[0].answer, many[2].answer] == [one.answer, one.answer]
    assert len({one.id, *(each.id for each in many)}) == 4
    assert (arm.loop, arm.unit, arm.arm, arm.version, arm.revision) == ("flights", "N1", "champion", "1", 1)
    assert (arm.propensity, arm.parameters) == (1.0, None)
    until(lambda: any(each.id == arm.exposure for each in logged(installation, PredictionServed)))
    until(lambda: {each.id for each in logged(installation, PredictionServed)} >= {one.id, *(e.id for e in many)})
    (kept,) = logged(installation, FeedbackReceived, name=kind)
    assert (kept.id, kept.prediction, kept.value, kept.at) == (report, one.id, 31.0, 1_767_312_000_000_000)


@both
def test_one_key_is_one_prediction_however_often_it_is_asked(kind: str, gateway: RunningGateway):
    with client(kind, gateway.url, timeout=60) as asked:
        assert len({asked.predict("flights", ROW, unit="N1", key="order-17").id for _ in range(3)}) == 1
        assert len({asked.predict("flights", ROW, unit="N1").id for _ in range(3)}) == 3


@both
def test_refusals_name_what_was_wrong(kind: str, gateway: RunningGateway):
    with client(kind, gateway.url, timeout=60) as asked:
        for call, status, says in (
            (lambda: asked.predict("trains", ROW), 404, "trains"),
            (lambda: asked.predict("flights", ROW | {"dep_delay": "late"}), 400, "dep_delay"),
            (lambda: asked.feedback("trains", name="delay", unit="u"), 400, "trains"),
        ):
            with pytest.raises(Refused, match=says) as refused:
                call()
            assert refused.value.status == status


def test_sixteen_threads_tell_everything_once_though_the_gateway_is_killed_in_the_middle(
    installation: Installation,
    tmp_path: Path,
    free_port: Callable[[], int],
):
    """Kill -9 of supervisor and worker; back on the same port. No report is lost, though nobody waits for it."""
    port, told, failed = free_port(), Counter[str](), Counter[str]()
    url, spool = f"http://127.0.0.1:{port}", tmp_path / "spool"
    stop, lock = threading.Event(), threading.Lock()

    def work(shared: Client, thread: int) -> None:
        number = 0
        while not stop.is_set():
            number += 1
            try:
                name = shared.predict("flights", ROW, unit=f"{thread}", timeout=1).id
            except GatewayUnavailable:
                failed[f"{thread}"] += 1
                name = None
            kept = shared.feedback("flights", prediction_id=name, unit=f"{thread}", name="sixteen", value=number)
            with lock:
                told[kept] += 1
            stop.wait(0.02)

    with Client(url, timeout=5, retries=1, spool=spool) as shared:
        with gateway_on(installation.settings, port=port) as first:
            first.until_revision(1)
            threads = [threading.Thread(target=work, args=(shared, number)) for number in range(16)]
            for thread in threads:
                thread.start()
            until(lambda: sum(told.values()) > 200)
            for process in (*psutil.Process(first.process.pid).children(recursive=True), first.process):
                process.send_signal(signal.SIGKILL)
        until(lambda: shared.spooled > 50)
        with gateway_on(installation.settings, port=port) as second:
            second.until_revision(1)
            time.sleep(1.0)  # new reports queue behind the old ones, then go straight
            stop.set()
            for thread in threads:
                thread.join()
            shared.flush(timeout=120)
            assert shared.spooled == 0
            until(lambda: {event.id for event in logged(installation, FeedbackReceived, name="sixteen")} >= told.keys())
    events = logged(installation, FeedbackReceived, name="sixteen")
    assert {event.id for event in events} == set(told)
    assert set(told.values()) == {1}
    # A report that was sent again says the same; under one id, it counts once.
    assert len({(event.id, event.unit, event.value) for event in events}) == len(told)
    assert sum(failed.values()) > 0  # the gateway was really away
    assert not (spool / "rejected.ndjson").exists()


def test_what_a_killed_process_had_spooled_is_delivered_by_the_next(
    gateway: RunningGateway,
    installation: Installation,
    tmp_path: Path,
    free_port: Callable[[], int],
):
    program = """
        import sys
        from leaven import Client
        client = Client(sys.argv[1], spool=sys.argv[2], retries=0)
        for number in range(10**6):
            client.feedback("flights", unit="u", name="killed", value=number, id=f"{number}")
            print(number, flush=True)
    """
    command = [sys.executable, "-c", textwrap.dedent(program), f"http://127.0.0.1:{free_port()}", str(tmp_path / "s")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    told = [process.stdout.readline().strip() for _ in range(200)]
    process.send_signal(signal.SIGKILL)
    told += process.communicate()[0].split("\n")[:-1]
    with Client(gateway.url, spool=tmp_path / "s", timeout=60) as after:
        after.flush()
        assert after.spooled == 0
    events = [event.id for event in logged(installation, FeedbackReceived, name="killed")]
    assert events[: len(told)] == told  # all, once, in order
    assert len(events) - len(told) <= 1  # kept, but killed before it could say so


def test_a_report_about_a_loop_nobody_serves_is_set_aside_and_the_rest_delivered(
    gateway: RunningGateway,
    installation: Installation,
    tmp_path: Path,
):
    with Client("http://127.0.0.1:1", spool=tmp_path, retries=0) as away:
        for loop in ("flights", "trains", "flights"):
            away.feedback(loop, unit="u", name="aside", id=f"{loop}-{away.spooled}")
    with Client(gateway.url, spool=tmp_path, timeout=60) as back:
        back.flush()
    assert [event.id for event in logged(installation, FeedbackReceived, name="aside")] == ["flights-0", "flights-2"]
    (aside,) = map(json.loads, (tmp_path / "rejected.ndjson").read_text().splitlines())
    assert (aside["report"]["id"], aside["status"]) == ("trains-1", 400)
    assert "trains" in aside["reason"]


def test_a_hundred_tasks_share_an_asynchronous_client(gateway: RunningGateway, installation: Installation):
    rows = [ROW | {"dep_delay": number / 5} for number in range(100)]

    async def story() -> list[float]:
        async with AsyncClient(gateway.url, timeout=60, connections=8) as shared:
            alone = await asyncio.gather(*(shared.predict("flights", row) for row in rows))
            together = await shared.predict_many("flights", rows)
            await shared.feedback_many("flights", [Report(name="tasks", prediction_id=each.id) for each in alone])
            assert [each.answer for each in alone] == pytest.approx([each.answer for each in together])
            return [each.answer for each in alone]

    assert len(set(asyncio.run(story()))) > 3
    assert len(logged(installation, FeedbackReceived, name="tasks")) == 100
