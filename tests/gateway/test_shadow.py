"""Shadows answer behind the live answer; whatever they do, the live side does not wait and every loss is counted."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest

from leaven.gateway.serving import Serving, predict
from leaven.gateway.shadow import Shadows
from tests.gateway.fakes import ListLog, Says, a_chance, a_serving, some_rows


@pytest.fixture
def shadows() -> Iterator[Callable[..., Shadows]]:
    made: list[Shadows] = []

    def make(log: ListLog, **settings: float) -> Shadows:
        made.append(Shadows(log, timer=time.monotonic, **settings))
        made[-1].start()
        return made[-1]

    yield make
    for each in made:
        each.stop()


def offer(shadows: Shadows, serving: Serving, *, times: int = 1) -> None:
    for _ in range(times):
        rows = some_rows([1.0, 2.0], ["u", "v"])
        shadows.offer(serving, predict(serving, rows, pinned=None, at=5, chance=a_chance()))


def drained(shadows: Shadows) -> None:
    end = time.monotonic() + 5
    while shadows.pending:
        assert time.monotonic() < end
        time.sleep(0.005)


def test_a_shadow_answers_under_the_live_ids(shadows):
    log = ListLog()
    running = shadows(log)
    offer(running, a_serving({"1": Says(float), "2": Says(lambda x: -x)}, shadows=["2"]))
    drained(running)
    assert [(e.id, e.role, e.version, e.answer, e.unit, e.at, e.features) for e in log.events] == [
        ("id-0-0", "shadow", "2", -1.0, "u", 5, None),
        ("id-0-1", "shadow", "2", -2.0, "v", 5, None),
    ]
    assert running.counts == {"answered": 2}


def test_a_shadow_that_raises_is_logged_with_the_reason(shadows):
    def raises(_: float) -> float:
        raise RuntimeError("cold")

    log = ListLog()
    running = shadows(log)
    offer(running, a_serving({"1": Says(float), "2": Says(raises)}, shadows=["2"]))
    drained(running)
    assert [(e.answer, e.error) for e in log.events] == [(None, "RuntimeError: cold")] * 2
    assert running.counts == {"failed": 2}


def test_a_shadow_that_hangs_costs_only_shadow_answers(shadows):
    release = threading.Event()

    def hangs(x: float) -> float:
        release.wait(20)
        return x

    log = ListLog()
    running = shadows(log, limit=20, deadline=0.05)
    serving = a_serving({"1": Says(float), "2": Says(hangs)}, shadows=["2"])
    began = time.monotonic()
    offer(running, serving, times=100)
    assert time.monotonic() - began < 1  # nothing waited
    time.sleep(0.1)
    release.set()
    drained(running)
    # Offered is answered plus dropped, each with its reason: the queue's 20 came too late, the rest found no room.
    assert log.events == []
    assert running.counts["dropped_late"] in (20, 22)
    assert running.counts["dropped_full"] + running.counts["dropped_late"] == 200


def test_what_waits_at_the_end_is_counted(shadows):
    release = threading.Event()
    running = shadows(ListLog())
    offer(running, a_serving({"1": Says(float), "2": Says(lambda _: float(release.wait(20)))}, shadows=["2"]), times=3)
    end = time.monotonic() + 5
    while running.pending > 6 or not running._under_way:
        assert time.monotonic() < end
        time.sleep(0.005)
    running.stop(seconds=0.01)
    release.set()
    assert running.counts["dropped_stopped"] == 4


def test_a_full_event_log_is_counted(shadows):
    running = shadows(ListLog(room=1))
    offer(running, a_serving({"1": Says(float), "2": Says(float)}, shadows=["2"]))
    drained(running)
    assert running.counts == {"answered": 2, "dropped_log": 1}
