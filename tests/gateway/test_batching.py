"""Requests of one moment share a call, each gets its own answers, and one that fails costs the others nothing."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from leaven.gateway.batching import Batcher, CallCost, InProcess, WrongShape, merged
from leaven.gateway.refusals import Overloaded

THREADS = ThreadPoolExecutor(4)


class Doubles:
    """Answers 2 x, and remembers how many rows each call had; a negative x is a poisoned one.

    It has a clock of its own, on which a call takes `call` seconds and `row` for each row, and nothing else takes any.
    """

    def __init__(self, *, call: float = 0.0, row: float = 0.0) -> None:
        self.calls: list[int] = []
        self.now, self.call, self.row = 0.0, call, row

    def answer(self, columns: Any) -> Any:
        self.calls.append(len(columns["x"]))
        self.now += self.call + self.row * len(columns["x"])
        if (columns["x"] < 0).any():
            raise ValueError("poisoned")
        return columns["x"] * 2


class WaitsTheSecondTime(Doubles):
    """Its calls take long, so that from the second on they are made on a thread; that one waits to be released."""

    def __init__(self) -> None:
        super().__init__(call=1.0)
        self.release = threading.Event()

    def answer(self, columns: Any) -> Any:
        said = super().answer(columns)
        if len(self.calls) == 2:
            assert self.release.wait(60)
        return said


def a_batcher(model: Doubles, **settings: Any) -> Batcher:
    return Batcher(InProcess(model, timer=lambda: model.now, threads=THREADS), **settings)


def asked(batcher: Batcher, *requests: Sequence[float]) -> list[Any]:
    """What each of some requests that come together is told: its answers, or the error."""

    async def run() -> list[Any]:
        asks = (batcher.ask({"x": np.array(xs, dtype=float)}, len(xs)) for xs in requests)
        said = await asyncio.gather(*asks, return_exceptions=True)
        return [each if isinstance(each, Exception) else each.answers.tolist() for each in said]

    return asyncio.run(run())


@given(st.lists(st.lists(st.floats(0, 1e6), min_size=1, max_size=5), min_size=1, max_size=30))
def test_everybody_gets_the_answers_to_their_own_rows(requests: list[list[float]]):
    assert asked(a_batcher(Doubles()), *requests) == [[2 * x for x in xs] for xs in requests]


def test_requests_that_come_together_share_a_call_and_one_alone_does_not_wait():
    model = Doubles()
    batcher = a_batcher(model)
    assert asked(batcher, [1.0]) == [[2.0]]
    assert model.calls == [1]
    asked(batcher, *[[float(x)] for x in range(40)])
    assert model.calls == [1, 40]
    assert batcher.counts == {"calls": 2, "rows": 41, "shared": 40}


def test_a_poisoned_request_fails_alone():
    said = asked(a_batcher(Doubles()), [1.0], [-1.0], [3.0, 4.0])
    assert (said[0], said[2]) == ([2.0], [6.0, 8.0])
    assert isinstance(said[1], ValueError)


def test_what_gathers_while_the_model_works_is_the_next_call():
    model = WaitsTheSecondTime()

    async def run() -> None:
        batcher = a_batcher(model)
        await batcher.ask({"x": np.ones(1)}, 1)
        second = asyncio.create_task(batcher.ask({"x": np.ones(1)}, 1))
        while len(model.calls) < 2:
            await asyncio.sleep(0.005)
        others = [asyncio.create_task(batcher.ask({"x": np.ones(1)}, 1)) for _ in range(9)]
        while batcher.waiting < 10:
            await asyncio.sleep(0.005)
        model.release.set()
        await asyncio.gather(second, *others)

    asyncio.run(run())
    assert model.calls == [1, 1, 9]


def test_a_slow_model_does_not_stop_the_event_loop():
    model = WaitsTheSecondTime()

    async def run() -> None:
        batcher = a_batcher(model)
        await batcher.ask({"x": np.ones(1)}, 1)
        asking = asyncio.create_task(batcher.ask({"x": np.ones(1)}, 1))
        while len(model.calls) < 2:
            await asyncio.sleep(0.005)
        assert not asking.done()
        model.release.set()  # which only a loop that goes on can do
        assert (await asking).answers.tolist() == [2.0]

    asyncio.run(run())


def test_a_request_of_many_rows_holds_nobody_up():
    release = threading.Event()

    class WaitsForMany(Doubles):
        def answer(self, columns: Any) -> Any:
            if len(columns["x"]) > 100:
                assert release.wait(60)
            return columns["x"] * 2

    async def run() -> None:
        batcher = a_batcher(WaitsForMany())
        many = asyncio.create_task(batcher.ask({"x": np.ones(1000)}, 1000))
        await asyncio.sleep(0.01)
        assert (await asyncio.wait_for(batcher.ask({"x": np.ones(1)}, 1), 60)).answers.tolist() == [2.0]
        release.set()
        assert len((await many).answers) == 1000

    asyncio.run(run())


def test_more_rows_than_may_wait_are_sent_away_and_the_others_answered():
    said = asked(a_batcher(Doubles(), limit=3), [1.0], [2.0], [3.0], [4.0])
    assert said[:3] == [[2.0], [4.0], [6.0]]
    assert isinstance(said[3], Overloaded)
    assert asked(a_batcher(Doubles(), limit=3), [1.0] * 9) == [[2.0] * 9]  # alone it may be as long as it likes


@given(call=st.floats(0, 0.01), row=st.floats(1e-6, 0.001))
def test_the_cost_of_a_call_and_of_its_rows_are_told_apart(call: float, row: float):
    cost = CallCost()
    for rows in [1, 5, 30, 2, 64, 7] * 5:
        cost.learn(rows, call + row * rows)
    assert cost.per_row() == pytest.approx(row, rel=1e-6)
    assert cost.rows_in(100 * row) == pytest.approx(100, abs=1)


def test_as_many_rows_share_a_call_as_the_budget_allows():
    dear, cheap = Doubles(row=0.001), Doubles(call=0.002)
    asked(a_batcher(dear, budget=0.02), *[[1.0]] * 200)
    assert dear.calls[0] == 64
    assert set(dear.calls[1:-1]) <= {19, 20}
    asked(a_batcher(cheap, budget=0.02), *[[1.0]] * 1000)
    assert max(cheap.calls) > 128


def test_answers_of_another_number_than_rows_are_the_models_failure():
    class Short(Doubles):
        def answer(self, columns: Any) -> Any:
            return columns["x"][:-1]

    (said,) = asked(a_batcher(Short()), [1.0, 2.0])
    assert isinstance(said, WrongShape)


@pytest.mark.parametrize("absent", [0, 1])
def test_a_feature_that_one_of_the_requests_lacks_is_missing_in_its_rows(absent: int):
    parts: list[dict[str, Any]] = [{"x": np.ones(2), "c": np.array(["a", None], dtype=object)}] * 2
    parts[absent] = {"x": np.zeros(1)}
    counts = [1 if part is parts[absent] else 2 for part in parts]
    whole = merged(parts, counts)
    expected: Callable[[list[Any], list[Any]], list[Any]] = lambda a, b: a + b if absent == 1 else b + a  # noqa: E731
    assert whole["x"].tolist() == expected([1.0, 1.0], [0.0])
    assert whole["c"].tolist() == expected(["a", None], [None])
