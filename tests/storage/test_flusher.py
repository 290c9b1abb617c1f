from __future__ import annotations

import json
import os
import shutil
import struct
import threading
import time
from zlib import crc32

import msgspec
import pytest
from deltalake import DeltaTable

from leaven.storage.delta import SEQ, LeaseNotHeld
from leaven.storage.flusher import Flusher, FlushIncomplete
from leaven.storage.frames import HEADER, MAGIC, encode_frame
from leaven.storage.place import Folder
from leaven.storage.repair import repair
from leaven.storage.writers import QUARANTINE, stored_writers

from .builders import a_label, a_lake, a_log, a_prediction, a_source, ids, minutes, seal, sealed, until_sealed


def a_flusher(folder, **other):
    return Flusher(folder / "wal", a_lake(folder), **other)


def table(folder, name="predictions", loop="flights"):
    return DeltaTable(folder / "lake" / loop / name)


def rows(folder, name="predictions", loop="flights"):
    return a_lake(folder).tail(loop, 10**6, table=name)


def head(folder, name="predictions"):
    """The newest commit of a table."""
    return max((folder / "lake" / "flights" / name / "_delta_log").glob("*.json"))


def test_a_sealed_segment_becomes_one_commit_per_table_and_goes(tmp_path):
    seal(tmp_path, a_prediction("p1"), a_label("p1"), a_prediction("p2"), a_prediction("o1", loop="other"))
    flusher = a_flusher(tmp_path)
    writer = stored_writers(tmp_path / "wal")[0].id
    assert flusher.flush_once() == 4
    assert ids(rows(tmp_path)) == ["p1", "p2"]
    assert [row["seq"] for row in rows(tmp_path)] == [1, 2]
    assert [row["prediction"] for row in rows(tmp_path, "feedback")] == ["p1"]
    assert ids(rows(tmp_path, loop="other")) == ["o1"]
    for loop, name in (("flights", "predictions"), ("flights", "feedback"), ("other", "predictions")):
        assert table(tmp_path, name, loop).transaction_version(writer) == 1
    assert table(tmp_path).transaction_version(SEQ) == 2
    assert table(tmp_path).version() == 1  # made by version 0
    assert sealed(tmp_path / "wal") == []
    assert flusher.flush_once() == 0


def test_several_segments_share_a_commit_that_carries_the_highest(tmp_path):
    log = a_log(tmp_path, seal_bytes=1)  # each group is a segment
    for i in range(5):
        log.append_durably([a_prediction(f"p{i}")]).result(60)
    until_sealed(tmp_path / "wal")
    assert len(sealed(tmp_path / "wal")) == 5
    assert a_flusher(tmp_path).flush_once() == 5
    assert table(tmp_path).transaction_version(log.writer) == 5
    assert table(tmp_path).version() == 1
    log.close()


def test_segments_that_were_committed_and_not_removed_are_not_committed_again(tmp_path):
    """As after a kill or a power cut between commit and removal, with newer segments beside them."""
    log = a_log(tmp_path, seal_bytes=1)
    for i in range(3):
        log.append_durably([a_prediction(f"p{i}"), a_label(f"p{i}")]).result(60)
    until_sealed(tmp_path / "wal")
    kept = [(path, path.read_bytes()) for path in sealed(tmp_path / "wal")]
    assert a_flusher(tmp_path).flush_once() == 6
    log.append_durably([a_prediction("p3")]).result(60)
    until_sealed(tmp_path / "wal")
    for path, content in kept:
        path.write_bytes(content)
    assert a_flusher(tmp_path).flush_once() == 1
    assert ids(rows(tmp_path)) == ["p0", "p1", "p2", "p3"]
    assert len(rows(tmp_path, "feedback")) == 3
    log.close()


def test_one_table_of_two_committed_before_a_kill(tmp_path):
    seal(tmp_path, a_prediction("p1"), a_label("p1"))
    (path,) = sealed(tmp_path / "wal")
    content = path.read_bytes()
    a_flusher(tmp_path).flush_once()
    shutil.rmtree(tmp_path / "lake" / "flights" / "feedback")
    path.parent.mkdir()
    path.write_bytes(content)
    assert a_flusher(tmp_path).flush_once() == 1
    assert (len(rows(tmp_path)), len(rows(tmp_path, "feedback"))) == (1, 1)


