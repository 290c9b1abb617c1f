from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from leaven.events.log import LogUnavailable
from leaven.storage.flusher import Flusher
from leaven.storage.frames import EventRefused, decode_segment
from leaven.storage.writers import OPEN, SEALED, stored_writers

from .builders import ENVIRONMENT, a_label, a_lake, a_log, a_prediction, ids, sealed, until, until_sealed


def logged(folder):
    """Ids of all events in all segments of a log, in order."""
    return [
        event.id
        for writer in stored_writers(folder / "wal")
        for segment in (*writer.segments(SEALED), *writer.segments(OPEN))
        for event in decode_segment(segment.path.read_bytes()).events
    ]


@contextmanager
def warnings_of_threads():
    """An exception that ends a thread is what the test is about, not one of pytest's warnings."""
    before, threading.excepthook = threading.excepthook, lambda arguments: None
    try:
        yield
    finally:
        threading.excepthook = before


def test_an_acknowledged_event_is_in_the_file_already(tmp_path):
    log = a_log(tmp_path, seal_seconds=60)
    for i in range(5):
        log.append_durably([a_label(f"p{i}", id=f"f{i}")]).result(60)
        assert logged(tmp_path) == [f"f{j}" for j in range(i + 1)]
    log.close()


@pytest.mark.parametrize("durability", ["fsync", "os"])
def test_events_of_many_threads_are_all_kept_in_groups(tmp_path, durability):
    log = a_log(tmp_path, durability=durability)

    def send(name):
        for i in range(100):
            assert log.append(a_prediction(f"{name}-p{i}"))
            log.append_durably([a_label(id=f"{name}-f{i}")]).result(60)

    threads = [threading.Thread(target=send, args=(name,)) for name in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    log.close()
    kept = logged(tmp_path)
    assert len(kept) == len(set(kept)) == 1600
    counts = log.counters()
    assert (counts["predictions"], counts["feedback"], counts["dropped"]) == (800, 800, 0)
    assert counts["groups"] < 900  # far fewer than events: those who come together are written together


def test_segments_are_sealed_by_age(tmp_path):
    log = a_log(tmp_path, seal_seconds=0.05)
    log.append_durably([a_label()]).result(60)
    until_sealed(tmp_path / "wal")
    assert len(sealed(tmp_path / "wal")) == 1
    time.sleep(0.1)
    assert len(sealed(tmp_path / "wal")) == 1  # an idle log makes no segments
    log.close()


def test_segments_are_sealed_by_size(tmp_path):
    log = a_log(tmp_path, seal_seconds=60, seal_bytes=500)
    for i in range(20):
        log.append_durably([a_label(f"p{i}")]).result(60)
    assert len(sealed(tmp_path / "wal")) >= 2
    log.close()


def test_closing_keeps_what_is_queued_and_refuses_what_comes_later(tmp_path):
    log = a_log(tmp_path, seal_seconds=60)
    for i in range(1000):
        assert log.append(a_prediction(f"p{i}"))
    log.close()
    log.close()
    assert len(logged(tmp_path)) == 1000
    assert len(sealed(tmp_path / "wal")) == 1
    assert not log.append(a_prediction())
    with pytest.raises(LogUnavailable, match="closed"):
        log.append_durably([a_label()]).result(60)


def test_a_full_queue_drops_predictions_counted_and_refuses_feedback(tmp_path):
    log = a_log(tmp_path, queue_events=10)
    with log._changed:  # the writer cannot take anything meanwhile
        taken = [log.append(a_prediction(f"p{i}")) for i in range(15)]
        refused = log.append_durably([a_label()])
    assert taken == [True] * 10 + [False] * 5
    with pytest.raises(LogUnavailable, match="10 events wait"):
        refused.result(60)
    log.close()
    assert (log.counters()["dropped"], log.counters()["refused"]) == (5, 1)
    assert len(logged(tmp_path)) == 10


def test_feedback_that_cannot_be_written_is_refused_whole(tmp_path):
    log = a_log(tmp_path)
    with pytest.raises(EventRefused):
        log.append_durably([a_label("a"), a_label("b", source="\ud800")]).result(60)
    assert not log.append(a_prediction(unit="\ud800"))
    log.append_durably([]).result(60)
    log.close()
    assert logged(tmp_path) == []


def test_a_caller_who_gives_up_waiting_disturbs_nobody(tmp_path):
    log = a_log(tmp_path)
    with log._changed:
        given_up, waited = log.append_durably([a_label("a")]), log.append_durably([a_label("b")])
        assert given_up.cancel()
    waited.result(60)
    log.close()


FULL_DISK = """
import resource, signal, sys, time
from pathlib import Path
from storage.builders import a_label, a_log, a_prediction
from leaven.events.log import LogUnavailable

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
log = a_log(Path(sys.argv[1]), seal_seconds=60)
log.append_durably([a_label(id="before")]).result(60)
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, resource.RLIM_INFINITY))  # every file is full at 2000 bytes
failed = log.append_durably([a_label(id=f"during-{i}", source="x" * 50) for i in range(100)])
assert isinstance(failed.exception(60), LogUnavailable), failed
assert "File too large" in log.trouble
assert not log.append(a_prediction("dropped"))
refused = log.append_durably([a_label(id="refused")])
assert isinstance(refused.exception(60), LogUnavailable)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
deadline = time.monotonic() + 60
while log.trouble:  # it finds out by itself, though nobody sends anything
    assert time.monotonic() < deadline
    time.sleep(0.1)
log.append_durably([a_label(id="after")]).result(60)
log.close()
counts = log.counters()
assert counts["failures"] >= 1 and counts["dropped_disk"] == 1 and counts["refused_disk"] == 101, counts
"""


def test_a_full_disk_closes_the_log_and_a_new_segment_opens_it_again(tmp_path):
    """The disk is full for real: the kernel refuses to let the segment grow."""
    ran = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path)], env=ENVIRONMENT,
        capture_output=True, text=True, timeout=180, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    assert logged(tmp_path) == ["before", "after"]  # what was refused is not there either
    assert len(sealed(tmp_path / "wal")) == 2


