"""Do `leaven advise` and `leaven trial size --loop` read the file and the log, and say what they read?"""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import pytest

from leaven.cli import main
from leaven.experiments.side_by_side import ShadowEvidence
from leaven.registry.decisions import Decision, record
from leaven.stats.moments import Moments
from leaven.storage.control.database import ControlDatabase

UNTIL = "2026-03-01"
DAYS, PER_DAY, PEOPLE = 40, 150, 1_500
FILE = """
from leaven import Feature, Label, Loop
from leaven.curation import Recent
from leaven.experiments import Canary, Shadow
from leaven.learners import XGBoost
from leaven.training import Stateless

loop = Loop(
    "shop", features=[Feature("x", "float")], unit="user", label=Label("spent", within="2d"), learner=XGBoost(rounds=5),
    data=Recent("14d"), plan=Stateless(), rollout=[Shadow("1d"), Canary(0.1, metric="squared_error")],
)
"""


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """An installation with forty days of a shop's past; every twentieth outcome never came."""
    folder = tmp_path_factory.mktemp("shop")
    (folder / "shop.py").write_text(FILE)
    rng, rows = np.random.default_rng(8), DAYS * PER_DAY
    at = pd.Timestamp(UNTIL, tz="UTC") - pd.to_timedelta(np.sort(rng.uniform(0, DAYS, rows))[::-1], unit="D")
    told = pd.Series(at + pd.to_timedelta(rng.uniform(1, 10, rows), unit="h"))
    spent = pd.Series(rng.gamma(2, 5, rows)).where(np.arange(rows) % 20 > 0)
    data = pd.DataFrame(
        {"at": at, "told": told.where(spent.notna()), "user": [f"u{n}" for n in rng.integers(0, PEOPLE, rows)],
         "x": rng.normal(size=rows).round(3), "spent": spent}
    )  # fmt: skip
    data.to_csv(folder / "past.csv", index=False)
    ran = ("events", "import", str(folder / "shop.py"), str(folder / "past.csv"), "--time", "at", "--label-time",
           "told", "--rejects", str(folder / "rejects"), "--home", str(folder / "home"), "--json")  # fmt: skip
    with pytest.raises(SystemExit) as left:
        main(ran)
    assert not left.value.code
    return folder, data


@pytest.fixture
def asked(shop, capsys, monkeypatch):
    """Return a function that runs a command in the shop's installation: JSON where asked for, else text."""
    for name in ("LEAVEN_DATABASE", "LEAVEN_CLOCK", "LEAVEN_LAKE", "LEAVEN_HOME"):
        monkeypatch.delenv(name, raising=False)

    def ask(*arguments: str, home="home", exit_code=0):
        capsys.readouterr()
        with pytest.raises(SystemExit) as left:
            main((*arguments, "--home", str(shop[0] / home)))
        assert int(left.value.code or 0) == exit_code
        text = capsys.readouterr().out
        return json.loads(text) if "--json" in arguments else text

    return ask


def test_size_reads_mean_spread_window_and_units_from_the_log(shop, asked):
    found = asked("trial", "size", "--loop", "shop", "--mde", "0.05", "--relative", "--until", UNTIL, "--json")
    assert {"per_arm", "total", "days"} <= set(found)
    data = shop[1]
    known = data[data["spent"].notna()]
    day = (pd.Timestamp(UNTIL, tz="UTC") - known["at"]) / pd.Timedelta(days=1)
    mature = known[(day > 2) & (day <= 30)]
    always = (mature["spent"] - mature["spent"].mean()) ** 2
    assert found["mean"] == pytest.approx(always.groupby(mature["user"]).mean().mean(), rel=1e-6)
    assert found["label_window"] == 2
    latest = data[(pd.Timestamp(UNTIL, tz="UTC") - data["at"]) <= pd.Timedelta(days=28)]
    assert found["log"]["curve"]["seen"][-1] == latest["user"].nunique()
    assert found["log"]["labelled"] == pytest.approx(0.95, abs=0.005)
    assert found["log"]["delays"][0] == pytest.approx(5.5 / 24, abs=0.01)
    assert found["days"] is None or found["days"] >= 7
    assert found["log"]["metric"] == "squared_error"  # the rollout's own


def test_size_takes_given_numbers_over_read_ones_and_days_from_the_curve(asked):
    read = ("--loop", "shop", "--until", UNTIL)
    given = asked("trial", "size", *read, "--mean", "10", "--sd", "4", "--mde", "1", "--json")
    alone = asked("trial", "size", "--mean", "10", "--sd", "4", "--mde", "1", "--json", home="nowhere")
    assert (given["per_arm"], given["total"]) == (alone["per_arm"], alone["total"])
    assert alone["days"] is None
    assert given["days"] == 5 + 1 + 2  # for so many to come, for each to be measured, for its labels
    many = asked("trial", "size", *read, "--sd", "4", "--mde", "0.65", "--json")
    assert many["days"] > 12 > many["total"] / PER_DAY  # they come back: more days than at all requests by new units
    assert many["days_between"][0] <= many["days"] <= (many["days_between"][1] or 10_000)
    text = asked("trial", "size", *read, "--sd", "4", "--mde", "0.65")
    assert f"{many['days']:,} days" in text
    assert "came on one day only" in text