def test_a_table_that_cannot_take_its_events_keeps_its_segments_and_stops_no_other(tmp_path, monkeypatch):
    blocked = tmp_path / "lake" / "flights" / "predictions"
    blocked.parent.mkdir(parents=True)
    blocked.write_text("a file where the folder of the table should be")
    monkeypatch.setattr("leaven.storage.flusher.BATCH_BYTES", 1)  # each segment is a batch of its own
    seal(tmp_path, a_prediction("p1"), a_label("p1"))
    seal(tmp_path, a_prediction("p2"))
    seal(tmp_path, a_prediction("o1", loop="other"))
    flusher = a_flusher(tmp_path)
    with pytest.raises(FlushIncomplete, match="flights/predictions"):
        flusher.flush_once()
    assert ids(rows(tmp_path, loop="other")) == ["o1"]
    assert len(rows(tmp_path, "feedback")) == 1
    assert len(sealed(tmp_path / "wal")) == 2
    blocked.unlink()
    assert flusher.flush_once() == 2
    assert sorted(ids(rows(tmp_path))) == ["p1", "p2"]
    assert len(rows(tmp_path, "feedback")) == 1


def test_a_segment_that_cannot_be_read_holds_back_its_own_writer_alone(tmp_path):
    log = a_log(tmp_path, seal_bytes=1)
    for i in range(3):
        log.append_durably([a_prediction(f"p{i}")]).result(60)
    until_sealed(tmp_path / "wal")
    broken = sealed(tmp_path / "wal")[1]
    kept = broken.read_bytes()
    broken.unlink()
    broken.mkdir()  # reading it is an error of the system's
    seal(tmp_path, a_prediction("of another"))
    flusher = a_flusher(tmp_path)
    with pytest.raises(FlushIncomplete, match=log.writer):
        flusher.flush_once()
    assert sorted(ids(rows(tmp_path))) == ["of another", "p0"]
    broken.rmdir()
    broken.write_bytes(kept)
    assert flusher.flush_once() == 2
    assert sorted(ids(rows(tmp_path))) == ["of another", "p0", "p1", "p2"]
    log.close()


def test_after_a_failure_later_segments_of_the_writer_wait_for_the_earlier(tmp_path, monkeypatch):
    """Else the transaction of a later segment would say that the earlier are in."""
    log = a_log(tmp_path, seal_bytes=1)
    for i in range(3):
        log.append_durably([a_prediction(f"p{i}")]).result(60)
    log.close()
    monkeypatch.setattr("leaven.storage.flusher.BATCH_BYTES", 1)
    flusher = a_flusher(tmp_path)
    calls = iter([OSError("the disk is busy")])
    append = type(flusher._lake.table("flights", "predictions")).append

    def fail_once(self, *given, **named):
        for error in calls:
            raise error
        return append(self, *given, **named)

    monkeypatch.setattr("leaven.storage.delta.EventTable.append", fail_once)
    with pytest.raises(FlushIncomplete, match="the disk is busy"):
        flusher.flush_once()
    assert flusher.flush_once() == 3
    assert ids(rows(tmp_path)) == ["p0", "p1", "p2"]


def test_nothing_is_committed_without_the_lease(tmp_path):
    seal(tmp_path, a_prediction())
    with pytest.raises(LeaseNotHeld):
        a_flusher(tmp_path, hold=lambda: False).flush_once()
    assert len(sealed(tmp_path / "wal")) == 1
    assert a_flusher(tmp_path).flush_once() == 1


def test_what_is_no_event_goes_to_quarantine_and_blocks_nothing(tmp_path):
    seal(
        tmp_path,
        a_prediction("good"),
        a_prediction("bad", loop="../../etc"),
        a_prediction("worse", at=minutes(-(2**25))),
    )
    (path,) = sealed(tmp_path / "wal")
    body = msgspec.msgpack.encode({"no": "event"})
    path.write_bytes(path.read_bytes() + struct.pack("<II", len(body), crc32(body)) + body)
    flusher = a_flusher(tmp_path)
    assert flusher.flush_once() == 1
    assert ids(rows(tmp_path)) == ["good"]
    assert flusher.counters()["quarantined"] == 3
    (kept,) = (tmp_path / "wal" / QUARANTINE).iterdir()
    reasons = [json.loads(line)["reason"] for line in kept.read_text().splitlines()]
    assert any("no name of a loop" in reason for reason in reasons)
    assert any("outside the years" in reason for reason in reasons)
    assert sealed(tmp_path / "wal") == []


def test_a_torn_tail_is_cut(tmp_path):
    wal = tmp_path / "wal" / "gone"
    wal.mkdir(parents=True)
    whole, torn = encode_frame(a_prediction("p1")), encode_frame(a_prediction("p2"))[:-3]
    (wal / "0000000001.open").write_bytes(HEADER.pack(MAGIC, 0) + whole + torn)
    flusher = a_flusher(tmp_path)
    assert flusher.flush_once() == 1
    assert flusher.counters()["torn_bytes"] == len(torn)
    assert not (tmp_path / "wal" / QUARANTINE).exists()


