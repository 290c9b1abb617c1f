"""Does a lake keep its promises wherever it lies: in a folder, and in a bucket of an object store?"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from pathlib import Path

import duckdb
import pytest

from leaven.events.source import Span
from leaven.storage.delta import LOG, SEQ, LeaseNotHeld, added_files
from leaven.storage.exporting import export_examples
from leaven.storage.flusher import FlushIncomplete
from leaven.storage.importing import import_history
from leaven.storage.lake import Lake
from leaven.storage.place import Place
from leaven.storage.repair import repair
from leaven.storage.rows import table_from
from tests.contracts.conftest import LakeAt
from tests.control_databases import a_loop
from tests.storage.builders import (
    LATE,
    NOON,
    a_label,
    a_log,
    a_prediction,
    a_source,
    commit,
    content,
    examples,
    ids,
    minutes,
    seal,
    sealed,
    until_sealed,
)  # fmt: skip

WRITER = """
import sys
from pathlib import Path
from tests.storage.builders import a_prediction, commit
from leaven.storage.lake import Lake

lake = Lake(sys.argv[1], scratch=Path(sys.argv[2]))
for turn in range(8):
    commit(lake, *(a_prediction(f"{sys.argv[3]}-{turn}-{i}") for i in range(3)))
"""


def head(table: Place) -> str:
    """Name of the newest commit of a table."""
    return max(file.name for file in table.at(LOG).files() if file.name.endswith(".json"))


def added(table: Place) -> str:
    """The data file of the newest commit."""
    actions = [json.loads(line) for line in table.at(LOG).read(head(table)).splitlines()]
    (path,) = [action["add"]["path"] for action in actions if "add" in action]
    return path


def test_an_empty_lake_has_nothing_and_is_not_made_by_looking(lake_at: LakeAt):
    lake = lake_at.open()
    assert (lake.loops(), lake.tables(), lake.tail("flights", 5)) == ([], [], [])
    assert lake.stats("flights").predictions.version == -1
    assert repair(lake_at.table()) == []
    assert lake.loops() == []
    lake_at.table().at(LOG).write(".being-made", b"")  # all that a kill before the first commit leaves
    assert repair(lake_at.table()) == []
    commit(lake, a_prediction("p"))
    assert ids(lake.tail("flights", 5)) == ["p"]


def test_rows_under_a_transaction_that_is_in_already_are_not_appended_again(lake_at: LakeAt):
    def rows(table):
        if table.transaction("writer") >= 7:
            return None
        return table_from([a_prediction("p")], first_seq=table.seq + 1, kinds=table.kinds()), 1

    tables = [lake_at.open(name).table("flights", "predictions") for name in ("one", "two")]
    assert [table.append(rows, transactions={"writer": 7}) for table in (*tables, *tables)] == [1, 0, 0, 0]
    assert [table.transaction("writer") for table in tables] == [7, 7]
    assert tables[1].seq == tables[1].transaction(SEQ) == 1
    with pytest.raises(LeaseNotHeld):
        tables[0].append(lambda table: (table_from([a_prediction()], first_seq=2, kinds={}), 1),
                         transactions={}, hold=lambda: False)  # fmt: skip


def _writer(lake_at: LakeAt, name: str) -> subprocess.Popen[bytes]:
    given = [lake_at.location, str(lake_at.folder / "scratch" / name), name]
    return subprocess.Popen([sys.executable, "-c", WRITER, *given], cwd=Path(__file__).parent.parent.parent)


def test_two_processes_that_commit_at_once_lose_and_double_nothing(lake_at: LakeAt):
    writers = [_writer(lake_at, name) for name in "ab"]
    assert [writer.wait(120) for writer in writers] == [0, 0]
    rows = lake_at.open().tail("flights", 10**6)
    assert [row["seq"] for row in rows] == list(range(1, 49))
    assert sorted(ids(rows)) == sorted(f"{who}-{turn}-{i}" for who in "ab" for turn in range(8) for i in range(3))


def test_an_answer_at_marks_is_the_same_bit_for_bit_after_appends_compaction_and_clean_up(lake_at: LakeAt):
    lake = lake_at.open()
    for i in range(6):
        commit(
            lake, a_prediction(f"p{i}", at=minutes(i * 7), unit=f"u{i % 3}", features={"carrier": "UA", "n": i}),
            a_label(f"p{i}", float(i), at=minutes(i * 7 + 5)), a_label(None, 50.0, unit="u1", at=minutes(i * 7)),
        )  # fmt: skip
    marks = a_source(lake).marks()
    asked = {"marks": marks, "end": minutes(10**4), "as_of": minutes(10**4)}
    before = content(examples(lake, **asked))
    # Later events within the same span, feedback on the same rows, a new feature, values of another type.
    for i in range(6):
        commit(
            lake, a_prediction(f"q{i}", at=minutes(i), features={"carrier": 5, "n": 0.5, "new": True}),
            a_label(f"p{i}", 0.0, at=minutes(i * 7 + 6)), a_label(f"p{i}", 99.0, at=minutes(i * 7), kind="correction"),
        )  # fmt: skip
    assert content(examples(lake, **asked)) == before
    assert content(examples(lake, end=minutes(10**4), as_of=minutes(10**4))) != before
    files = lake.stats("flights").predictions.files
    assert lake.compact("flights") > 0
    assert lake.stats("flights").predictions.files < files
    assert content(examples(lake, **asked)) == before
    assert lake.vacuum("flights", hours=0) > 0
    assert content(examples(lake_at.open("another"), **asked)) == before


def test_two_compactions_at_once_double_no_row(lake_at: LakeAt):
    """As delta-rs would let them: the second of the same state commits as well."""
    lake = lake_at.open()
    for i in range(6):
        commit(lake, a_prediction(f"p{i}"))
    with lake_at.table().alone() as alone:
        assert alone
        assert lake_at.open("two").compact("flights") == 0
    lakes, went = [lake_at.open(name) for name in ("one", "two")], []
    both = threading.Barrier(2)

    def compact(mine: Lake) -> None:
        both.wait()
        went.append(mine.compact("flights"))

    threads = [threading.Thread(target=compact, args=(each,)) for each in lakes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(went) == [0, 6]
    assert ids(lake_at.open("fresh").tail("flights", 100)) == [f"p{i}" for i in range(6)]


def test_clean_up_keeps_the_versions_in_use(lake_at: LakeAt):
    lake, place = lake_at.open(), lake_at.table()
    for i in range(5):
        commit(lake, a_prediction(f"p{i}"))
    table = lake.table("flights", "predictions")
    table.refresh()
    used, kept = table.version, [file.path for file in table.files()]
    lake.compact("flights")
    lake.vacuum("flights", hours=0, keep=[used])
    assert len(kept) == 5
    assert all(place.ends(path, 4) for path in kept)
    lake.vacuum("flights", hours=0)
    assert not any(place.ends(path, 4) for path in kept)


@pytest.mark.parametrize(
    "damage",
    [
        lambda table, commit, data: table.at(LOG).write(commit, b""),
        lambda table, commit, data: table.at(LOG).write(commit, table.at(LOG).read(commit)[:-30]),
        lambda table, commit, data: table.write(data, table.read(data)[:-9]),
        lambda table, commit, data: table.remove(data),
    ],
    ids=["commit empty", "commit torn", "data torn", "data gone"],
)
def test_a_newest_commit_that_is_damaged_is_removed_and_made_again(lake_at: LakeAt, damage):
    """As its segment is still there: that is removed only when the commit is safe."""
    seal(lake_at.folder, a_prediction("p1"))
    lake_at.flusher().flush_once()
    seal(lake_at.folder, a_prediction("p2"))
    (path,) = sealed(lake_at.folder / "wal")
    segment = path.read_bytes()
    lake_at.flusher().flush_once()
    table = lake_at.table()
    damage(table, head(table), added(table))
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(segment)
    flusher = lake_at.flusher()
    assert flusher.flush_once() == 1
    assert flusher.counters()["repaired"] == 1
    rows = lake_at.open("fresh").tail("flights", 10)
    assert [(row["seq"], row["id"]) for row in rows] == [(1, "p1"), (2, "p2")]
    assert repair(table) == []


def test_a_commit_whose_events_are_in_no_log_any_more_is_never_removed(lake_at: LakeAt):
    """A data file that somebody deleted, or a disk forgot, is no power cut: what came later is not to go with it."""
    for name in ("p1", "p2", "p3"):
        seal(lake_at.folder, a_prediction(name))
        lake_at.flusher().flush_once()
    table = lake_at.table()
    second = sorted(file.name for file in table.at(LOG).files() if file.name.endswith(".json"))[-2]
    (lost, _), *_ = added_files(table.at(LOG).read(second))
    table.remove(lost)
    before = [file.name for file in table.at(LOG).files()]
    seal(lake_at.folder, a_prediction("p4"), a_label("p1"))
    with pytest.raises(FlushIncomplete, match="in no log any more, so nothing was removed"):
        lake_at.flusher().flush_once()
    assert [file.name for file in table.at(LOG).files()] == before
    assert len(sealed(lake_at.folder / "wal")) == 1  # what is new waits
    assert len(lake_at.open("fresh").tail("flights", 10, table="feedback")) == 1  # the other table took its own


def test_the_table_opens_from_its_checkpoints_and_a_damaged_one_is_dropped(lake_at: LakeAt, monkeypatch):
    monkeypatch.setattr("leaven.storage.delta.CHECKPOINT_EVERY", 3)
    lake, log = lake_at.open(), lake_at.table().at(LOG)
    for i in range(7):
        commit(lake, a_prediction(f"p{i}"))
    checkpoints = [file.name for file in log.files() if ".checkpoint" in file.name]
    assert [int(name.split(".")[0]) for name in checkpoints] == [3, 6]
    assert ids(lake_at.open("two").tail("flights", 10)) == [f"p{i}" for i in range(7)]
    log.write(checkpoints[-1], log.read(checkpoints[-1])[:100])
    assert len(repair(lake_at.table())) == 2  # it, and the hint that points to it
    assert ids(lake_at.open("three").tail("flights", 10)) == [f"p{i}" for i in range(7)]


def test_the_state_of_a_log_is_told_and_its_newest_rows(lake_at: LakeAt):
    lake = lake_at.open()
    for i in range(4):
        commit(lake, a_prediction(f"p{i}", at=minutes(i + 0.00123)), a_label(f"p{i}", at=minutes(1440 + i)))
    stats = lake.stats("flights")
    told = stats.predictions
    assert (told.rows, told.files, told.version, told.mark) == (4, 4, 4, 4)
    assert (told.first, told.last) == (minutes(0.00123), minutes(3.00123))  # to the microsecond
    assert told.bytes == sum(
        lake_at.table().ends(file.path, 4)[0] for file in lake.table("flights", "predictions").files()
    )
    assert stats.feedback.last == minutes(1443)
    assert ids(lake.tail("flights", 2)) == ["p2", "p3"]
    assert [row["at"] for row in lake.tail("flights", 2, table="feedback")] == [minutes(1442), minutes(1443)]
    assert lake.loops() == ["flights"]
    assert len(lake.tables()) == 2


def test_pairs_and_the_first_prediction_are_found(lake_at: LakeAt):
    lake = lake_at.open()
    commit(
        lake, a_prediction("p1"), a_prediction("p2", at=minutes(-2000)),
        a_prediction("p1", role="shadow", version="2", answer=0.7, features=None), a_label("p1"),
    )  # fmt: skip
    pairs = a_source(lake).pairs(Span(NOON, minutes(600)), "2", LATE, as_of=minutes(600))
    assert (pairs.live.predictions.id.tolist(), pairs.shadow_answer.tolist()) == (["p1"], [0.7])
    assert a_source(lake).first() == minutes(-2000)


def test_history_comes_in_once_and_examples_go_out(lake_at: LakeAt):
    lines = [
        "asked,told,user,x,y",
        *(f"2026-03-01T12:0{i}:00Z,2026-03-01T12:3{i}:00Z,u{i},{i}.5,{i % 2}" for i in range(6)),
    ]
    file = lake_at.folder / "past.csv"
    file.write_text("\n".join(lines))
    loop, lake = a_loop(), lake_at.open()
    for new in (6, 0):
        report = import_history(lake, loop, file, time="asked", label_time="told")
        assert (report.predictions, report.feedback) == (new, new)
    found = examples(lake, rule=loop.label)
    out = lake_at.folder / "out.parquet"
    assert export_examples(lake, found, out) == 6
    rows = duckdb.sql(f"SELECT unit, x, label FROM read_parquet('{out}') ORDER BY unit").fetchall()
    assert rows == [(f"u{i}", i + 0.5, float(i % 2)) for i in range(6)]


def test_a_file_that_is_committed_while_old_ones_are_deleted_stays(lake_at: LakeAt, monkeypatch):
    lake = lake_at.open()
    commit(lake, a_prediction("p1"))
    commit(lake, a_prediction("p2"))
    place = lake_at.table()
    newest = head(place)
    commit_of_p2 = place.at(LOG).read(newest)
    place.at(LOG).remove(newest)  # its data file is written, its commit is not yet
    vacuuming = lake_at.open("other")
    table = vacuuming.table("flights", "predictions")
    delete = table._vacuum

    def commit_meanwhile(**asked: object) -> None:
        delete(**asked)
        place.at(LOG).write(newest, commit_of_p2)

    monkeypatch.setattr(table, "_vacuum", commit_meanwhile)
    assert table.vacuum(hours=24, keep=[]) == 0
    assert sorted(ids(lake_at.open("fresh").tail("flights", 10))) == ["p1", "p2"]


def test_the_flusher_brings_every_event_in_once_whatever_was_left_behind(lake_at: LakeAt, monkeypatch):
    """Segments that a kill left after their commit, two flushers at once, and compaction in between."""
    monkeypatch.setattr("leaven.storage.flusher.COMPACT_EVERY", 1)
    log = a_log(lake_at.folder, seal_bytes=1)  # each group is a segment
    for i in range(3):
        log.append_durably([a_prediction(f"p{i:02d}"), a_label(f"p{i:02d}")]).result(60)
    until_sealed(lake_at.folder / "wal")
    kept = [(path, path.read_bytes()) for path in sealed(lake_at.folder / "wal")]
    assert lake_at.flusher().flush_once() == 6
    for path, segment in kept:
        path.write_bytes(segment)
    stop, flushers = threading.Event(), [lake_at.flusher() for _ in range(2)]
    threads = [threading.Thread(target=each.run, args=(stop,), kwargs={"every": 0.01}) for each in flushers]
    for thread in threads:
        thread.start()
    for i in range(3, 20):
        log.append_durably([a_prediction(f"p{i:02d}")]).result(60)
        time.sleep(0.05)
    log.close()
    stop.set()
    for thread in threads:
        thread.join()
    lake_at.flusher().flush_once()
    lake = lake_at.open("fresh")
    rows = lake.tail("flights", 10**6)
    assert sorted(ids(rows)) == [f"p{i:02d}" for i in range(20)]
    assert [row["seq"] for row in rows] == list(range(1, 21))
    assert len(lake.tail("flights", 10**6, table="feedback")) == 3
    assert sum(each.counters()["compactions"] for each in flushers) > 0
    assert sealed(lake_at.folder / "wal") == []
