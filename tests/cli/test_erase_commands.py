"""`leaven events erase`, `erasures`, `compact`, `vacuum`: as processes of their own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from tests.storage.builders import a_label, a_lake, a_prediction, commit, ids, minutes, seal


@pytest.fixture
def home(tmp_path):
    lake = a_lake(tmp_path)
    for i in range(4):
        commit(lake, a_prediction(f"p{i}", unit="ab"[i % 2], at=minutes(i)), a_label(f"p{i}", at=minutes(i + 1)))
    lake.close()
    return tmp_path


def answer(ran):
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)


def units(home):
    lake = a_lake(home)
    try:
        return [row["unit"] for row in lake.tail("flights", 99)]
    finally:
        lake.close()


def test_a_request_is_kept_and_listed(home, leaven):
    named = home / "units.txt"
    named.write_text("a\n\n  c \n")
    at = ("--home", home)
    asked = answer(leaven("events", "erase", "flights", "--unit", "a", "--unit-file", named, "--json", *at))["erasures"]
    assert [(each["unit"], each["state"]) for each in asked] == [("a", "requested"), ("c", "requested")]
    assert asked[0]["due_at"] - asked[0]["requested_at"] == 24 * 3600 * 10**6
    listed = answer(leaven("events", "erasures", "--json", *at))["erasures"]
    assert sorted(listed, key=lambda each: each["unit"]) == asked
    assert "carried out by" in leaven("events", "erasures", "flights", *at).stdout
    assert units(home) == ["a", "b", "a", "b"]
    assert "salt" not in leaven("events", "erasures", "--json", *at).stdout


def test_at_once_where_no_flusher_runs_with_what_is_in_the_log(home, leaven):
    seal(home, a_prediction("logged", unit="a", at=minutes(9)), a_label("p0", 1.0, at=minutes(9), id="logged"))
    given = ("flights", "--unit", "a", "--now", "--json", "--home", home)
    (done,) = answer(leaven("events", "erase", *given))["erasures"]
    assert (done["state"], done["predictions"], done["feedback"]) == ("rewritten", 3, 3)
    assert units(home) == ["b", "b"]
    assert [path for path in (home / "lake").rglob("*.parquet") if b"logged" in path.read_bytes()] == []


def test_at_once_where_a_flusher_runs_by_that_one(home, leaven):
    env = {name: value for name, value in os.environ.items() if not name.startswith("LEAVEN_")}
    with (home / "stderr").open("wb") as errors:
        command = [sys.executable, "-m", "leaven", "flusher", "--every", "0.05", "--home", str(home)]
        flusher = subprocess.Popen(command, env=env, stderr=errors)
    try:
        seal(home, a_prediction("p9", unit="b", at=minutes(9)))
        end = time.monotonic() + 90
        while len(units(home)) < 5:
            assert time.monotonic() < end, (home / "stderr").read_text()
            time.sleep(0.1)
        ran = leaven("events", "erase", "flights", "--unit", "a", "--now", "--json", "--home", home)
        (done,) = answer(ran)["erasures"]
        assert "a flusher runs" in ran.stderr
        assert (done["state"], done["predictions"], done["feedback"]) == ("rewritten", 2, 2)
        assert units(home) == ["b", "b", "b"]
    finally:
        flusher.send_signal(signal.SIGTERM)
        assert flusher.wait(60) == 0, (home / "stderr").read_text()


def test_files_are_put_together_and_what_is_left_over_is_deleted(home, leaven):
    at = ("--json", "--home", home)
    assert answer(leaven("events", "compact", *at)) == {"replaced": {"flights": 8}}
    kept = answer(leaven("events", "vacuum", "flights", *at))
    assert kept == {"deleted": {"flights": 0}, "left": {"flights": 8}}
    assert answer(leaven("events", "vacuum", "--older-than", "0h", *at)) == {
        "deleted": {"flights": 8},
        "left": {"flights": 0},
    }
    lake = a_lake(home)
    assert ids(lake.tail("flights", 9)) == ["p0", "p1", "p2", "p3"]
    lake.close()


@pytest.mark.parametrize(
    ("given", "code", "says"),
    [
        (("erase", "flights"), 2, "no unit is named"),
        (("erase", "flights", "--unit-file", "nowhere"), 2, "nowhere: it cannot be read"),
        (("erase", "nothing", "--unit", "a"), 3, "no loop 'nothing' is registered"),
        (("erase", "flights", "--unit", "a", "--grace", "soon"), 2, "'soon' is no duration"),
        (("compact", "nothing"), 2, "it has no events in the lake"),
        (("vacuum", "--older-than", "old"), 2, "'old' is no duration"),
    ],
)
def test_what_cannot_be_meant_is_refused(home, leaven, given, code, says):
    ran = leaven("events", *given, "--json", "--home", home)
    assert ran.returncode == code
    assert says in json.loads(ran.stdout)["error"]
    assert units(home) == ["a", "b", "a", "b"]