def test_a_log_that_cannot_make_its_folder_refuses_and_begins_when_it_can(tmp_path):
    in_the_way = tmp_path / "wal"
    in_the_way.write_text("a file")
    log = a_log(tmp_path)
    assert "wal" in log.trouble
    assert not log.append(a_prediction())
    with pytest.raises(LogUnavailable, match="wal"):
        log.append_durably([a_label()]).result(60)
    in_the_way.unlink()
    until(lambda: not log.trouble)
    log.append_durably([a_label(id="kept")]).result(60)
    log.close()
    assert logged(tmp_path) == ["kept"]


def test_a_folder_that_is_replaced_under_a_living_writer_is_not_written_to_again(tmp_path):
    """As when a disk goes and is mounted anew: the lock is on the old one, so the flusher takes the writer for dead."""
    log = a_log(tmp_path)
    log.append_durably([a_label(id="before")]).result(60)
    until_sealed(tmp_path / "wal")
    (tmp_path / "wal").rename(tmp_path / "gone")
    shutil.copytree(tmp_path / "gone", tmp_path / "wal")
    lake = a_lake(tmp_path)
    assert Flusher(tmp_path / "wal", lake).flush_once() == 1
    told = []
    while not told:  # refused until it has found out and made a folder of its own
        if log.append_durably([a_label(id="after")]).exception(60) is None:
            told.append("after")
    (writer,) = stored_writers(tmp_path / "wal")
    assert writer.lives()
    log.append_durably([a_label(id="later")]).result(60)
    log.close()
    Flusher(tmp_path / "wal", lake).flush_once()
    assert ids(lake.tail("flights", 9, table="feedback")) == ["before", "after", "later"]
    lake.close()


def test_a_segment_that_is_removed_while_it_is_written_acknowledges_nothing_more(tmp_path):
    log = a_log(tmp_path, seal_seconds=60)
    log.append_durably([a_label(id="before")]).result(60)
    (segment,) = (tmp_path / "wal").rglob("*.open")
    segment.unlink()
    assert isinstance(log.append_durably([a_label(id="lost")]).exception(60), LogUnavailable)
    until(lambda: not log.trouble)
    log.append_durably([a_label(id="after")]).result(60)
    log.close()
    assert logged(tmp_path) == ["after"]


