"""Does `leaven trial` answer as promised: names in JSON, tables for people, exit codes, errors that name the cell?"""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from leaven.cli import main


@pytest.fixture
def asked(capsys):
    """Return a function that runs a command and gives its exit code and answer: JSON where asked for, else text."""

    def ask(*arguments: str):
        with pytest.raises(SystemExit) as left:
            main(arguments)
        text = capsys.readouterr().out
        return int(left.value.code or 0), json.loads(text) if "--json" in arguments else text

    return ask


@pytest.fixture
def shop(tmp_path):
    rng, n = np.random.default_rng(3), 2_000
    arm = rng.choice(["new", "old"], n)
    before = rng.gamma(2, 5, n)
    views = rng.poisson(6, n) + 1
    data = pd.DataFrame(
        {"user": [f"u{i}" for i in range(n)], "arm": arm, "before": before, "views": views,
         "revenue": 0.8 * before + rng.normal(5, 4, n) + (arm == "new"), "clicks": rng.binomial(views, 0.2),
         "country": rng.choice(["DE", "FR"], n)}
    )  # fmt: skip
    path = tmp_path / "shop.csv"
    data.to_csv(path, index=False)
    return path, data


def test_analyze_answers_with_the_promised_names(asked, shop):
    path, data = shop
    code, answer = asked("trial", "analyze", str(path), "--arm", "arm", "--control", "old", "--unit", "user",
                         "--metric", "revenue", "--ratio", "clicks/views", "--slice", "country", "--json")  # fmt: skip
    assert code == 0
    assert set(answer) >= {"arms", "srm", "results", "verdict"}
    assert answer["arms"] == data["arm"].value_counts().sort_index().to_dict()
    assert answer["srm"]["broken"] is False
    assert answer["srm"]["p_value"] == pytest.approx(stats.chisquare(list(answer["arms"].values())).pvalue)
    assert len(answer["results"]) == 6
    promised = {"metric", "arm", "control_mean", "arm_mean", "difference", "ci", "relative", "relative_ci", "p_value",
                "statistic", "method", "slice"}  # fmt: skip
    assert all(set(row) >= promised for row in answer["results"])
    first, by_arm = answer["results"][0], data.groupby("arm")["revenue"]
    theirs = stats.ttest_ind(by_arm.get_group("new"), by_arm.get_group("old"), equal_var=False)
    interval = theirs.confidence_interval()
    assert (first["metric"], first["arm"], first["method"], first["slice"]) == ("revenue", "new", "fixed", None)
    assert (first["p_value"], first["statistic"]) == pytest.approx((theirs.pvalue, theirs.statistic))
    assert first["ci"] == pytest.approx([interval.low, interval.high])
    assert {row["slice"] for row in answer["results"]} == {None, "country=DE", "country=FR"}
    assert answer["verdict"]["decision"] == "promote"
    assert "revenue" in answer["verdict"]["why"]


def test_analyze_shows_a_person_what_it_tells_a_program(asked, shop):
    code, text = asked("trial", "analyze", str(shop[0]), "--arm", "arm", "--control", "old", "--metric", "revenue",
                       "--covariate", "revenue=before")  # fmt: skip
    assert code == 0
    for said in ("old (control)", "split: as planned", "revenue", "95 %", "promote: new is better"):
        assert said in text


def test_less_can_be_better(asked, shop):
    _, answer = asked("trial", "analyze", str(shop[0]), "--arm", "arm", "--control", "old", "--metric", "revenue",
                      "--lower-is-better", "revenue", "--json")  # fmt: skip
    assert answer["verdict"]["decision"] == "stop"


