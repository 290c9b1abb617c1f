"""`leaven check --parity`: served features beside those that the owner's function computes."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime, timedelta

import pytest

from leaven.cli import main
from tests.storage.builders import a_lake, a_prediction, commit

LOOP_FILE = """
from leaven import Feature, Label, Loop
from leaven.curation import Recent
from leaven.learners import XGBoost
from leaven.training import Stateless

loop = Loop(
    "flights",
    features=[Feature("carrier", "category"), Feature("wind", "float"), Feature("dep_hour", "int")],
    unit="tail",
    label=Label("arr_delay", above=15, within="2h"),
    learner=XGBoost(rounds=2, threads=1),
    data=Recent("28d"),
    plan=Stateless(),
)
"""
FEATURES = """
from tables import WIND  # a module beside it


def right(unit, at, features):
    return {"wind": WIND[unit], "carrier": features["carrier"]}


def of_local_time(unit, at, features):
    return {"wind": WIND[unit], "dep_hour": (at.hour + 5) % 24}


def wrong_for_some(unit, at, features):
    return {"wind": WIND[unit] + (1.0 if unit == "u3" else 0.0), "dep_hour": at.hour}


def fails(unit, at, features):
    return {"wind": WIND[unit] if unit != "u1" else WIND["nobody"]}


def strange(unit, at, features):
    return {"wnd": 1.0}


def nothing(unit, at, features):
    return None
"""
UA = {"carrier": "UA"}


@pytest.fixture
def home(tmp_path, monkeypatch):
    for name in ("LEAVEN_LAKE", "LEAVEN_CLOCK", "LEAVEN_DATABASE"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "flights.py").write_text(LOOP_FILE)
    (tmp_path / "features.py").write_text(FEATURES)
    (tmp_path / "tables.py").write_text("WIND = {f'u{i}': i / 7 for i in range(5)}\n")
    lake, now = a_lake(tmp_path), datetime.now(UTC)
    moments = [now - timedelta(hours=3 * i) for i in range(20)]
    served = [
        a_prediction(
            f"p{i}", at=at, unit=f"u{i % 5}", features={"carrier": "UA", "wind": i % 5 / 7, "dep_hour": at.hour}
        )
        for i, at in enumerate(moments)
    ]
    imported = a_prediction("old", at=now, unit="nobody", arm="imported", answer=None, features={"wind": 99.0})
    commit(lake, *served, imported)
    lake.close()
    return tmp_path


@pytest.fixture
def checked(home, capsys):
    """Return a function that runs the command, in this process, and gives what it answered."""

    def run(function, *more, code=0, at=home):
        with pytest.raises(SystemExit) as left:
            main(["check", str(home / "flights.py"), "--parity", f"features:{function}", "--home", str(at), *more])
        printed = capsys.readouterr()
        assert left.value.code == code, printed
        return json.loads(printed.out) if "--json" in more else printed.out + printed.err

    yield run
    for name in ("features", "tables"):  # another test has others of these names
        sys.modules.pop(name, None)


def test_features_that_agree_pass_and_those_that_do_not_are_shown(checked):
    found = checked("right", "--json")
    assert found["ok"]
    assert (found["parity"]["rows"], found["parity"]["not_recomputed"]) == (20, ["dep_hour"])
    assert [(each["feature"], each["differ"]) for each in found["parity"]["features"]] == [("carrier", 0), ("wind", 0)]
    found = checked("wrong_for_some", "--rows", "10", "--json", code=1)
    wind = next(each for each in found["parity"]["features"] if each["feature"] == "wind")
    assert (wind["compared"], wind["differ"]) == (10, 2)
    assert wind["examples"][0] | {"at": ""} == {
        "prediction": "p3", "unit": "u3", "at": "", "served": 3 / 7, "recomputed": 3 / 7 + 1,
    }  # fmt: skip
    told = next(each for each in found["findings"] if each["about"] == "parity wind")
    assert told["level"] == "problem"
    assert "20.0% of 10 rows differ, by up to 0.7 of the value; in p3 of u3" in told["text"]


def test_a_clock_in_another_zone_is_found(checked):
    assert "100.0% of 20 rows differ" in checked("of_local_time", code=1)


def test_a_function_that_fails_is_told_with_its_error(checked):
    found = checked("fails", "--json", code=1)
    assert found["parity"]["failed"] == 4
    assert found["parity"]["first_failure"] == "KeyError: 'nobody' (for unit 'u1')"
    assert found["parity"]["features"][0]["compared"] == 16


@pytest.mark.parametrize(("function", "says"), [
    ("strange", "returned 'wnd'"), ("nothing", "returned NoneType"), ("absent", "no function 'absent'"),
])  # fmt: skip
def test_wrong_functions_are_refused(checked, function, says):
    assert says in checked(function, "--json", code=2)["error"]


def test_without_anything_served_there_is_no_answer(checked, tmp_path):
    nowhere = tmp_path / "nowhere"
    assert "no prediction of 'flights' was served" in checked("right", code=2, at=nowhere)
    assert not nowhere.exists()
