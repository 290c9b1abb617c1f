"""What `leaven cadence` says in each of its outcomes."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from leaven.cli.cadence import duration_text, show
from leaven.training.cadence import Cadence, recommend
from leaven.training.freshness import ageing_of
from leaven.training.staleness import Staleness
from tests.training.test_cadence import AGES, np, scores

SPENT = {"refresh_cost": 2.0, "train_cpu_s": 1.5, "measured_runs": 0, "lag_days": 3.0, "trial_days": 1.0}


def said(advice: Cadence, **other: object) -> str:
    out = Console(file=io.StringIO(), width=400, no_color=True)
    show(advice, SPENT | other, out)
    return out.file.getvalue()  # type: ignore[attr-defined]


def advised(staleness, *, floor_days=0.5, **asked):
    ageing = ageing_of(scores(staleness), AGES, rng=np.random.default_rng(0), draws=200)
    return recommend(ageing, **({"cost": 2.0, "value": 10.0, "lag": 3.0, "floor_days": floor_days} | asked))


def test_a_timer_is_said_with_its_interval_and_the_line_of_the_loop_file():
    text = said(advised(Staleness("linear", 0.004)), measured_runs=4)
    assert "refresh every 10.0 days (95 %: 9." in text
    assert "triggers=[Every('10d')]" in text
    assert "twice or half of it costs 19% more" in text
    assert "mean of the 4 newest versions of this installation" in text


def test_a_floor_that_binds_is_said():
    text = said(advised(Staleness("linear", 0.004), floor_days=20.0))
    assert "refresh every 20.0 days (95 %: 9.5 to 10.5, before the floor)" in text
    assert "takes 20 days: that is the floor" in text


@pytest.mark.parametrize(
    ("staleness", "cost", "verdict", "because"),
    [
        (Staleness("saturating", 0.05, 4.0), 50.0, "trigger only", "more than staleness ever will"),
        (Staleness("linear", -0.004), 2.0, "trigger only", "older models are better"),
        (Staleness("linear", 0.0), 2.0, "not enough evidence", "no change is within the interval"),
        (Staleness("linear", 0.0), 900.0, "not enough evidence", "no timer of 60 days or less pays"),
    ],
)
def test_no_timer_is_said_with_the_reason(staleness, cost, verdict, because):
    advice = advised(staleness, cost=cost)
    text = said(advice)
    assert text.startswith(verdict)
    assert because in text
    assert "Every(" not in text
    assert advice.interval_days is None


def test_an_interval_beyond_the_oldest_age_is_called_an_extrapolation():
    assert "none older than 60 was measured" in said(advised(Staleness("linear", 0.004), cost=200.0))


def test_days_are_written_as_a_loop_file_takes_them():
    assert [duration_text(days) for days in (0.01, 1.5, 6.9, 8.9)] == ["1h", "36h", "166h", "9d"]