def test_no_verdict_stands_on_a_broken_split(asked, shop):
    _, answer = asked("trial", "analyze", str(shop[0]), "--arm", "arm", "--control", "old", "--metric", "revenue",
                      "--shares", "old=0.7,new=0.3", "--json")  # fmt: skip
    assert answer["srm"]["broken"] is True
    assert answer["verdict"]["decision"] == "stop"
    assert "split" in answer["verdict"]["why"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--metric", "income"], "no column income"),
        (["--metric", "user"], "column user, row 1: 'u0' is no number"),
        ([], "nothing to compare"),
        (["--ratio", "clicks"], "'clicks' has not the form NUM/DEN"),
        (["--metric", "revenue", "--covariate", "clicks=before"], "'clicks' is not among them"),
        (["--metric", "revenue", "--metric", "revenue"], "'revenue' comes twice"),
        (["--metric", "revenue", "--alpha", "5"], "5 is no error rate"),
        (["--metric", "revenue", "--control", "gone"], "the arms are new, old"),
        (["--metric", "revenue", "--shares", "old=1"], "new is not in both"),
    ],
)
def test_wrong_use_says_what_and_where(asked, shop, arguments, said):
    code, answer = asked("trial", "analyze", str(shop[0]), "--arm", "arm", "--control", "old", *arguments, "--json")
    assert code == 2
    assert said in answer["error"]


def test_srm_says_whether_the_split_holds(asked):
    code, answer = asked("trial", "srm", "--counts", "8200,7800", "--shares", "1,1", "--json")
    assert (code, answer["broken"]) == (1, True)
    assert answer["p_value"] == pytest.approx(0.001565, abs=5e-7)
    code, answer = asked("trial", "srm", "--counts", "5010,4990", "--json")
    assert (code, answer["broken"]) == (0, False)
    assert "as planned" in asked("trial", "srm", "--counts", "5010,4990")[1]
    assert asked("trial", "srm", "--counts", "many", "--json")[0] == 2


def test_srm_holds_at_every_look_if_asked_to(asked):
    looks = ["--counts", "2600,2400", "--counts", "2750,2550", "--counts", "2850,2850"]
    code, answer = asked("trial", "srm", *looks, "--method", "sequential", "--json")
    assert (code, answer["broken"]) == (1, True)
    assert (answer["p_value"], answer["e_value"]) == pytest.approx((0.004653, 11.320073), abs=5e-7)


def test_boundaries_are_those_of_the_plan(asked):
    code, answer = asked("trial", "boundaries", "--looks", ".25,.5,.75,1", "--alpha", ".05", "--sides", "2", "--rho",
                         "3", "--json")  # fmt: skip
    assert code == 0
    assert answer["z"] == pytest.approx([3.359354, 2.760371, 2.359327, 2.029257], abs=5e-5)
    assert "2.029" in asked("trial", "boundaries", "--looks", ".25,.5,.75,1")[1]
    pocock = asked("trial", "boundaries", "--looks", ".5,1", "--spending", "pocock", "--json")[1]["z"]
    assert pocock == pytest.approx([2.157, 2.201], abs=1e-3)
    assert asked("trial", "boundaries", "--looks", ".5,.25", "--json")[0] == 2


def test_a_group_sequential_analysis_waits_for_its_boundary(asked, shop):
    ask = ["trial", "analyze", str(shop[0]), "--arm", "arm", "--control", "old", "--ratio", "clicks/views",
           "--method", "group-sequential", "--json"]  # fmt: skip
    code, answer = asked(*ask, "--planned", "4000", "--looks", ".25")
    assert (code, answer["verdict"]["decision"], answer["srm"]["method"]) == (0, "continue", "sequential")
    row = answer["results"][0]
    half = (row["ci"][1] - row["ci"][0]) / 2
    assert half / row["standard_error"] == pytest.approx(2.7604, abs=0.01)
    assert asked(*ask, "--planned", "2000")[1]["verdict"]["decision"] == "not enough evidence"
    assert "needs a plan" in asked(*ask)[1]["error"]
    assert "after a look at 1" in asked(*ask, "--planned", "2000", "--looks", "1")[1]["error"]


