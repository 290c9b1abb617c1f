"""`leaven label`: from predictions without a label to corrections that training reads."""

from __future__ import annotations

import csv
import json
import math
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from leaven.app import App
from leaven.cli import main
from leaven.controller.state import open_trial
from leaven.curation import AllHistory
from leaven.curation.snapshot import define_snapshot, read_snapshot
from leaven.duration import micros
from leaven.events.source import Span
from leaven.experiments.trial import Trial
from leaven.settings import settings_from
from leaven.storage.control.leases import Lease
from leaven.storage.flusher import Flusher
from tests.control_databases import a_version
from tests.storage.builders import a_label, a_lake, a_prediction, commit

LOOP_FILE = """
from leaven import Feature, Happens, Label, Loop
from leaven.curation import Recent
from leaven.learners import XGBoost
from leaven.training import Stateless

loop = Loop(
    "flights",
    features=[Feature("carrier", "category"), Feature("wind", "float")],
    unit="tail",
    label=LABEL,
    learner=XGBoost(rounds=2),
    data=Recent("28d"),
    plan=Stateless(),
)
"""
LATE = 'Label("arr_delay", above=15, within="2h")'
ROWS = 60
UNHEARD = [i for i in range(ROWS) if i % 2]  # of which the last three may still hear


def hours_ago(i):
    """The last six predictions are of the last two hours."""
    return (ROWS - i) / 3.1


@pytest.fixture
def began():
    return datetime.now(UTC)


@pytest.fixture
def home(tmp_path, monkeypatch, began):
    for name in ("LEAVEN_DATABASE", "LEAVEN_CLOCK", "LEAVEN_LAKE"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "flights.py").write_text(LOOP_FILE.replace("LABEL", LATE))
    installed = App(settings_from(home=tmp_path))
    installed.enter(tmp_path / "flights.py")
    at = [began - timedelta(hours=hours_ago(i)) for i in range(ROWS)]
    features = [{"carrier": "UA" if i < 40 else "B6", "wind": float(i)} for i in range(ROWS)]
    served = [
        a_prediction(f"p{i}", at=at[i], unit=f"=u{i}", answer=i / ROWS, features=features[i]) for i in range(ROWS)
    ]
    heard = [a_label(f"p{i}", 20.0, at=at[i] + timedelta(minutes=9)) for i in range(ROWS) if i % 2 == 0]
    commit(installed.lake, *served, *heard)
    installed.close()
    return tmp_path


@pytest.fixture
def said(home, capsys, monkeypatch):
    monkeypatch.chdir(home)

    def run(*arguments, exit_code=0):
        with pytest.raises(SystemExit) as left:
            main(["label", *map(str, arguments), "--home", str(home)])
        printed = capsys.readouterr()
        assert (left.value.code or 0) == exit_code, printed.err
        return json.loads(printed.out) if "--json" in arguments else printed.out + printed.err

    return run


def ids(queue):
    return [each["prediction"] for each in queue["predictions"]]


def table(file):
    with file.open(newline="") as rows:
        return list(csv.DictReader(rows))


def fill_in(file, value, **more):
    """What a labeller does."""
    rows = table(file)
    with file.open("w", newline="") as out:
        written = csv.DictWriter(out, list(rows[0]))
        written.writeheader()
        written.writerows(row | {"value": value(row)} | more for row in rows)


def labels(home):
    """By prediction, as training reads them now."""
    installed = App(settings_from(home=home))
    now = datetime.now(UTC)
    span = Span(now - timedelta(days=9), now)
    loop = installed.loop("flights")
    found = installed.source("flights").examples(span, loop.label, as_of=now)
    installed.close()
    return dict(zip(found.predictions.id.tolist(), found.labels.value.tolist(), strict=True))


