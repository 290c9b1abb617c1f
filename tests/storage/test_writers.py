from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from datetime import timedelta

import pytest

from leaven.storage.flusher import Flusher
from leaven.storage.writers import backlog, watermark

from .builders import (
    ENVIRONMENT,
    NOON,
    StandingClock,
    a_label,
    a_lake,
    a_log,
    a_prediction,
    ids,
    minutes,
    until,
    until_sealed,
)

MICROSECOND = timedelta(microseconds=1)


def test_an_empty_log_can_be_read_up_to_now(tmp_path):
    assert watermark(tmp_path / "wal", NOON) == NOON


def test_an_event_holds_the_watermark_back_until_it_is_in_the_lake(tmp_path):
    clock, wal = StandingClock(), tmp_path / "wal"
    log = a_log(tmp_path, clock, seal_seconds=60)
    flusher = Flusher(wal, a_lake(tmp_path))
    log.append(a_prediction(at=NOON))
    clock.time = minutes(10)
    before = NOON - MICROSECOND
    assert watermark(wal, clock.now()) == before  # queued or written
    assert flusher.flush_once() == 0
    assert watermark(wal, clock.now()) == before  # in an open segment
    log.close()
    assert watermark(wal, clock.now()) == before  # sealed
    assert flusher.flush_once() == 1
    assert watermark(wal, clock.now()) == clock.now()


def test_a_living_writer_with_nothing_unread_does_not_hold_it_back(tmp_path):
    clock, wal = StandingClock(), tmp_path / "wal"
    log = a_log(tmp_path, clock)
    log.append_durably([a_label()]).result(60)
    until_sealed(wal)
    Flusher(wal, a_lake(tmp_path)).flush_once()
    clock.time = minutes(10)
    assert watermark(wal, clock.now()) == minutes(10)
    log.append(a_prediction(at=minutes(10)))
    assert watermark(wal, minutes(20)) == minutes(10) - MICROSECOND
    log.close()


def test_the_oldest_moment_counts_whatever_the_order(tmp_path):
    log = a_log(tmp_path, StandingClock(minutes(9)), seal_seconds=60)
    for minute in (5, 3, 7):
        log.append_durably([a_label(at=NOON, received=minutes(minute))]).result(60)
    assert watermark(tmp_path / "wal", minutes(9)) == minutes(3) - MICROSECOND
    log.close()
    assert watermark(tmp_path / "wal", minutes(9)) == minutes(3) - MICROSECOND


KILLED = """
import os, signal, sys
from pathlib import Path
from storage.builders import StandingClock, a_label, a_log, minutes
log = a_log(Path(sys.argv[1]), StandingClock(minutes(3)), seal_seconds=60)
log.append_durably([a_label(at=minutes(3))]).result(60)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_writer_left_open_holds_it_back_and_is_flushed(tmp_path):
    subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path)],
        env=ENVIRONMENT,
        check=False,
    )
    wal, lake = tmp_path / "wal", a_lake(tmp_path)
    assert backlog(wal).living == 0
    assert backlog(wal).segments == 1
    assert watermark(wal, minutes(60)) == minutes(3) - MICROSECOND
    assert Flusher(wal, lake).flush_once() == 1
    assert watermark(wal, minutes(60)) == minutes(60)
    assert list(wal.iterdir()) == []  # the dead writer's folder is gone


@pytest.mark.parametrize("seed", range(4))
def test_no_unread_event_is_ever_passed_whatever_the_clock_and_the_disk_do(tmp_path, monkeypatch, seed):
    """The clock is set back and forth, writes and syncs fail, segments are sealed and flushed, in any order."""
    chance, broken, write, sync = random.Random(seed), set(), os.write, os.fdatasync
    monkeypatch.setattr("leaven.storage.wal.RETRY_SECONDS", 0.01)

    def fail(what):
        if what in broken:
            raise OSError(5, f"no {what}")

    monkeypatch.setattr(os, "write", lambda handle, data: (fail("write"), write(handle, data))[1])
    monkeypatch.setattr(os, "fdatasync", lambda handle: (fail("sync"), sync(handle))[1])
    clock, wal, lake = StandingClock(), tmp_path / "wal", a_lake(tmp_path)
    log, flusher = a_log(tmp_path, clock, seal_seconds=0.02), Flusher(wal, lake)
    kept = {}

    def unread():
        read = {row["id"] for name in ("feedback", "predictions") for row in lake.tail("flights", 10**4, table=name)}
        return [at for id, at in kept.items() if id not in read]

    for step in range(60):
        match chance.choice(["set", "log", "log", "log", "break", "mend", "wait", "flush"]):
            case "set":
                clock.time = minutes(chance.uniform(-600, 600))
            case "log":
                at = clock.time - timedelta(seconds=chance.uniform(0, 5))  # it began before somebody set the clock
                if log.append_durably([a_label(id=f"e{step}", at=at)]).exception(60) is None:
                    kept[f"e{step}"] = at
            case "break":
                broken.add(chance.choice(["write", "sync"]))
            case "mend":
                broken.clear()
            case "wait":
                time.sleep(0.03)
            case "flush":
                flusher.flush_once()
        assert watermark(wal, minutes(1000)) < min(unread(), default=minutes(1001))
    broken.clear()
    until(lambda: not log.trouble)
    log.close()
    flusher.flush_once()
    assert unread() == []
    assert watermark(wal, minutes(1000)) == minutes(1000)
    rows = lake.tail("flights", 10**4, table="feedback")
    assert [row["seq"] for row in rows] == list(range(1, len(rows) + 1))
    assert [id for id in ids(rows) if id in kept] == list(kept)  # in the order in which they were acknowledged
    lake.close()
