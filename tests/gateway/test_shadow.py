"""Shadows answer behind the live answer; whatever they do, the live side does not wait and every loss is counted."""

from __future__ import annotations

import asyncio
import time

from leaven.gateway.refusals import Overloaded
from leaven.gateway.serving import Serving, predict
from leaven.gateway.shadow import Shadows
from tests.gateway.fakes import ListLog, Says, a_chance, a_serving, some_rows


async def offer(shadows: Shadows, serving: Serving, *, times: int = 1) -> None:
    for _ in range(times):
        rows = some_rows([1.0, 2.0], ["u", "v"])
        shadows.offer(serving, await predict(serving, rows, pinned=None, at=5, chance=a_chance()))


async def drained(shadows: Shadows) -> None:
    async with asyncio.timeout(60):
        while shadows.pending:
            await asyncio.sleep(0.005)


def shadowing(log: ListLog, serving: Serving) -> Shadows:
    """Offer one request to the shadows, and wait for what becomes of it."""

    async def run() -> Shadows:
        shadows = Shadows(log, timer=time.monotonic)
        await offer(shadows, serving)
        await drained(shadows)
        return shadows

    return asyncio.run(run())


def test_a_shadow_answers_under_the_live_ids():
    log = ListLog()
    shadows = shadowing(log, a_serving({"1": Says(float), "2": Says(lambda x: -x)}, shadows=["2"]))
    assert [(e.id, e.role, e.version, e.answer, e.unit, e.at, e.features) for e in log.events] == [
        ("id-0-0", "shadow", "2", -1.0, "u", 5, None),
        ("id-0-1", "shadow", "2", -2.0, "v", 5, None),
    ]
    assert shadows.counts == {"answered": 2}


def test_a_shadow_that_raises_is_logged_with_the_reason():
    def raises(_: float) -> float:
        raise RuntimeError("cold")

    log = ListLog()
    shadows = shadowing(log, a_serving({"1": Says(float), "2": Says(raises)}, shadows=["2"]))
    assert [(e.answer, e.error) for e in log.events] == [(None, "RuntimeError: cold")] * 2
    assert shadows.counts == {"failed": 2}


def test_a_full_event_log_is_counted():
    shadows = shadowing(ListLog(room=1), a_serving({"1": Says(float), "2": Says(float)}, shadows=["2"]))
    assert shadows.counts == {"answered": 2, "dropped_log": 1}


class Hangs:
    """Answers nothing until it is let go."""

    def __init__(self) -> None:
        self.let_go = asyncio.Event()

    async def ask(self, columns, count):
        await self.let_go.wait()
        raise RuntimeError("let go")


def hanging(hangs: Hangs) -> Serving:
    serving = a_serving({"1": Says(float), "2": Says(float)}, shadows=["2"])
    return Serving(serving.table, {**serving.models, "2": hangs})


def test_a_shadow_that_hangs_costs_only_shadow_answers():
    async def run() -> None:
        log = ListLog()
        shadows = Shadows(log, timer=time.monotonic, limit=20, at_once=1, deadline=0.05)
        await asyncio.wait_for(offer(shadows, hanging(Hangs()), times=100), 30)  # nothing waited
        await drained(shadows)
        # Offered is answered plus dropped, each with its reason: one was under way and ten waited, too long all of
        # them; the rest found no room.
        assert log.events == []
        assert shadows.counts["dropped_late"] >= 22
        assert shadows.counts["dropped_full"] + shadows.counts["dropped_late"] == 200

    asyncio.run(run())


class Overrun:
    """Has no room for another row."""

    async def ask(self, columns, count):
        raise Overloaded("20,000 rows wait for the model")


def test_a_shadow_that_has_no_room_costs_shadow_answers_that_are_counted():
    serving = a_serving({"1": Says(float), "2": Says(float)}, shadows=["2"])
    shadows = shadowing(ListLog(), Serving(serving.table, {**serving.models, "2": Overrun()}))
    assert shadows.counts == {"dropped_full": 2}


def test_what_goes_wrong_on_our_side_is_counted_and_told(caplog):
    class Broken(ListLog):
        def append(self, event):
            raise ValueError("no such record")

    shadows = shadowing(Broken(), a_serving({"1": Says(float), "2": Says(float)}, shadows=["2"]))
    assert shadows.counts == {"dropped_error": 2}
    assert "no such record" in caplog.text


def test_what_is_left_at_the_end_is_counted():
    async def run() -> None:
        shadows = Shadows(ListLog(), timer=time.monotonic, at_once=1)
        await offer(shadows, hanging(Hangs()), times=3)
        await shadows.stop(seconds=0.01)
        await asyncio.sleep(0)
        assert shadows.counts == {"dropped_stopped": 6}
        assert shadows.pending == 0

    asyncio.run(run())
