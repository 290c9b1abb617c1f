from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from leaven.events.log import LogUnavailable
from leaven.storage.frames import EventRefused, decode_segment
from leaven.storage.writers import OPEN, SEALED, stored_writers

from .builders import a_label, a_log, a_prediction, sealed, until_sealed


def logged(folder):
    """Ids of all events in all segments of a log, in order."""
    return [
        event.id
        for writer in stored_writers(folder / "wal")
        for segment in (*writer.segments(SEALED), *writer.segments(OPEN))
        for event in decode_segment(segment.path.read_bytes()).events
    ]


def test_an_acknowledged_event_is_in_the_file_already(tmp_path):
    log = a_log(tmp_path, seal_seconds=60)
    for i in range(5):
        log.append_durably([a_label(f"p{i}", id=f"f{i}")]).result(10)
        assert logged(tmp_path) == [f"f{j}" for j in range(i + 1)]
    log.close()


@pytest.mark.parametrize("durability", ["fsync", "os"])
def test_events_of_many_threads_are_all_kept_in_groups(tmp_path, durability):
    log = a_log(tmp_path, durability=durability)

    def send(name):
        for i in range(100):
            assert log.append(a_prediction(f"{name}-p{i}"))
            log.append_durably([a_label(id=f"{name}-f{i}")]).result(10)

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
    log.append_durably([a_label()]).result(10)
    until_sealed(tmp_path / "wal")
    assert len(sealed(tmp_path / "wal")) == 1
    time.sleep(0.1)
    assert len(sealed(tmp_path / "wal")) == 1  # an idle log makes no segments
    log.close()


def test_segments_are_sealed_by_size(tmp_path):
    log = a_log(tmp_path, seal_seconds=60, seal_bytes=500)
    for i in range(20):
        log.append_durably([a_label(f"p{i}")]).result(10)
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
        log.append_durably([a_label()]).result(10)


def test_a_full_queue_drops_predictions_counted_and_refuses_feedback(tmp_path):
    log = a_log(tmp_path, queue_events=10)
    with log._changed:  # the writer cannot take anything meanwhile
        taken = [log.append(a_prediction(f"p{i}")) for i in range(15)]
        refused = log.append_durably([a_label()])
    assert taken == [True] * 10 + [False] * 5
    with pytest.raises(LogUnavailable, match="10 events wait"):
        refused.result(10)
    log.close()
    assert (log.counters()["dropped"], log.counters()["refused"]) == (5, 1)
    assert len(logged(tmp_path)) == 10


def test_feedback_that_cannot_be_written_is_refused_whole(tmp_path):
    log = a_log(tmp_path)
    with pytest.raises(EventRefused):
        log.append_durably([a_label("a"), a_label("b", source="\ud800")]).result(10)
    assert not log.append(a_prediction(unit="\ud800"))
    log.append_durably([]).result(10)
    log.close()
    assert logged(tmp_path) == []


def test_a_caller_who_gives_up_waiting_disturbs_nobody(tmp_path):
    log = a_log(tmp_path)
    with log._changed:
        given_up, waited = log.append_durably([a_label("a")]), log.append_durably([a_label("b")])
        assert given_up.cancel()
    waited.result(10)
    log.close()


FULL_DISK = """
import resource, signal, sys, time
from pathlib import Path
from storage.builders import a_label, a_log, a_prediction
from leaven.events.log import LogUnavailable

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
log = a_log(Path(sys.argv[1]), seal_seconds=60)
log.append_durably([a_label(id="before")]).result(10)
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, resource.RLIM_INFINITY))  # every file is full at 2000 bytes
failed = log.append_durably([a_label(id=f"during-{i}", source="x" * 50) for i in range(100)])
assert isinstance(failed.exception(10), LogUnavailable), failed
assert not log.append(a_prediction("dropped"))
refused = log.append_durably([a_label(id="refused")])
assert isinstance(refused.exception(10), LogUnavailable)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
deadline = time.monotonic() + 20
while log.append_durably([a_label(id="after")]).exception(10) is not None:
    assert time.monotonic() < deadline
    time.sleep(0.1)
log.close()
counts = log.counters()
assert counts["failures"] >= 1 and counts["dropped"] == 1 and counts["refused"] >= 101, counts
"""


def test_a_full_disk_closes_the_log_and_a_new_segment_opens_it_again(tmp_path):
    """The disk is full for real: the kernel refuses to let the segment grow."""
    tests = str(Path(__file__).parent.parent)
    ran = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path)], env={"PYTHONPATH": tests}, capture_output=True, text=True,
        timeout=60, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    kept = logged(tmp_path)
    assert kept[0] == "before"
    assert kept[-1] == "after"
    assert "refused" not in kept
    assert len(sealed(tmp_path / "wal")) == 2


def test_a_process_that_only_logs_loads_no_engine():
    asked = (
        "import sys, leaven.storage.wal, leaven.storage.writers\n"
        "print(sorted({'duckdb', 'deltalake', 'arro3', 'sqlalchemy'} & set(sys.modules)))"
    )
    ran = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True)
    assert ran.stdout == "[]\n"