def test_the_least_sure_of_those_whose_label_did_not_come_are_listed(said, began):
    found = said("queue", "flights", "--rows", 4, "--json")
    closed = [i for i in UNHEARD if hours_ago(i) > 2]
    assert found["candidates"] == len(closed) < len(UNHEARD)
    assert set(ids(found)) == {f"p{i}" for i in sorted(closed, key=lambda i: abs(i - ROWS / 2))[:4]}
    assert found["predictions"][0]["features"]["carrier"] == "UA"
    assert found["by"] == "Uncertainty()"
    still = said("queue", "flights", "--rows", 99, "--open", "--by", "evenly", "--json")
    assert set(ids(still)) == {f"p{i}" for i in UNHEARD}
    assert [each["closed"] for each in still["predictions"]].count(False) == len(UNHEARD) - len(closed)
    assert "predictions lack a label: ask for older ones" in still["notes"][0]
    since = (began - timedelta(hours=9.9)).isoformat()
    assert set(ids(said("queue", "flights", "--since", since, "--json"))) == {
        f"p{i}" for i in closed if hours_ago(i) < 9.9
    }


def test_two_labellers_get_different_rows(said, home):
    first, second = home / "ann.csv", home / "bob.csv"
    asked = ("queue", "flights", "--rows", 8, "--by", "uncertainty+diversity")
    assert "fill in `value`" in said(*asked, "--csv", first)
    found = said(*asked, "--exclude", first, "--csv", second, "--json")
    assert found["excluded"] == 8
    mine, theirs = ({row["prediction"] for row in table(file)} for file in (first, second))
    assert len(mine) == len(theirs) == 8
    assert not mine & theirs
    rest = said(*asked[:-4], "--rows", 99, "--by", "evenly", "--exclude", first, "--exclude", second, "--json")
    assert not set(ids(rest)) & (mine | theirs)
    assert len(ids(rest)) + 16 == rest["candidates"] + rest["excluded"]


def test_a_queue_that_was_filled_in_is_learnt_from_and_counts_once(said, home):
    file = home / "queue.csv"
    said("queue", "flights", "--rows", 6, "--csv", file)
    assert all(row["unit"].startswith("'=u") for row in table(file))  # no formula for a spreadsheet
    asked = [row["prediction"] for row in table(file)]
    fill_in(file, lambda row: "" if row["prediction"] == asked[0] else "40" if row["prediction"] == asked[1] else "3")
    done = said("import", "flights", file, "--source", "ann", "--json")
    assert (done["rows"], done["posted"], done["empty"], done["rejected"]) == (6, 5, 1, {})
    assert done["readable"] is True
    known = labels(home)
    assert math.isnan(known[asked[0]])
    assert [known[one] for one in asked[1:]] == [1.0, 0.0, 0.0, 0.0, 0.0]  # by the rule: above 15
    again = said("import", "flights", file, "--json")
    assert (again["posted"], again["already"]) == (0, 5)
    lake = a_lake(home)
    told = [row for row in lake.tail("flights", 99, table="feedback") if row["kind"] == "correction"]
    lake.close()
    assert [(row["source"], row["name"]) for row in told] == [("ann", "arr_delay")] * 5
    assert not set(ids(said("queue", "flights", "--rows", 99, "--json"))) & set(asked[1:])


def test_a_person_may_change_their_mind_and_say_when(said, home):
    def give(value, at=""):
        file = home / "change.csv"
        file.write_text(f"prediction;value;labelled_at\np1;{value};{at}\n")  # as some spreadsheets write it
        return said("import", "flights", file, "--json")

    assert give(20)["posted"] == 1
    assert labels(home)["p1"] == 1.0
    assert give(2)["posted"] == 1
    assert labels(home)["p1"] == 0.0
    assert give(20)["posted"] == 0  # the same as the first: it says nothing new
    assert give(20, datetime.now(UTC).isoformat())["posted"] == 1
    assert labels(home)["p1"] == 1.0


