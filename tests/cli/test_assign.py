"""Does `leaven assign` say which arm a unit gets, whoever asks and however units come in?"""

from __future__ import annotations

import io
import json

import pytest

from leaven.cli import main
from leaven.experiments.experiment import Experiment, slots
from leaven.experiments.experiment import assign as assigned


@pytest.fixture
def asked(capsys, monkeypatch):
    """Return a function that runs the command, its units from `lines` if given: exit code and text."""

    def ask(*arguments: str, lines: str | None = None):
        if lines is not None:
            monkeypatch.setattr("sys.stdin", io.StringIO(lines))
        with pytest.raises(SystemExit) as left:
            main(["assign", *arguments])
        return int(left.value.code or 0), capsys.readouterr().out

    return ask


def test_units_come_as_arguments_or_one_a_line(asked):
    ask = ["--experiment", "ranker", "--arms", "a=0.9,b=0.1", "--json"]
    code, text = asked(*ask, "u1", "u2", "Zoë")
    assert code == 0
    assert asked(*ask, lines="u1\nu2\r\n\nZoë\n") == (0, text)
    experiment = Experiment("ranker", slots({"a": 0.9, "b": 0.1}))
    rows = json.loads(text)
    assert {row["unit"]: row["arm"] for row in rows} == {u: assigned(u, experiment).arm for u in ("u1", "u2", "Zoë")}
    assert all(row["propensity"] == pytest.approx({"a": 0.9, "b": 0.1}[row["arm"]]) for row in rows)


def test_a_growthbook_experiment_keeps_its_units(asked):
    code, text = asked("--experiment", "seed", "--arms", "a=0.5,b=0.5", "--hash", "growthbook-v2", "--json", "a",
                       "b")  # fmt: skip
    assert code == 0
    assert [(row["position"], row["arm"]) for row in json.loads(text)] == [(505, "a"), (2696, "a")]


def test_a_layer_a_holdout_and_low_coverage_leave_units_out_and_say_so(asked):
    units = [f"u{i}" for i in range(40)]
    ask = ["--experiment", "x", "--arms", "a=1", *units]
    options = {"--layer=web:0-0.25": "outside the layer's part", "--holdout=2026=0.5": "held out",
               "--coverage=0.5": "outside the shares"}  # fmt: skip
    for option, why in options.items():
        code, text = asked(*ask, option)
        assert code == 0
        assert why in text


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--arms", "a", "u"], "'a' has not the form ARM=SHARE"),
        (["--arms", "a=0.9,b=0.9", "u"], "add up to 1"),
        (["--arms", "a=0.5,a=0.5", "u"], "a name comes twice"),
        (["--arms", "a=x", "u"], "no list of numbers"),
        (["--arms", "a=1", "--layer", "web:0.5-0.2", "u"], "no part of a layer"),
        (["--arms", "a=1", "--holdout", "h=2", "u"], "2 is no share"),
        (["--arms", "a=1"], "there are none"),
    ],
)
def test_wrong_use_says_what_and_where(asked, arguments, said):
    code, text = asked("--experiment", "x", *arguments, "--json", lines="")
    assert code == 2
    assert said in json.loads(text)["error"]