def test_a_log_that_says_nothing_is_refused_with_what_to_do(asked, shop, capsys):
    for more in (("--home", str(shop[0] / "nowhere")), ("--home", str(shop[0] / "home"), "--until", "2020-01-01")):
        with pytest.raises(SystemExit) as left:
            main(("trial", "size", "--loop", str(shop[0] / "shop.py"), "--mde", "1", *more))
        assert left.value.code == 2
        assert "--daily-units" in capsys.readouterr().err
    assert not (shop[0] / "nowhere").exists()


def facts_of(answer):
    return {fact["name"]: (fact["value"], fact["source"]) for fact in answer["facts"]}


def test_advice_rests_on_the_file_the_log_what_is_given_and_what_is_assumed(asked):
    found = asked("advise", "shop", "--effect", "0.6", "--harm", "low", "--until", UNTIL, "--json")
    assert {"strategy", "why", "stages", "per_arm", "total", "days", "warnings", "facts"} <= set(found)
    facts = facts_of(found)
    assert facts["metric"] == ("squared_error", "loop file")
    assert facts["window"] == (2.0, "loop file")
    assert facts["effect"] == (0.6, "given")
    assert facts["harm"] == ("low", "given")
    assert facts["outcome_depends"] == (True, "assumed")
    assert (facts["delay"][1], facts["labelled"][1], facts["units"][1], facts["loss"][1]) == ("log",) * 4
    assert found["strategy"] == "A/B"
    assert found["stages"].startswith('rollout=[Shadow("6h"), Canary(0.1), ABTest("squared_error", units=')
    sized = asked("trial", "size", "--loop", "shop", "--mde", "0.6", "--relative", "--looks", "14", "--until", UNTIL,
                  "--over", "1", "--json")  # fmt: skip
    assert (found["per_arm"], found["total"], found["days"]) == (sized["per_arm"], sized["total"], sized["days"])


def test_a_loop_file_alone_gives_a_strategy_and_registers_nothing(asked, shop):
    found = asked("advise", str(shop[0] / "shop.py"), "--no-outcome-depends", "--json", home="nowhere")
    assert (found["strategy"], found["loop"], found["per_arm"]) == ("paired shadow", "shop", None)
    assert not (shop[0] / "nowhere").exists()


def test_numbers_can_be_said_without_a_loop(asked):
    found = asked("advise", "--rate", "0.1", "--daily-units", "3000", "--effect", "0.1", "--json", home="nowhere")
    assert found["strategy"] == "A/B"
    assert found["days"] == -(-found["total"] // 3000) + 1  # each is measured for a day
    assert facts_of(found)["loss"] == ({"mean": 0.1, "sd": pytest.approx(0.3)}, "given")
    assert asked("advise", "--ranker", home="nowhere").startswith("interleaving\n")


def test_what_pairing_leaves_is_read_from_the_last_shadow(asked, shop):
    before = asked("advise", "shop", "--no-outcome-depends", "--until", UNTIL, "--json")
    seen = ShadowEvidence(
        champion_loss=Moments(500, 1.0, 499 * 4.0), challenger_loss=Moments(500, 1.0, 499 * 4.0),
        loss_difference=Moments(500, 0.0, 499 * 0.4),
    )  # fmt: skip
    evidence = {"loss_difference": seen.loss_difference, "champion_loss": seen.champion_loss,
                "challenger_loss": seen.challenger_loss}  # fmt: skip
    database = ControlDatabase(f"sqlite:///{shop[0] / 'home' / 'control.db'}")
    plain = {name: {"count": m.count, "centre": m.centre, "spread": m.spread} for name, m in evidence.items()}
    with database.write() as connection:
        record(
            connection, Decision("shop-t1-0-advance", "shop", 1, "trial", "advance", evidence=plain, trial="shop-t1")
        )
    database.dispose()
    after = asked("advise", "shop", "--no-outcome-depends", "--until", UNTIL, "--json")
    assert facts_of(after)["pairing"] == (pytest.approx(0.05), "log")
    assert after["total"] < 0.4 * before["total"]


def test_on_a_terminal_what_is_not_known_is_asked_for(asked, monkeypatch):
    from leaven.cli import advise

    answers = iter([False, True, 0.05, "high", 2, False, True])
    questions = []

    def answer(question, **_):
        questions.append(question)
        return next(answers)

    monkeypatch.setattr(advise.sys, "stdin", type("Terminal", (), {"isatty": staticmethod(lambda: True)})())
    monkeypatch.setattr(advise.typer, "confirm", answer)
    monkeypatch.setattr(advise.typer, "prompt", answer)
    text = asked("advise", "shop", "--until", UNTIL)
    assert text.startswith("paired shadow\n")
    assert len(questions) == 7
    assert "asked" in text
    silent = asked("advise", "shop", "--until", UNTIL, "--json")  # a program is never asked
    assert {fact["source"] for fact in silent["facts"]} == {"loop file", "log", "assumed"}


def test_now_is_where_the_log_is_read_up_to_unless_a_moment_is_named(asked):
    far = (datetime.now(UTC) + timedelta(days=3_000)).date().isoformat()
    found = asked("advise", "shop", "--until", far, "--json")
    assert found["per_arm"] is None
    assert "units" not in facts_of(found)