def test_a_confidence_sequence_is_wider_than_a_fixed_interval(asked, shop):
    ask = ["trial", "analyze", str(shop[0]), "--arm", "arm", "--control", "old", "--metric", "revenue", "--json"]
    fixed, always = asked(*ask)[1], asked(*ask, "--method", "confidence-sequence")[1]
    widths = [found["results"][0]["ci"][1] - found["results"][0]["ci"][0] for found in (fixed, always)]
    assert 1.3 < widths[1] / widths[0] < 2.5
    assert always["results"][0]["method"] == "confidence-sequence"


def test_size_says_units_and_days(asked):
    code, answer = asked("trial", "size", "--mean", "10", "--sd", "2", "--mde", ".03", "--relative", "--daily-units",
                         "100", "--json")  # fmt: skip
    assert code == 0
    assert (answer["per_arm"], answer["total"], answer["days"]) == (699, 1398, 14)
    rate = asked("trial", "size", "--rate", ".1", "--mde", ".01", "--json")[1]
    assert rate["per_arm"] == 14749
    assert rate["days"] is None
    looked = asked("trial", "size", "--rate", ".1", "--mde", ".01", "--looks", "14", "--json")[1]
    assert looked["per_arm"] == pytest.approx(14749 * 1.0496, rel=1e-3)
    uneven = asked("trial", "size", "--rate", ".1", "--mde", ".01", "--ratio", ".25", "--json")[1]
    assert uneven["total"] == uneven["control"] + uneven["arm"]
    assert "units" in asked("trial", "size", "--rate", ".1", "--mde", ".01", "--daily-units", "900,500,300")[1]


@pytest.mark.parametrize(
    "wrong", [[], ["--mean", "1"], ["--rate", ".1", "--sd", "1"], ["--rate", "1.2"], ["--sd", "1", "--relative"]]
)
def test_a_size_of_nothing_known_is_refused(asked, wrong):
    assert asked("trial", "size", "--mde", ".1", *wrong, "--json")[0] == 2


def test_corrections_raise_p_values_and_keep_the_raw_ones(asked, shop):
    ask = ["trial", "analyze", str(shop[0]), "--arm", "arm", "--control", "old", "--metric", "revenue", "--metric",
           "before", "--ratio", "clicks/views", "--slice", "country", "--json"]  # fmt: skip
    plain = asked(*ask)[1]["results"]
    raw = [row["p_value"] for row in plain]
    for name, oracle in (("bh", stats.false_discovery_control), ("holm", None)):
        rows = asked(*ask, "--correct", name)[1]["results"]
        assert [row["raw_p_value"] for row in rows] == pytest.approx(raw)
        corrected = np.array([row["p_value"] for row in rows])
        assert (corrected >= np.array(raw) - 1e-12).all()
        if oracle is not None:
            assert corrected == pytest.approx(oracle(raw))
        else:
            assert corrected.min() == pytest.approx(min(1, len(raw) * min(raw)))


def test_a_guardrail_must_be_shown_to_stay_within_its_margin(asked, shop):
    ask = ["trial", "analyze", str(shop[0]), "--arm", "arm", "--control", "old", "--ratio", "clicks/views", "--metric",
           "revenue", "--json", "--guardrail"]  # fmt: skip
    assert asked(*ask, "clicks/views=0.2")[1]["verdict"]["decision"] == "promote"
    held = asked(*ask, "clicks/views=0.001")[1]["verdict"]
    assert held["decision"] == "hold"
    assert "margin of 0.1 %" in held["why"]
    harmed = asked(*ask, "revenue=0.1", "--lower-is-better", "revenue")[1]["verdict"]
    assert harmed["decision"] == "stop"
    assert "every metric is one" in asked(*ask, "revenue=0.1", "--guardrail", "clicks/views=0.1")[1]["error"]


def test_a_slice_that_is_worse_vetoes(asked, tmp_path):
    rng, n = np.random.default_rng(5), 4_000
    arm, country = rng.choice(["new", "old"], n), np.where(rng.random(n) < 0.2, "FR", "DE")
    effect = np.where(country == "FR", -1.0, 1.0) * (arm == "new")
    path = tmp_path / "sliced.parquet"
    pd.DataFrame({"arm": arm, "country": country, "x": rng.normal(5, 1, n) + effect}).to_parquet(path)
    verdict = asked("trial", "analyze", str(path), "--arm", "arm", "--control", "old", "--metric", "x", "--slice",
                    "country", "--json")[1]["verdict"]  # fmt: skip
    assert verdict["decision"] == "hold"
    assert "country=FR" in verdict["why"]


