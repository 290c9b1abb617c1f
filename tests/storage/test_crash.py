"""What is left when a process is killed at any moment: every acknowledged event once, and nothing torn."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from collections import Counter

import pytest

from leaven.storage.flusher import Flusher
from leaven.storage.writers import QUARANTINE

from .builders import ENVIRONMENT, a_lake, ids

WRITER = """
import sys, threading
from pathlib import Path
from storage.builders import StandingClock, a_label, a_prediction
from leaven.clock import SystemClock
from leaven.storage.wal import WriteAheadLog

folder, name = Path(sys.argv[1]), sys.argv[2]
log = WriteAheadLog(folder / "wal", clock=SystemClock(), seal_seconds=0.05)
acknowledged = (folder / f"acknowledged-{name}").open("ab", buffering=0)

def serve(client):
    i = 0
    while True:
        id = f"{name}-{client}-{i}"
        log.append(a_prediction(id, unit=id))
        log.append_durably([a_label(id, float(i), id=id)]).result(30)
        acknowledged.write(f"{id}\\n".encode())  # one write call: whole or not at all, and kept though we are killed
        i += 1

for client in range(8):
    threading.Thread(target=serve, args=(client,), daemon=True).start()
threading.Event().wait()
"""
FLUSHER = """
import sys, threading
from pathlib import Path
from leaven.storage import delta, flusher
from leaven.storage.lake import Lake

delta.CHECKPOINT_EVERY, flusher.COMPACT_EVERY = 7, 5  # so that kills meet checkpoints and compactions too
folder = Path(sys.argv[1])
flushing = flusher.Flusher(folder / "wal", Lake(str(folder / "lake")))
flushing.run(threading.Event(), every=0.01)
"""


@pytest.fixture
def start(tmp_path):
    """Start a process of the scripts above; what still runs in the end is killed."""
    started = []

    def run(script, *arguments):
        with (tmp_path / "stderr").open("ab") as errors:
            process = subprocess.Popen(
                [sys.executable, "-c", script, str(tmp_path), *arguments], env=ENVIRONMENT, stderr=errors
            )
        started.append(process)
        return process

    yield run
    for process in started:
        process.kill()
        process.wait()


def wait_for(happened, *, seconds=60.0):
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def acknowledged(folder):
    return [line for path in folder.glob("acknowledged-*") for line in path.read_text().split("\n")[:-1]]


def check(folder):
    """Flush what is left and compare: each acknowledged event once, numbered without gaps."""
    lake = a_lake(folder)
    flusher = Flusher(folder / "wal", lake)
    flusher.flush_once()
    assert not (folder / "wal" / QUARANTINE).exists()
    told = acknowledged(folder)
    assert len(told) > 50
    for name in ("feedback", "predictions"):
        rows = lake.tail("flights", 10**7, table=name)
        assert [row["seq"] for row in rows] == list(range(1, len(rows) + 1))
        counted = Counter(ids(rows))
        assert max(counted.values()) == 1
        if name == "feedback":
            assert set(told) <= set(counted)
            assert len(counted) <= len(told) + 8 * len(list(folder.glob("acknowledged-*")))  # at most those in flight
    lake.close()


def test_kill_a_writer_under_load(tmp_path, start):
    for name in ("a", "b"):
        writer = start(WRITER, name)
        wait_for(lambda name=name: (tmp_path / f"acknowledged-{name}").exists())
        time.sleep(0.4)
        writer.send_signal(signal.SIGKILL)
        writer.wait()
    check(tmp_path)


def kill_flushers(tmp_path, start, *, kills, seed):
    chance = random.Random(seed)
    writer = start(WRITER, "a")
    lake = tmp_path / "lake"
    for _ in range(kills):
        flusher = start(FLUSHER)
        seen = len(list(lake.rglob("*.json")))
        wait_for(lambda seen=seen: len(list(lake.rglob("*.json"))) > seen)  # it began: now at any moment
        time.sleep(chance.uniform(0, 0.3))
        flusher.send_signal(signal.SIGKILL)
        flusher.wait()
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    check(tmp_path)


def test_kill_the_flusher_at_random_moments(tmp_path, start):
    kill_flushers(tmp_path, start, kills=12, seed=7)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_kill_the_flusher_at_many_random_moments(tmp_path, start):
    kill_flushers(tmp_path, start, kills=60, seed=8)