def test_what_cannot_be_taken_goes_to_a_file_with_its_reason(said, home, began):
    file = home / "bad.csv"
    early, later = (began - timedelta(days=30)).isoformat(), (began + timedelta(days=1)).isoformat()
    rows = [
        ("nobody", 1, "", ""), ("p1", "much", "", ""), ("p3", "inf", "", ""), ("p5", 4, early, ""),
        ("p7", 4, later, ""),
        ("p9", 4, "soon", ""), ("p11", 4, "2026-01-01", ""), ("p13", 4, "", ""), ("p13", 5, "", ""), ("p13", 4, "", ""),
        ("p15", 4, "", "x" * 201), ("p17", 4, "", "ann"),
    ]  # fmt: skip
    lines = "".join(f"{a},{b},{c},{d}\n" for a, b, c, d in rows)
    file.write_text(f"prediction,value,labelled_at,source\n{lines}\n,,,\n")
    done = said("import", "flights", file, "--rejects", home / "no.ndjson", "--json")
    assert (done["rows"], done["posted"], done["already"]) == (12, 2, 1)
    kept = [json.loads(line) for line in (home / "no.ndjson").read_text().splitlines()]
    assert [each["row"] for each in kept] == [1, 2, 3, 4, 5, 6, 7, 9, 11]
    assert kept[0] == {
        "row": 1, "reason": "the lake has no such prediction",
        "content": {"prediction": "nobody", "value": "1", "labelled_at": "", "source": ""},
    }  # fmt: skip
    assert sum(done["rejected"].values()) == 9
    assert done["rejected"]["it was labelled before its prediction, or in the future"] == 2
    assert done["rejects"] == str(home / "no.ndjson")
    assert "the value is no number" in said("import", "flights", file)


def test_while_a_flusher_runs_the_labels_are_kept_and_it_brings_them(said, home):
    installed = App(settings_from(home=home))
    lease = Lease(installed.database, "flusher", "another", seconds=600)
    assert lease.acquire()
    file = home / "one.csv"
    file.write_text("prediction,value\np1,30\n")
    done = said("import", "flights", file, "--json")
    assert (done["posted"], done["readable"]) == (1, False)
    assert math.isnan(labels(home)["p1"])
    again = said("import", "flights", file, "--json")  # not known to be there yet: kept twice, read once
    assert again["posted"] == 1
    Flusher(installed.settings.wal, installed.lake, hold=lease.keep).flush_once()
    installed.close()
    assert labels(home)["p1"] == 1.0
    lake = a_lake(home)
    assert lake.stats("flights").feedback.rows == ROWS / 2 + 2
    lake.close()


def test_a_label_by_hand_is_in_the_next_snapshot_and_in_no_earlier_one(said, home, began):
    installed = App(settings_from(home=home))
    source, rule = installed.source("flights"), installed.loop("flights").label

    def a_snapshot():
        now = datetime.now(UTC)
        parts = AllHistory().parts(until=now, first=began - timedelta(days=2))
        definition = define_snapshot("flights", parts, holdout=None, rule=rule, as_of=now, marks=source.marks(), seed=0)
        return definition, set(read_snapshot(definition, source, rule).predictions.id.tolist())

    before, read = a_snapshot()
    (home / "one.csv").write_text("prediction,value\np1,30\n")
    said("import", "flights", home / "one.csv")
    assert "p1" not in read
    assert set(read_snapshot(before, source, rule).predictions.id.tolist()) == read
    assert a_snapshot()[1] == read | {"p1"}
    installed.close()


def test_where_the_challenger_disagrees(said, home, began):
    lake = a_lake(home)
    shadows = {1: 0.9, 3: 0.06, 5: 0.5}
    at = [began - timedelta(hours=hours_ago(i)) for i in range(ROWS)]
    commit(lake, *(a_prediction(f"p{i}", role="shadow", version="2", at=at[i], answer=answer, features=None)
                   for i, answer in shadows.items()))  # fmt: skip
    lake.close()
    assert "no trial" in said("queue", "flights", "--by", "disagreement", exit_code=2)
    found = said("queue", "flights", "--by", "disagreement", "--against", 2, "--json")
    assert ids(found) == ["p1", "p5", "p3"]
    assert [each["challenger"] for each in found["predictions"]] == [0.9, 0.5, 0.06]
    installed = App(settings_from(home=home))
    with installed.database.write() as connection:
        begun = micros(began)
        for at in range(3):
            a_version(connection, at=at, artifact=str(at) * 64)
        for number, challenger in enumerate(("3", "2")):
            trial = Trial(f"t{number}", "flights", challenger, "1", begun + number, begun, state="rolled_back")
            open_trial(connection, trial, rollout="[]")
    installed.close()
    assert ids(said("queue", "flights", "--by", "disagreement", "--json")) == ids(
        found
    )  # by the latest trial's challenger


