"""A version in a process of its own may hang, crash or eat memory: its arm fails, and it is started again."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import psutil
import pytest
import uvloop

from leaven.cli.opening import opener_for
from leaven.gateway.answering import Answerer, ArmDown, Place
from leaven.gateway.handover import encode_settings
from leaven.gateway.isolation import DidNotLoad, ModelFailedThere, ModelProcess
from leaven.gateway.opening import dummy_row
from tests.gateway.installations import FLIGHTS, Installation, failing_artifact, good_artifact, installation_in
from tests.gateway.misbehaving import TRUSTED, misbehaving_artifact

ROW: dict[str, Any] = {
    "carrier": np.array(["AA"], dtype=object), "dep_hour": np.array([8.0]), "dep_delay": np.array([3.5]),
    "weekend": np.array([0.0]),
}  # fmt: skip


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    kinds = ("Crashes", "Hangs", "EatsMemory", "DiesLoading", "SlowToLoad")
    artifacts = {kind: misbehaving_artifact(kind, FLIGHTS) for kind in kinds}
    artifacts |= {"good": good_artifact(FLIGHTS), "failing": failing_artifact(FLIGHTS)}
    with installation_in(
        tmp_path_factory.mktemp("isolation"), artifacts,
        LEAVEN_TRUSTED_TYPES=TRUSTED, LEAVEN_CHALLENGER_MEMORY_MB="700",
    ) as made:  # fmt: skip
        yield made


def opened(installation: Installation, version: str, *, place: Place = "apart", seconds: float = 60.0) -> Answerer:
    settings = replace(installation.settings, challenger_seconds=seconds)
    opener = opener_for(settings, timer=time.perf_counter, clock=lambda: 0, threads=None)
    return opener(installation.digests[version], FLIGHTS, place)


def asking(answerer: Answerer, ask: Callable[[Answerer], Awaitable[Any]]) -> Any:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(ask(answerer))


def process_of(answerer: Any) -> psutil.Process:
    return psutil.Process(answerer._runs._process.process.pid)


def test_it_answers_as_it_would_here(installation: Installation):
    here = opened(installation, "good", place="here")

    async def both(apart: Answerer) -> tuple[list[float], list[float]]:
        return (await apart.ask(ROW, 1)).answers.tolist(), (await here.ask(ROW, 1)).answers.tolist()

    first, second = asking(opened(installation, "good"), both)
    assert first == second


def test_a_shadow_gives_way_and_a_canary_does_not(installation: Installation):
    async def niceness(answerer: Answerer) -> int:
        await answerer.ask(ROW, 1)
        return process_of(answerer).nice()

    canary, shadow = (asking(opened(installation, "good", place=place), niceness) for place in ("apart", "aside"))
    assert shadow > canary


def test_what_it_raises_is_told_with_its_words_and_it_lives_on(installation: Installation):
    async def ask(answerer: Answerer) -> None:
        for _ in range(2):
            with pytest.raises(ModelFailedThere, match="ValueError: X has 3 features"):
                await answerer.ask(ROW, 1)

    asking(opened(installation, "failing"), ask)


def test_requests_together_share_a_message(installation: Installation):
    async def ask(answerer: Any) -> None:
        said = await asyncio.gather(*(answerer.ask(ROW, 1) for _ in range(20)))
        assert len({each.answers[0] for each in said}) == 1
        assert answerer.counts["calls"] <= 3

    asking(opened(installation, "good"), ask)


def test_one_that_crashes_fails_its_requests_and_then_all_at_once_until_it_is_back(installation: Installation):
    async def ask(answerer: Answerer) -> None:
        said = await asyncio.gather(*(answerer.ask(ROW, 1) for _ in range(5)), return_exceptions=True)
        assert {str(each) for each in said} == {"its process failed: it was ended by signal 11"}
        again = asyncio.ensure_future(answerer.ask(ROW, 1))
        for _ in range(5):  # turns of the loop: nothing is waited for
            await asyncio.sleep(0)
        assert again.done()
        with pytest.raises(ArmDown):
            await again
        calm = {name: np.array([None], dtype=object) if name == "carrier" else np.zeros(1) for name in ROW}
        end = time.monotonic() + 180
        while True:
            try:
                assert (await answerer.ask(calm, 1)).answers.tolist() == [0.5]
                return
            except ArmDown:
                assert time.monotonic() < end
                await asyncio.sleep(0.05)

    asking(opened(installation, "Crashes"), ask)


def test_one_that_hangs_is_killed_after_its_time(installation: Installation):
    async def ask(answerer: Answerer) -> None:
        process = process_of(answerer)
        with pytest.raises(ArmDown, match=r"did not answer within 1\.5 s"):
            await answerer.ask(ROW, 1)
        end = time.monotonic() + 30
        while process.is_running():
            assert time.monotonic() < end
            await asyncio.sleep(0.01)

    asking(opened(installation, "Hangs", seconds=1.5), ask)


def test_one_that_eats_memory_meets_its_limit_alone(installation: Installation):
    async def ask(answerer: Answerer) -> None:
        for calls in range(40):
            try:
                await answerer.ask(ROW, 1)
            except (ModelFailedThere, ArmDown) as error:
                assert any(word in str(error).lower() for word in ("memory", "allocate", "ended"))  # noqa: PT017
                assert calls > 2
                return
        pytest.fail("it could take as much as it liked")

    before = psutil.Process().memory_info().rss
    asking(opened(installation, "EatsMemory"), ask)
    assert psutil.Process().memory_info().rss - before < 100 * 2**20


def test_one_that_dies_while_it_is_loaded_is_refused_saying_how(installation: Installation):
    with pytest.raises(DidNotLoad, match="ended by signal 9"):
        opened(installation, "DiesLoading")


def test_one_that_is_not_ready_in_time_is_refused(installation: Installation):
    hello = msgspec.msgpack.encode({"artifact": "0", "settings": encode_settings(installation.settings)})
    with pytest.raises(DidNotLoad, match=r"not ready within 0\.2 s"):
        ModelProcess([sys.executable, "-c", "import time; time.sleep(600)"], hello, within=0.2,
                     warm_with=dummy_row(FLIGHTS))  # fmt: skip


def test_its_process_goes_with_the_last_that_needs_it(installation: Installation):
    answerer = opened(installation, "good")
    asking(answerer, lambda each: each.ask(ROW, 1))
    process = process_of(answerer)
    del answerer
    gc.collect()
    assert not process.is_running()


ALONE = """
import sys, time
from dataclasses import replace
from pathlib import Path
from leaven.cli.opening import opener_for
from leaven.settings import settings_from
from tests.gateway.installations import FLIGHTS
settings = settings_from({"LEAVEN_TRUSTED_TYPES": sys.argv[3]}, home=Path(sys.argv[1]))
opener = opener_for(settings, timer=time.perf_counter, clock=lambda: 0, threads=None)
answerer = opener(sys.argv[2], FLIGHTS, "apart")
print("open", flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("version", ["good", "SlowToLoad"])
def test_it_does_not_outlive_a_gateway_that_is_killed(installation: Installation, version: str):
    """Not even while it loads, for a minute."""
    root = Path(__file__).parents[2]
    home, digest = str(installation.settings.home), installation.digests[version]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, (os.environ.get("PYTHONPATH"), str(root))))}
    gateway = subprocess.Popen(
        [sys.executable, "-c", ALONE, home, digest, TRUSTED], stdout=subprocess.PIPE, text=True, env=environment
    )
    try:
        assert gateway.stdout is not None
        if version == "good":
            assert gateway.stdout.readline() == "open\n"
        while not (children := psutil.Process(gateway.pid).children()):
            time.sleep(0.05)
        (process,) = children
        if version == "SlowToLoad":
            while sum(process.cpu_times()[:2]) < 0.5:  # what its libraries take
                time.sleep(0.05)
            time.sleep(1)
        gateway.kill()
        process.wait(40)
    finally:
        gateway.kill()
        gateway.communicate()
