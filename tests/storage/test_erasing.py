"""What is left of a unit that was erased, and of days that grew too old? Nothing but numbers and times."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from datetime import date, timedelta
from pathlib import Path

import pytest

from leaven.duration import micros
from leaven.storage.delta import LeaseNotHeld
from leaven.storage.erasing import Unit, drop_days, erase_units
from leaven.storage.repair import repair

from .builders import NOON, a_label, a_lake, a_prediction, a_source, commit, content, examples, ids, minutes

AT = micros(NOON + timedelta(days=30))
ALICE = Unit("e1", "alice", "salt")


def held():
    return True


def a_filled_lake(folder):
    """Three units over three days, with feedback by prediction and by unit, and a shadow."""
    lake = a_lake(folder)
    events = []
    for i in range(30):
        unit, at = ("alice", "bob", "carol")[i % 3], minutes(i * 120)
        events += [a_prediction(f"p{i}", unit=unit, at=at), a_label(f"p{i}", float(i), at=at)]
    events += [
        a_prediction("p0", unit="alice", role="shadow", version="2", at=minutes(0)),
        a_label(None, 1.0, unit="alice", at=minutes(5), id="on alice"),
        a_label(None, 1.0, unit="bob", at=minutes(125), id="on bob"),
    ]
    commit(lake, *events[:40])
    commit(lake, *events[40:])
    return lake


def erase(lake, *units, **other):
    return erase_units(lake, "flights", units or (ALICE,), **({"at": AT, "hold": held} | other))


def rows(lake, table="predictions"):
    return lake.tail("flights", 10**6, table=table)


def holding(folder, what: bytes):
    """The files under `folder` that hold a text, decoded or not."""
    import duckdb

    found = []
    for path in folder.rglob("*"):
        if path.is_file() and ".readers" not in path.parts:
            text = path.read_bytes()
            if path.suffix == ".parquet":
                text += repr(duckdb.sql(f"FROM read_parquet('{path}')").fetchnumpy()).encode()
            found += [path] if what in text else []
    return found


def test_a_unit_is_erased_with_all_that_came_of_it(tmp_path):
    lake = a_filled_lake(tmp_path)
    mine = {f"p{i}" for i in range(0, 30, 3)}
    both = [row for table in ("predictions", "feedback") for row in rows(lake, table)]
    others = [row for row in both if row["unit"] != "alice" and row.get("prediction") not in mine]
    assert erase(lake).rows == {"e1": (11, 11)}
    assert rows(lake) + rows(lake, "feedback") == others
    assert {row["unit"] for row in rows(lake)} == {"bob", "carol"}
    assert ids(rows(lake, "feedback"))[-1] == "on bob"


def test_tombstones_keep_numbers_and_times_and_nothing_else(tmp_path):
    lake = a_filled_lake(tmp_path)
    before = {(table, row["seq"]): row["at"] for table in ("predictions", "feedback") for row in rows(lake, table)}
    erase(lake)
    kept = rows(lake, "tombstones")
    assert len(kept) == 22
    for stone in kept:
        assert stone["first_row"] == stone["last_row"]
        assert stone["first_at"] == before[stone["table"], stone["first_row"]]
        assert micros(stone["at"]) == AT
    assert [stone["seq"] for stone in kept] == list(range(1, 23))
    lake.vacuum("flights", hours=0)
    assert lake.superseded("flights") == 0
    for secret in (b"alice", b"p27"):
        assert holding(tmp_path, secret) == []
    assert holding(tmp_path, b"carol")


def test_several_units_go_at_once_and_feedback_on_two_counts_once(tmp_path):
    lake = a_filled_lake(tmp_path)
    commit(lake, a_label("p0", 3.0, unit="bob", id="of two"))
    done = erase(lake, ALICE, Unit("e2", "bob", "other"), Unit("e3", "nobody", "third"))
    assert {row["unit"] for row in rows(lake)} == {"carol"}
    assert sum(count for pair in done.rows.values() for count in pair) == len(rows(lake, "tombstones"))
    assert done.rows["e3"] == (0, 0)
    assert "of two" not in ids(rows(lake, "feedback"))


def test_what_comes_later_is_recognised_by_unit_and_by_the_erased_prediction(tmp_path):
    lake = a_filled_lake(tmp_path)
    erase(lake)
    commit(
        lake, a_prediction("late", unit="alice", at=minutes(999)), a_prediction("other", unit="bob", at=minutes(999))
    )
    commit(lake, a_label("p3", 9.0, at=minutes(999), id="late by id"), a_label("late", 9.0, at=minutes(1000), id="new"))
    commit(lake, a_label("other", 9.0, at=minutes(1000), id="kept"))
    assert erase(lake).rows == {"e1": (12, 13)}
    assert ids(rows(lake))[-1] == "other"
    assert ids(rows(lake, "feedback"))[-1] == "kept"
    assert erase(lake).rows == {"e1": (12, 13)}  # nothing is counted twice
    assert erase(lake, Unit("e9", "alice", "new salt")).rows == {"e9": (0, 0)}


def test_only_days_with_rows_of_the_unit_are_rewritten(tmp_path):
    lake = a_lake(tmp_path)
    commit(lake, *(a_prediction(f"p{i}", unit="bob", at=minutes(i * 1440)) for i in range(5)))
    commit(lake, a_prediction("a", unit="alice", at=minutes(2 * 1440)))
    table = lake.table("flights", "predictions")
    table.refresh()
    before = {file.path for file in table.files()}
    erase(lake)
    table.refresh()
    assert len(before - {file.path for file in table.files()}) == 1


def test_without_the_lease_nothing_is_taken_out(tmp_path):
    lake = a_filled_lake(tmp_path)
    before = rows(lake)
    with pytest.raises(LeaseNotHeld):
        erase(lake, hold=lambda: False)
    assert rows(lake) == before
    assert rows(lake, "tombstones") == []


@pytest.mark.parametrize("commits", range(4))
def test_broken_off_after_any_commit_the_next_try_ends_the_same(tmp_path, commits):
    whole = a_filled_lake(tmp_path / "whole")
    erase(whole)
    lake = a_filled_lake(tmp_path / "broken")
    left = iter([True] * commits)
    if commits < 3:
        with pytest.raises(LeaseNotHeld):
            erase(lake, hold=lambda: next(left, False))
    assert erase(lake).rows == {"e1": (11, 11)}
    for table in ("predictions", "feedback", "tombstones"):
        assert rows(lake, table) == rows(whole, table)


def test_an_empty_lake_and_a_table_without_feedback(tmp_path):
    assert erase(a_lake(tmp_path)).rows == {"e1": (0, 0)}
    lake = a_lake(tmp_path)
    commit(lake, a_prediction("p", unit="alice"))
    assert erase(lake).rows == {"e1": (1, 0)}
    assert rows(lake) == []
    assert lake.stats("flights").predictions.rows == 0
    assert a_source(lake).first() is None
    commit(lake, a_prediction("q", unit="bob"))
    assert [row["seq"] for row in rows(lake)] == [2]  # numbers are not used again


def test_days_that_grew_too_old_go_whole(tmp_path):
    lake = a_filled_lake(tmp_path)
    marks = a_source(lake).marks()
    young = content(examples(lake, start=minutes(12 * 60), end=minutes(10**5), as_of=minutes(10**5)))
    gone = drop_days(lake, "flights", before=date(2026, 3, 2), at=AT, hold=held)
    assert gone == 6 + 1 + 6 + 2
    assert min(row["at"] for row in rows(lake)) >= minutes(12 * 60)
    assert content(examples(lake, start=minutes(12 * 60), end=minutes(10**5), as_of=minutes(10**5))) == young
    stones = rows(lake, "tombstones")
    assert [(stone["table"], stone["rows"], stone["why"]) for stone in stones] == [
        ("feedback", 8, "age"), ("predictions", 7, "age"),
    ]  # fmt: skip
    assert drop_days(lake, "flights", before=date(2026, 3, 2), at=AT, hold=held) == 0
    source = a_source(lake)
    from leaven.events.source import Span

    seen = Span(NOON, minutes(60))
    assert source.erased(seen, as_of=minutes(60), marks=marks) == 15  # at most: the day went as a whole
    assert source.erased(Span(minutes(800), minutes(900)), as_of=minutes(900), marks=marks) == 0
    assert source.erased(seen, as_of=minutes(60), marks=source.marks()) == 0


ERASER = """
import sys
from pathlib import Path
from storage.test_erasing import ALICE, a_lake, erase