@pytest.mark.parametrize(
    "damage",
    [
        lambda commit, data: commit.write_bytes(b""),
        lambda commit, data: commit.write_bytes(commit.read_bytes()[:-30]),
        lambda commit, data: commit.write_bytes(bytes(len(commit.read_bytes()))),
        lambda commit, data: commit.write_bytes(commit.read_bytes().splitlines(keepends=True)[0]),
        lambda commit, data: os.truncate(data, 0),
        lambda commit, data: os.truncate(data, data.stat().st_size - 9),
        lambda commit, data: data.unlink(),
    ],
    ids=["commit empty", "commit torn", "commit zeros", "commit cut at a line", "data empty", "data torn", "data gone"],
)
def test_a_commit_that_a_power_cut_damaged_is_made_again(tmp_path, damage):
    """The segment is still there, as it is removed only after the syncs."""
    seal(tmp_path, a_prediction("p1"))
    a_flusher(tmp_path).flush_once()
    seal(tmp_path, a_prediction("p2"))
    (path,) = sealed(tmp_path / "wal")
    content = path.read_bytes()
    a_flusher(tmp_path).flush_once()
    actions = [json.loads(line) for line in head(tmp_path).read_text().splitlines()]
    (added,) = [action["add"]["path"] for action in actions if "add" in action]
    damage(head(tmp_path), tmp_path / "lake" / "flights" / "predictions" / added)
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    flusher = a_flusher(tmp_path)
    assert flusher.flush_once() == 1
    assert flusher.counters()["repaired"] == 1
    assert [(row["seq"], row["id"]) for row in rows(tmp_path)] == [(1, "p1"), (2, "p2")]


@pytest.mark.parametrize("damage", [lambda commit: commit.write_bytes(b""), lambda commit: commit.unlink()])
def test_what_came_after_a_damaged_commit_is_made_again_too(tmp_path, damage):
    """Where several commits are made before they are synced, the disk may have kept the last alone."""
    seal(tmp_path, a_prediction("p1"))
    a_flusher(tmp_path).flush_once()
    seal(tmp_path, a_prediction("p2"))
    (path,) = sealed(tmp_path / "wal")
    content = path.read_bytes()
    a_flusher(tmp_path).flush_once()
    lost = head(tmp_path)
    table(tmp_path).optimize.compact()
    assert head(tmp_path) > lost
    damage(lost)
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    assert a_flusher(tmp_path).flush_once() == 1
    assert [(row["seq"], row["id"]) for row in rows(tmp_path)] == [(1, "p1"), (2, "p2")]


def test_a_file_that_a_compaction_replaced_and_a_clean_up_took_away_is_no_damage(tmp_path):
    lake = a_lake(tmp_path)
    for i in range(3):
        seal(tmp_path, a_prediction(f"p{i}"))
        Flusher(tmp_path / "wal", lake).flush_once()
    assert lake.compact("flights") == 3
    assert lake.vacuum("flights", hours=0) == 3
    assert repair(Folder(tmp_path / "lake" / "flights" / "predictions")) == []


def test_a_table_whose_old_commits_were_cleaned_up_is_continued_after_a_restart(tmp_path, monkeypatch):
    monkeypatch.setattr("leaven.storage.delta.CHECKPOINT_EVERY", 4)
    lake = a_lake(tmp_path)
    flusher = Flusher(tmp_path / "wal", lake)
    for i in range(6):
        seal(tmp_path, a_prediction(f"p{i}"))
        flusher.flush_once()
    log = head(tmp_path).parent
    for path in log.iterdir():
        os.utime(path, (time.time() - 40 * 86_400,) * 2)
    lake.vacuum("flights")
    assert len(list(log.glob("*.json"))) < 4  # fewer than a restart looks back to
    seal(tmp_path, a_prediction("p6"))
    assert a_flusher(tmp_path).flush_once() == 1
    assert ids(rows(tmp_path)) == [f"p{i}" for i in range(7)]


@pytest.mark.parametrize("damage", [lambda path: os.truncate(path, 0), lambda path: os.truncate(path, 100)])
@pytest.mark.parametrize("what", ["*.checkpoint.parquet", "_last_checkpoint"])
def test_a_damaged_checkpoint_is_dropped(tmp_path, monkeypatch, damage, what):
    monkeypatch.setattr("leaven.storage.delta.CHECKPOINT_EVERY", 2)
    lake = a_lake(tmp_path)
    flusher = Flusher(tmp_path / "wal", lake)
    for i in range(4):
        seal(tmp_path, a_prediction(f"p{i}"))
        flusher.flush_once()
    log = head(tmp_path).parent
    for path in log.glob(what):
        damage(path)
        if path.name == "_last_checkpoint" and path.stat().st_size:
            path.write_bytes(path.read_bytes()[:10])
    seal(tmp_path, a_prediction("p4"))
    assert a_flusher(tmp_path).flush_once() == 1
    assert ids(rows(tmp_path)) == [f"p{i}" for i in range(5)]


