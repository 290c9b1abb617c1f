"""Models of different ages on the same days: a world that turns makes old ones bad, one that stands does not."""

from __future__ import annotations

import json
from datetime import timedelta

import numpy as np
import pytest

from leaven.controller.backtest import back_test
from leaven.controller.history import HistoryLog
from leaven.curation import AllHistory, Recent
from leaven.errors import BadDefinition
from leaven.storage.history_file import History
from leaven.training.freshness import ageing_of
from tests.controller.pasts import a_loop, a_past, day

AGES = (0.0, 1.0, 4.0, 8.0)


def turning(days=40):
    """What speaks for buying moves from x to z and on, a full turn in 80 days."""
    past = a_past(days, seed=3)
    angle = 2 * np.pi * (past.at - past.at[0]) / np.timedelta64(80, "D")
    score = np.cos(angle) * past.features["x"] + np.sin(angle) * past.features["z"]
    bought = (np.random.default_rng(5).random(len(past)) < 1 / (1 + np.exp(-2.5 * score))).astype(float)
    return History(past.at, past.label_at, bought, past.unit, past.features)


def back_tested(past, *, loop=None, days=40, **other):
    log = HistoryLog(past)
    log.serve(day(days), None, lambda version: pytest.fail(version))
    asked = {"ages_days": AGES, "window": timedelta(days=1), "models": 14, "end": day(days), "as_of": day(days)}
    return back_test(loop or a_loop(), log, **(asked | other))


def excess(found):
    return ageing_of(found.scores, AGES, rng=np.random.default_rng(0), draws=100).curve.excess


def test_models_grow_worse_in_a_world_that_turns_and_not_in_one_that_stands():
    turned, still = back_tested(turning()), back_tested(a_past(40))
    assert (np.diff(excess(turned)) > 0).all()
    assert excess(turned)[-1] > 10 * abs(excess(still)[-1])
    assert turned.metric == "log_loss"


def test_a_model_is_fitted_once_and_answers_every_window_of_its_ages():
    found = back_tested(a_past(40), shares=(1.0,))
    scores = found.scores
    ends = scores.window - scores.age_days
    assert found.models == len(np.unique(ends.round(6))) == 14
    assert sorted(scores.age_days[np.isclose(ends, ends.min())]) == pytest.approx(range(9))
    assert len(found.windows) == len(np.unique(scores.window))


def test_the_newest_window_ends_where_labels_are_final_and_none_reaches_beyond_the_past():
    found = back_tested(a_past(40))
    assert found.windows[-1] == day(40) - timedelta(hours=6, days=1)
    assert found.windows[0] >= day(4)
    assert found.train_cpu_s > found.mean_cpu_s > 0


def test_windows_of_a_week_still_meet_models_of_every_age():
    found = back_tested(a_past(70, per_day=40), days=70, window=timedelta(days=7), ages_days=(0, 1, 4, 16), models=20)
    assert {0, 1, 2, 3, 4, 5, 6} <= set(found.scores.age_days.round(6))


def test_fewer_rows_are_a_share_of_the_loops_own_data():
    volume = back_tested(a_past(40), shares=(0.1, 0.5, 1.0)).volume
    assert volume.shares == (0.1, 0.5, 1.0)
    assert volume.rows[0] == pytest.approx(volume.rows[2] / 10, rel=0.02)
    assert volume.band[0][0] > volume.loss[2] == volume.band[2][0] == volume.band[2][1]


def test_a_past_that_is_too_short_says_how_much_is_needed():
    with pytest.raises(BadDefinition, match="days are needed"):
        back_tested(a_past(12), days=12)
    assert len(back_tested(a_past(20), loop=a_loop(data=AllHistory()), days=20, ages_days=(0, 2)).windows) > 8
    with pytest.raises(BadDefinition, match="no loss of single rows"):
        back_tested(a_past(40), metric="roc_auc")


def test_the_commands_keep_their_names(tmp_path, leaven):
    import pandas as pd

    past = turning()
    frame = {"at": past.at, "told": past.label_at, "bought": past.outcome, "user": past.unit} | past.features
    pd.DataFrame(frame).to_parquet(tmp_path / "past.parquet")
    loop = a_loop(data=Recent("4d"))
    (tmp_path / "shop.py").write_text(
        "from leaven import Feature, Label, Loop\nfrom leaven.curation import Recent\n"
        "from leaven.learners import XGBoost\nfrom leaven.training import Stateless\n"
        f"loop = Loop('shop', features={list(loop.features)!r}, unit='user', label={loop.label!r},\n"
        "    learner=XGBoost(rounds=10, max_depth=2), data=Recent('4d'), plan=Stateless())\n"
    )
    options = [str(tmp_path / "shop.py"), "--data", str(tmp_path / "past.parquet"), "--time", "at",
               "--label-time", "told", "--ages", "0,2,6", "--models", "12", "--json"]  # fmt: skip
    drawn = tmp_path / "curves.svg"
    curve = json.loads(leaven("freshness", *options, "--plot", str(drawn)).stdout)
    assert curve["ages_days"] == [0.0, 2.0, 6.0]
    assert len(curve["loss"]) == len(curve["band"]) == 3
    assert curve["slope_ci"][0] < curve["slope_per_day"] < curve["slope_ci"][1]
    assert curve["slope_ci"][0] > 0
    assert drawn.read_text().lstrip().startswith("<?xml")
    advice = json.loads(leaven("cadence", *options, "--value", "100", "--cost", "50").stdout)
    assert {"interval_days", "ci", "floor_days", "why", "cost_per_day"} <= advice.keys()
    assert advice["ci"][0] <= advice["interval_days"] <= advice["ci"][1]
    refused = leaven("freshness", str(tmp_path / "shop.py"), "--json")
    assert refused.returncode == 2
    assert "--data" in refused.stderr


def test_an_example_that_two_parts_of_the_data_hold_counts_once():
    alone = back_tested(a_past(40), loop=a_loop(data=Recent("4d"))).volume.rows
    twice = back_tested(a_past(40), loop=a_loop(data=Recent("4d") + Recent("4d"))).volume.rows
    assert twice == alone