@pytest.fixture
def slow_disk(monkeypatch):
    """Each sync takes a twentieth of a second."""
    fdatasync = os.fdatasync

    def slowly(handle):
        time.sleep(0.05)
        fdatasync(handle)

    monkeypatch.setattr(os, "fdatasync", slowly)


def test_all_who_wait_while_a_slow_disk_is_busy_share_the_next_sync(tmp_path, slow_disk):
    """Predictions whose reply waits for the log cost a sync per group, not one each."""
    log = a_log(tmp_path, seal_seconds=60)
    began = time.monotonic()
    with ThreadPoolExecutor(64) as pool:
        kept = [pool.submit(log.append_durably([a_prediction(f"p{i}")]).result, 60) for i in range(640)]
        for each in kept:
            each.result()
    syncs, took = log.counters()["syncs"], time.monotonic() - began
    log.close()
    assert len(logged(tmp_path)) == 640
    assert syncs < 64
    assert took < 640 * 0.05  # what a sync for each would take
    assert log.counters()["longest_sync_us"] >= 50_000


def test_a_disk_that_hangs_fills_the_queue_to_its_bounds_and_no_further(tmp_path, monkeypatch):
    free, fdatasync = threading.Event(), os.fdatasync
    log = a_log(tmp_path, seal_seconds=60, queue_events=100, queue_bytes=10_000)
    monkeypatch.setattr(os, "fdatasync", lambda handle: (free.wait(120), fdatasync(handle)))
    under_way = log.append_durably([a_label(id="under way")])
    until(lambda: log.counters()["queued"] == 0)
    taken = [log.append(a_prediction(f"p{i}")) for i in range(200)]
    with pytest.raises(LogUnavailable, match="wait to be written already"):
        log.append_durably([a_label()]).result(60)
    counts = log.counters()
    assert counts["dropped_full"] == 200 - sum(taken)
    assert 10 < sum(taken) < 100  # here the bytes count, not the events
    assert not under_way.done()
    free.set()
    under_way.result(60)
    log.close()
    assert len(logged(tmp_path)) == 1 + sum(taken)


def test_a_sync_that_fails_refuses_what_waited_and_keeps_what_was_acknowledged_before(tmp_path, monkeypatch):
    log, fdatasync, broken = a_log(tmp_path, seal_seconds=60), os.fdatasync, []

    def sync(handle):
        if broken:
            raise OSError(5, "Input/output error")
        fdatasync(handle)

    log.append_durably([a_label(id="before")]).result(60)
    monkeypatch.setattr(os, "fdatasync", sync)
    broken.append(True)
    with pytest.raises(LogUnavailable, match="Input/output error"):
        log.append_durably([a_label(id="during")]).result(60)
    time.sleep(0.1)
    assert log.trouble  # the disk is tried before anything is taken again
    broken.clear()
    until(lambda: not log.trouble)
    log.append_durably([a_label(id="after")]).result(60)
    log.close()
    assert [id for id in logged(tmp_path) if id != "during"] == ["before", "after"]
    assert len(sealed(tmp_path / "wal")) == 2  # nothing more went into the segment whose sync failed


def test_an_error_that_nobody_expected_leaves_nobody_waiting(tmp_path, monkeypatch):
    log = a_log(tmp_path)
    monkeypatch.setattr("leaven.storage.stream.SegmentStream.write", lambda stream, frames: 1 / 0)
    with warnings_of_threads(), pytest.raises(LogUnavailable, match="ZeroDivisionError"):
        log.append_durably([a_label()]).result(60)
    with pytest.raises(LogUnavailable, match="ZeroDivisionError"):
        log.append_durably([a_label()]).result(60)
    log.close()


def test_a_process_that_only_logs_loads_no_engine():
    asked = (
        "import sys, leaven.storage.wal, leaven.storage.writers\n"
        "print(sorted({'duckdb', 'deltalake', 'arro3', 'sqlalchemy'} & set(sys.modules)))"
    )
    ran = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True)
    assert ran.stdout == "[]\n"
