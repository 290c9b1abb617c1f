"""A replay is worth something only if it decides as the running system does."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

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

DAYS_LIVE = 3.5
END = QUICK.live + timedelta(days=DAYS_LIVE)


def ticks(loop: Loop) -> list[datetime]:
    count = int(timedelta(days=DAYS_LIVE) / loop.tick_length)
    return [QUICK.live + (n + 1) * loop.tick_length for n in range(count)]


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


def past_of(running: LiveFlights, loop: Loop) -> tuple[History, np.ndarray]:
    """What the running system logged, as a file of the past would have it, and the ids it gave."""
    served = (
        running.app.source(loop.name)
        .examples(Span(datetime(2013, 1, 1, tzinfo=UTC), END), loop.label, as_of=END)
        .predictions
    )
    row = {id: n for n, id in enumerate(served.id.tolist())}
    label_at = np.full(len(served), np.datetime64("NaT", "us"))
    outcome = np.full(len(served), np.nan)
    for report in running.app.lake.tail(loop.name, 10**9, table="feedback"):
        n = row[report["prediction"]]
        label_at[n] = np.datetime64(report["at"].astimezone(UTC).replace(tzinfo=None), "us")
        outcome[n] = report["value"]
    return History(served.at, label_at, outcome, served.unit, dict(served.features)), served.id


def replayed(running: LiveFlights, loop: Loop) -> tuple[ReplayDriver, list[Decision]]:
    history, ids = past_of(running, loop)
    driver = ReplayDriver(loop, history, log=HistoryLog(history, ids=ids))
    driver.enter(QUICK.first_model)
    driver.step(QUICK.first_model)
    driver.log.serve(QUICK.live, None, lambda version: pytest.fail("nothing was served then"))
    for now in (QUICK.live, *ticks(loop)):
        driver.step(now)
    with driver.database.read() as connection:
        return driver, decisions(connection, loop.name)


def test_the_same_stream_is_decided_alike_live_and_in_replay(live):
    running, loop = live
    with running.app.database.read() as connection:
        lived = decisions(connection, loop.name)
    _, replays = replayed(running, loop)
    facts = [(d.id, d.at, d.kind, d.outcome, d.version, d.why, d.evidence) for d in lived]
    assert ("trial", "promote", 2) in [(d.kind, d.outcome, d.version) for d in lived]
    assert [fact[:6] for fact in facts] == [(d.id, d.at, d.kind, d.outcome, d.version, d.why) for d in replays]


def test_the_same_answers_are_served_live_and_in_replay(live):
    running, loop = live
    driver, _ = replayed(running, loop)
    span = Span(QUICK.live, END)
    theirs = running.app.source(loop.name).examples(span, loop.label, as_of=END).predictions
    ours = driver.log.examples(span, loop.label, as_of=END).predictions
    assert theirs.id.tolist() == ours.id.tolist()
    assert theirs.arm.tolist() == ours.arm.tolist()
    assert theirs.version.tolist() == ours.version.tolist()
    assert np.allclose(theirs.answer, ours.answer, rtol=0, atol=1e-12)


def test_every_outcome_that_was_acknowledged_is_in_the_lake_once(live):
    running, loop = live
    assert running.sender is not None
    reported = [r for r in running.app.lake.tail(loop.name, 10**9, table="feedback") if r["at"] >= QUICK.live]
    mine = {id for row, id in running.sender.sent.ids.items()}
    streamed = [r["prediction"] for r in reported if r["prediction"] in mine]
    assert len(streamed) == len(set(streamed)) == running.sender.sent.feedback