def test_an_event_that_did_not_come_is_a_label_and_only_open_ones_are_asked_about(said, home):
    (home / "flights.py").write_text(LOOP_FILE.replace("LABEL", 'Happens("arr_delay", within="2h")'))
    found = said("queue", "flights", "--json")
    assert found["candidates"] == 0
    assert "ask with --open" in found["notes"][0]
    found = said("queue", "flights", "--open", "--json")
    assert set(ids(found)) == {f"p{i}" for i in UNHEARD if hours_ago(i) <= 2}
    (home / "one.csv").write_text(f"prediction,value\n{ids(found)[0]},no\n{ids(found)[1]},7\n")
    done = said("import", "flights", home / "one.csv", "--json")
    assert (done["posted"], done["rejected"]) == (1, {"whether an event came is 1 or 0": 1})
    assert labels(home)[ids(found)[0]] == 0.0


@pytest.mark.parametrize(("given", "says"), [
    (("queue", "flights", "--by", "gut+evenly"), "'gut' is no query"),
    (("queue", "flights", "--since", "yesterday"), "is no date"),
    (("queue", "flights", "--exclude", "flights.py"), "no column 'prediction'"),
    (("queue", "flights", "--csv", "nowhere/queue.csv"), "no such folder"),
    (("import", "flights", "absent.csv"), "cannot be read"),
    (("import", "flights", "flights.py"), "no column 'prediction'"),
])  # fmt: skip
def test_wrong_use_is_said(said, given, says):
    assert says in said(*given, exit_code=2)


def test_a_failed_answer_is_asked_about_by_its_features_alone(said, home, began):
    lake = a_lake(home)
    far = a_prediction(
        "broken", at=began - timedelta(hours=9), answer=None, error="it failed", features={"wind": 5000.0}
    )
    commit(lake, far)
    lake.close()
    assert "broken" not in ids(said("queue", "flights", "--rows", 99, "--json"))
    found = said("queue", "flights", "--rows", 1, "--by", "diversity", "--json")
    assert ids(found) == ["broken"]  # unlike all that is labelled
    assert found["predictions"][0]["answer"] is None
    assert np.isclose(float(found["predictions"][0]["why"].split()[0]), 7.6, atol=1.5)


def test_a_loop_without_any_prediction_has_an_empty_queue(said, tmp_path):
    (tmp_path / "other.py").write_text(LOOP_FILE.replace("LABEL", LATE).replace('"flights"', '"other"'))
    installed = App(settings_from(home=tmp_path))
    installed.enter(tmp_path / "other.py")
    installed.close()
    found = said("queue", "other", "--by", "uncertainty+diversity", "--json")
    assert (found["candidates"], found["predictions"]) == (0, [])
    said("queue", "other", "--csv", tmp_path / "empty.csv")
    assert said("import", "other", tmp_path / "empty.csv", "--json")["rows"] == 0


def test_a_label_with_classes_is_queued_and_told_by_name(tmp_path, monkeypatch, capsys, began):
    for name in ("LEAVEN_DATABASE", "LEAVEN_CLOCK", "LEAVEN_LAKE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    rule = 'Label("kind", classes=["cat", "dog", "fox"], within="2h")'
    (tmp_path / "flights.py").write_text(LOOP_FILE.replace("LABEL", rule))
    installed = App(settings_from(home=tmp_path))
    installed.enter(tmp_path / "flights.py")
    at = began - timedelta(hours=9)
    sure, torn = (0.98, 0.01, 0.01), (0.1, 0.46, 0.44)
    commit(installed.lake, *(a_prediction(f"p{i}", at=at, answer=torn if i == 3 else sure) for i in range(6)))
    installed.close()

    def run(*arguments):
        with pytest.raises(SystemExit) as left:
            main(["label", *map(str, arguments), "--home", str(tmp_path)])
        assert not left.value.code
        return capsys.readouterr().out

    assert "dog" in run("queue", "flights", "--by", "margin", "--rows", 1)
    for by, why in {"uncertainty": "entropy 1.3", "margin": "leads by 0.02"}.items():
        (asked,) = json.loads(run("queue", "flights", "--by", by, "--rows", 1, "--json"))["predictions"]
        assert (asked["prediction"], asked["answer"]) == ("p3", "dog")
        assert why in asked["why"]
    (tmp_path / "told.csv").write_text("prediction,value\np3,fox\n")
    assert json.loads(run("import", "flights", tmp_path / "told.csv", "--json"))["posted"] == 1