print("begun", flush=True)
lake = a_lake(Path(sys.argv[1]))
erase(lake)
lake.vacuum("flights", hours=0)
"""


def kill_erasers(tmp_path, *, kills, seed):
    chance = random.Random(seed)
    expected = a_filled_lake(tmp_path / "whole")
    erase(expected)
    tests = f"{os.environ.get('PYTHONPATH', '')}:{Path(__file__).parent.parent}"
    a_filled_lake(tmp_path / "start").close()
    for i in range(kills):
        folder = tmp_path / f"killed-{i}"
        shutil.copytree(tmp_path / "start", folder)
        with subprocess.Popen(
            [sys.executable, "-c", ERASER, str(folder)], env=os.environ | {"PYTHONPATH": tests}, stdout=subprocess.PIPE
        ) as eraser:
            assert eraser.stdout is not None
            eraser.stdout.readline()
            time.sleep(chance.uniform(0, 0.9))
            eraser.send_signal(signal.SIGKILL)
        lake = a_lake(folder)
        for table in lake.tables():
            repair(table.place)
        assert erase(lake).rows == {"e1": (11, 11)}
        for table in ("predictions", "feedback", "tombstones"):
            assert rows(lake, table) == rows(expected, table)
        lake.close()


def test_kill_an_eraser_at_random_moments(tmp_path):
    kill_erasers(tmp_path, kills=3, seed=1)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_kill_an_eraser_at_many_random_moments(tmp_path):
    kill_erasers(tmp_path, kills=40, seed=2)


def test_what_an_erasure_and_a_vacuum_left_is_no_damage(tmp_path):
    lake = a_filled_lake(tmp_path)
    erase(lake)
    lake.compact("flights")
    lake.vacuum("flights", hours=0)
    assert lake.superseded("flights") == 0
    before = rows(lake) + rows(lake, "feedback")
    assert [repair(table.place) for table in lake.tables()] == [[], [], []]
    assert rows(a_lake(tmp_path)) + rows(a_lake(tmp_path), "feedback") == before


def test_an_erasure_whose_commit_a_power_cut_tore_is_made_again(tmp_path):
    lake = a_filled_lake(tmp_path)
    erase(lake)
    expected = [rows(lake, table) for table in ("predictions", "feedback")]
    log = tmp_path / "lake" / "flights" / "predictions" / "_delta_log"
    newest = max(log.glob("*.json"))
    lines = newest.read_bytes().splitlines(keepends=True)
    assert b"leaven-erased" in lines[-1]
    newest.write_bytes(b"".join(lines[:-1]))
    assert len(repair(lake.table("flights", "predictions").place)) == 1
    again = a_lake(tmp_path)
    assert len(rows(again)) == 31
    assert erase(again).rows == {"e1": (11, 11)}
    assert [rows(again, table) for table in ("predictions", "feedback")] == expected