def test_a_table_that_is_whole_is_left_alone(tmp_path):
    seal(tmp_path, a_prediction())
    a_flusher(tmp_path).flush_once()
    assert repair(Folder(tmp_path / "lake" / "flights" / "predictions")) == []
    assert repair(Folder(tmp_path / "lake" / "flights" / "nothing")) == []


def test_checkpoints_come_every_hundred_commits_and_the_table_opens_from_them(tmp_path, monkeypatch):
    monkeypatch.setattr("leaven.storage.delta.CHECKPOINT_EVERY", 3)
    flusher = a_flusher(tmp_path)
    for i in range(7):
        seal(tmp_path, a_prediction(f"p{i}"))
        flusher.flush_once()
    log = head(tmp_path).parent
    assert {path.name[:20] for path in log.glob("*.checkpoint.parquet")} == {f"{3:020d}", f"{6:020d}"}
    assert ids(rows(tmp_path)) == [f"p{i}" for i in range(7)]


def test_old_commits_go_once_a_checkpoint_covers_them(tmp_path, monkeypatch):
    monkeypatch.setattr("leaven.storage.delta.CHECKPOINT_EVERY", 3)
    lake = a_lake(tmp_path)
    flusher = Flusher(tmp_path / "wal", lake)
    for i in range(8):
        seal(tmp_path, a_prediction(f"p{i}"))
        flusher.flush_once()
    log = head(tmp_path).parent
    for path in log.iterdir():
        os.utime(path, (time.time() - 40 * 86_400,) * 2)
    marks = a_source(lake).marks()
    lake.vacuum("flights")
    assert len(list(log.glob("*.json"))) < 6
    assert ids(rows(tmp_path)) == [f"p{i}" for i in range(8)]
    assert a_source(a_lake(tmp_path)).marks() == marks
    seal(tmp_path, a_prediction("p8"))
    assert a_flusher(tmp_path).flush_once() == 1
    assert len(rows(tmp_path)) == 9


def test_a_busy_table_is_compacted_while_it_runs(tmp_path, monkeypatch):
    monkeypatch.setattr("leaven.storage.flusher.COMPACT_EVERY", 5)
    flusher = a_flusher(tmp_path)
    for i in range(12):
        seal(tmp_path, a_prediction(f"p{i}"))
        flusher.flush_once()
        flusher.tend()
    assert flusher.counters()["compactions"] == 2
    assert len(table(tmp_path).file_uris()) <= 4
    assert [row["seq"] for row in rows(tmp_path)] == list(range(1, 13))


def test_it_runs_until_told_to_stop_and_empties_the_log_then(tmp_path):
    stop, flusher = threading.Event(), a_flusher(tmp_path)
    thread = threading.Thread(target=flusher.run, args=(stop,), kwargs={"every": 0.01})
    thread.start()
    log = a_log(tmp_path)
    for i in range(200):
        log.append(a_prediction(f"p{i}"))
    log.close()
    stop.set()
    thread.join()
    assert len(rows(tmp_path)) == 200
    assert flusher.counters()["failures"] == 0


def test_files_that_left_their_table_go_after_a_time_and_not_while_somebody_reads_them(tmp_path, monkeypatch):
    monkeypatch.setattr("leaven.storage.flusher.COMPACT_EVERY", 2)
    lake, done = a_lake(tmp_path), []
    flusher = Flusher(tmp_path / "wal", lake, keep_hours=0, also=lambda: done.append("also"))
    for i in range(4):
        seal(tmp_path, a_prediction(f"p{i}"))
        flusher.flush_once()
    flusher.tend()
    assert lake.superseded("flights") == 4
    assert done == ["also"]
    flusher.tend()
    assert lake.superseded("flights") == 4  # it looks again in an hour
    monkeypatch.setattr("leaven.storage.flusher.LOOK_SECONDS", 0)
    with lake.query():
        flusher.tend()
        assert lake.superseded("flights") == 4
    flusher.tend()
    assert lake.superseded("flights") == 0
    assert ids(rows(tmp_path)) == [f"p{i}" for i in range(4)]


def test_a_reader_that_was_killed_holds_nothing_back(tmp_path):
    lake = a_lake(tmp_path)
    with lake.readers.reading():
        assert lake.readers.oldest() is not None
    assert lake.readers.oldest() is None
    left = lake.readers.folder / "4-dead"
    left.touch()
    os.utime(left, (time.time() - 60,) * 2)
    assert lake.readers.oldest() is None
    assert not left.exists()