def test_quantiles_count_units_not_rows(asked, tmp_path):
    rng, units = np.random.default_rng(6), 800
    unit = np.repeat(np.arange(units), 1 + rng.poisson(4, units))
    slow = np.exp(rng.normal(0, 0.5, units)[unit] + rng.normal(0, 0.5, len(unit)))
    data = pd.DataFrame({"user": unit, "arm": np.where(unit % 2, "new", "old"), "seconds": slow})
    path = tmp_path / "slow.csv"
    data.to_csv(path, index=False)
    ask = ["trial", "analyze", str(path), "--arm", "arm", "--control", "old", "--quantile", "seconds:0.95",
           "--lower-is-better", "seconds p95", "--json"]  # fmt: skip
    clustered, naive = (asked(*ask, *more)[1]["results"][0] for more in (["--unit", "user"], []))
    assert clustered["metric"] == "seconds p95"
    assert clustered["control_mean"] == pytest.approx(data[data["arm"] == "old"]["seconds"].quantile(0.95), rel=5e-3)
    assert clustered["n"] == [units // 2, units // 2]
    assert clustered["standard_error"] > 1.1 * naive["standard_error"]
    assert asked(*ask[:7], "--quantile", "seconds", "--json")[0] == 2


def test_what_is_only_shown_is_drawn_towards_none_and_says_so(asked, shop):
    ask = ["trial", "analyze", str(shop[0]), "--arm", "arm", "--control", "old", "--metric", "revenue"]
    (row,) = asked(*ask, "--json")[1]["results"]
    (small,) = asked(*ask, "--usual-effect", "0.02", "--json")[1]["results"]
    assert 0 < small["shrunk"] < row["shrunk"] < row["difference"] == small["difference"]
    usual = 0.02 * row["control_mean"]
    assert small["shrunk"] == pytest.approx(row["difference"] / (1 + (row["standard_error"] / usual) ** 2))
    assert 0.5 < small["bayesian"]["chance_to_win"] < 1
    assert small["bayesian"]["note"] == "display only, not peek-safe"
    assert (row["p_value"], row["ci"]) == (small["p_value"], small["ci"])  # no prior enters what decides
    text = asked(*ask)[1]
    assert "shrunk" in text
    assert "display only, not peek-safe" in text
    assert asked(*ask, "--usual-effect", "0", "--json")[0] == 2


def test_units_of_a_cluster_do_not_count_one_by_one(asked, tmp_path):
    rng = np.random.default_rng(8)
    village = np.repeat(np.arange(40), 25)
    data = pd.DataFrame({"village": village, "arm": np.where(village % 2, "new", "old"),
                         "y": rng.normal(0, 1, 40)[village] + rng.normal(10, 1, 1_000)})  # fmt: skip
    path = tmp_path / "villages.csv"
    data.to_csv(path, index=False)
    ask = ["trial", "analyze", str(path), "--arm", "arm", "--control", "old", "--metric", "y", "--json"]
    naive, clustered = (asked(*ask, *more)[1]["results"][0] for more in ([], ["--cluster", "village"]))
    means = data.groupby(["arm", "village"])["y"].mean()  # of equal size: the means of villages are the units
    theirs = stats.ttest_ind(means["new"], means["old"], equal_var=False)
    assert (clustered["p_value"], clustered["statistic"]) == pytest.approx((theirs.pvalue, theirs.statistic))
    assert clustered["n"] == [20, 20]
    assert clustered["standard_error"] > 3 * naive["standard_error"]
    sliced = asked(*ask, "--cluster", "village", "--slice", "village")
    assert sliced[0] == 0  # of one village each there is nothing to tell
