"""A replay is worth something only if it decides as the running system does.

In the normal run that is the shop's life, which the tests of this folder share; real flights are for the slow one.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from leaven.app import App
from leaven.controller.history import HistoryLog
from leaven.controller.replay import ReplayDriver
from leaven.demo.flights import SLICE
from leaven.demo.live import LiveFlights, fresh_home
from leaven.demo.story import QUICK
from leaven.events.source import Span
from leaven.loop import Loop
from leaven.loopfile import load_loop
from leaven.registry.decisions import Decision, decisions
from leaven.settings import settings_from
from leaven.storage.history_file import History
from tests.acceptance.conftest import Worlds
from tests.acceptance.stories import LAST, TICK
from tests.acceptance.worlds import SERVED_FROM
from tests.controller.pasts import day

DAYS_LIVE = 3.5
END = QUICK.live + timedelta(days=DAYS_LIVE)


def ticks(loop: Loop) -> list[datetime]:
    count = int(timedelta(days=DAYS_LIVE) / loop.tick_length)
    return [QUICK.live + (n + 1) * loop.tick_length for n in range(count)]


@dataclass(frozen=True)
class Lived:
    """What ran: its parts, its loop, when that came into being and began to serve, and its ticks since."""

    app: App
    loop: Loop
    began: datetime
    served_from: datetime
    ticks: list[datetime]

    @property
    def end(self) -> datetime:
        return self.ticks[-1]

    def decisions(self) -> list[Decision]:
        with self.app.database.read() as connection:
            return decisions(connection, self.loop.name)


@pytest.fixture
def shop_lived(world: Worlds) -> Lived:
    """The shop after the story's last tick."""
    shop = world(at="promoted")
    days = np.arange(9.5 + TICK, LAST + TICK / 2, TICK)
    return Lived(shop.app, shop.loop, day(SERVED_FROM), day(9.5), [day(float(each)) for each in days])


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory):
    """The real gateway, log, flusher and controller after a few streamed days, stopped again."""
    home = tmp_path_factory.mktemp("live") / "home"
    fresh_home(home)
    loop_file = home / "flights.py"
    shutil.copy(Path(load_loop.__code__.co_filename).parent / "demo" / QUICK.loop_file, loop_file)
    running = LiveFlights(settings_from({}, home=home), loop_file, SLICE)
    loop = load_loop(loop_file)
    try:
        running.start(QUICK.first_model)
        running.import_between(loop, datetime(2013, 1, 1, tzinfo=UTC), QUICK.first_model)
        running.app.enter(loop_file)
        running.settle(loop, QUICK.first_model)
        running.import_between(loop, QUICK.first_model, QUICK.live)
        running.pass_to(loop, QUICK.live)
        running.begin_sending(loop)
        for now in ticks(loop):
            running.pass_to(loop, now)
        yield running, loop
    finally:
        running.stop()


@pytest.fixture
def flights_lived(live) -> Lived:
    running, loop = live
    return Lived(running.app, loop, QUICK.first_model, QUICK.live, ticks(loop))


@pytest.fixture(params=["shop", pytest.param("flights", marks=pytest.mark.slow)])
def lived(request: pytest.FixtureRequest) -> Lived:
    return request.getfixturevalue(f"{request.param}_lived")


def past_of(lived: Lived) -> tuple[History, np.ndarray]:
    """What the running system logged, as a file of the past would have it, and the ids it gave."""
    source = lived.app.source(lived.loop.name)
    first = source.first()
    assert first is not None
    served = source.examples(Span(first, lived.end), lived.loop.label, as_of=lived.end).predictions
    row = {id: n for n, id in enumerate(served.id.tolist())}
    label_at = np.full(len(served), np.datetime64("NaT", "us"))
    outcome = np.full(len(served), np.nan)
    for report in lived.app.lake.tail(lived.loop.name, 10**9, table="feedback"):
        n = row.get(report["prediction"])
        if n is None:  # served after the last tick
            continue
        label_at[n] = np.datetime64(report["at"].astimezone(UTC).replace(tzinfo=None), "us")
        outcome[n] = report["value"]
    return History(served.at, label_at, outcome, served.unit, dict(served.features)), served.id


def replayed(lived: Lived) -> tuple[ReplayDriver, list[Decision]]:
    history, ids = past_of(lived)
    driver = ReplayDriver(lived.loop, history, log=HistoryLog(history, ids=ids))
    driver.enter(lived.began)
    driver.step(lived.began)
    driver.log.serve(lived.served_from, None, lambda version: pytest.fail("nothing was served then"))
    for now in (lived.served_from, *lived.ticks):
        driver.step(now)
    with driver.database.read() as connection:
        return driver, decisions(connection, lived.loop.name)


def test_the_same_stream_is_decided_alike_live_and_in_replay(lived: Lived):
    done = lived.decisions()
    _, replays = replayed(lived)
    assert ("trial", "promote", 2) in [(d.kind, d.outcome, d.version) for d in done]
    facts = [[(d.id, d.at, d.kind, d.outcome, d.version, d.why) for d in each] for each in (done, replays)]
    assert facts[0] == facts[1]


def test_the_same_answers_are_served_live_and_in_replay(lived: Lived):
    driver, _ = replayed(lived)
    span = Span(lived.served_from, lived.end)
    theirs = lived.app.source(lived.loop.name).examples(span, lived.loop.label, as_of=lived.end).predictions
    ours = driver.log.examples(span, lived.loop.label, as_of=lived.end).predictions
    assert theirs.id.tolist() == ours.id.tolist()
    assert theirs.arm.tolist() == ours.arm.tolist()
    assert theirs.version.tolist() == ours.version.tolist()
    assert set(ours.arm.tolist()) >= {"champion", "canary"}
    assert np.allclose(theirs.answer, ours.answer, rtol=0, atol=1e-12)


@pytest.mark.slow
def test_every_outcome_that_was_acknowledged_is_in_the_lake_once(live):
    running, loop = live
    assert running.sender is not None
    reported = [r for r in running.app.lake.tail(loop.name, 10**9, table="feedback") if r["at"] >= QUICK.live]
    mine = {id for row, id in running.sender.sent.ids.items()}
    streamed = [r["prediction"] for r in reported if r["prediction"] in mine]
    assert len(streamed) == len(set(streamed)) == running.sender.sent.feedback
