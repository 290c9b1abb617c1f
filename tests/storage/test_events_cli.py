"""`leaven events` and `leaven flusher`, as processes of their own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from leaven.storage.wal import WriteAheadLog

from .builders import StandingClock, a_label, a_lake, a_prediction, commit, ids, minutes

LOOP = """
from leaven import Feature, Label, Loop
from leaven.curation import AllHistory
from leaven.learners import XGBoost
from leaven.training import Stateless

loop = Loop(
    "flights", features=[Feature("carrier", "category")], unit="tail", label=Label("arr_delay", above=15, within="36h"),
    learner=XGBoost(), data=AllHistory(), plan=Stateless(),
)
"""


def answer(ran):
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)


def test_history_is_imported_looked_at_and_exported(tmp_path, leaven):
    (tmp_path / "loop.py").write_text(LOOP)
    (tmp_path / "past.csv").write_text(
        "at,landed,tail,carrier,arr_delay\n2026-03-01T12:00Z,2026-03-01T13:00Z,N1,UA,20\n2026-03-01T12:05Z,,N2,AA,\n"
    )
    home = ("--home", tmp_path / "home", "--json")
    given = (tmp_path / "past.csv", "--time", "at", "--label-time", "landed")
    report = answer(leaven("events", "import", tmp_path / "loop.py", *given, *home))
    assert (report["predictions"], report["feedback"], report["unlabelled"]) == (2, 1, 1)
    assert answer(leaven("events", "import", "flights", *given, *home))["already"] == 2  # by its name from now on
    shown = answer(leaven("events", "stats", *home))
    assert shown["loops"][0]["predictions"]["rows"] == 2
    assert shown["backlog"]["segments"] == 0
    assert [row["f_carrier"] for row in answer(leaven("events", "tail", "flights", *home))] == ["UA", "AA"]
    assert [row["value"] for row in answer(leaven("events", "tail", "flights", "--table", "feedback", *home))] == [20.0]
    out = tmp_path / "out.csv"
    assert answer(leaven("events", "export", "flights", out, "--until", "2026-03-01T12:05Z", *home))["rows"] == 1
    assert out.read_text().splitlines()[1].split(",")[-2:] == ["1.0", "true"]


def test_people_get_tables(tmp_path, leaven):
    commit(a_lake(tmp_path), a_prediction("p1"), a_label("p1"))
    shown = leaven("events", "stats", "--home", tmp_path).stdout
    assert "predictions" in shown
    assert "readable up to" in shown
    assert "champion" in leaven("events", "tail", "flights", "--home", tmp_path).stdout
    assert "no events" in leaven("events", "tail", "nothing", "--home", tmp_path).stdout


def test_what_is_wrong_is_said(tmp_path, leaven):
    refused = leaven("events", "export", "flights", tmp_path / "x.csv", "--since", "soon", "--home", tmp_path)
    assert refused.returncode in (2, 3)
    assert "error:" in refused.stderr


@pytest.fixture
def flusher(tmp_path):
    """Start `leaven flusher` on the installation in tmp_path; what still runs in the end is killed."""
    started = []

    def run():
        env = {name: value for name, value in os.environ.items() if not name.startswith("LEAVEN_")}
        with (tmp_path / "stderr").open("ab") as errors:
            command = [sys.executable, "-m", "leaven", "flusher", "--every", "0.05", "--home", str(tmp_path)]
            started.append(subprocess.Popen(command, env=env, stderr=errors))
        return started[-1]

    yield run
    for process in started:
        process.kill()
        process.wait()


def test_the_flusher_brings_events_into_the_lake_and_empties_the_log_when_told_to_stop(tmp_path, flusher):
    log = WriteAheadLog(tmp_path / "wal", clock=StandingClock(), seal_seconds=0.1)
    process, lake = flusher(), a_lake(tmp_path)
    log.append_durably([a_prediction("p1")]).result(60)
    deadline = time.monotonic() + 90
    while not lake.tail("flights", 1):
        assert time.monotonic() < deadline, (tmp_path / "stderr").read_text()
        time.sleep(0.05)
    log.append_durably([a_prediction("p2", at=minutes(1))]).result(60)
    log.close()
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0
    assert ids(lake.tail("flights", 9)) == ["p1", "p2"]
    assert "stopped: 2 events" in (tmp_path / "stderr").read_text()


def test_what_an_import_rejects_is_in_a_file_that_it_names(tmp_path, leaven):
    (tmp_path / "loop.py").write_text(LOOP)
    (tmp_path / "past.ndjson").write_text(
        '{"at": "2026-03-01T12:00Z", "tail": "N1", "carrier": "UA", "arr_delay": 20}\n'
        '{"at": "soon", "tail": "N1", "carrier": "UA", "arr_delay": 20}\n'
    )
    out = tmp_path / "not taken.ndjson"
    given = (
        tmp_path / "loop.py",
        tmp_path / "past.ndjson",
        "--time",
        "at",
        "--rejects",
        out,
        "--home",
        tmp_path / "home",
    )
    said = leaven("events", "import", *given)
    assert said.returncode == 0, said.stderr
    assert "2 rows: 1 predictions and 1 labels are new" in said.stdout
    assert "1 rejected: no time" in said.stdout
    assert str(out) in said.stdout.replace("\n", "")
    assert json.loads(out.read_text())["content"]["at"] == "soon"
