"""What a person reads of a replay, and what somebody asks for by hand in it."""

from __future__ import annotations

from datetime import timedelta

import pytest
from rich.console import Console

from leaven.cli.replay import by_window, show_runs
from leaven.controller.replay import ReplayRun, ReplayWindow, replay
from leaven.errors import BadDefinition
from leaven.registry.decisions import Decision
from tests.controller.pasts import a_loop, a_past, day


def a_run(plan: str, *values: float, metric: str = "roc_auc", days: int = 7, decisions=()) -> ReplayRun:
    starts = [day(1) + timedelta(days=days * i) for i in range(len(values))]
    windows = [
        ReplayWindow(at.isoformat(), (at + timedelta(days=days)).isoformat(), 10, "1", {metric: value})
        for at, value in zip(starts, values, strict=True)
    ]
    overall = {metric: sum(values) / len(values)}
    return ReplayRun(plan, windows, overall, overall, 3, 1, 2, 0, 1.5, 12_345, 100, 2.0, list(decisions))


def shown(what: object) -> str:
    console = Console(width=140, force_terminal=True, color_system="standard", record=True)
    with console.capture() as captured:
        console.print(what)
    return captured.get()


def test_few_windows_are_shown_one_by_one_and_many_by_month():
    assert "2026-01-09" in shown(by_window([a_run("own", 0.7, 0.8)], "roc_auc"))
    many = shown(by_window([a_run("own", *[0.7] * 20)], "roc_auc"))
    assert "2026-01" in many
    assert "2026-01-09" not in many


def test_the_better_plan_is_bold_whichever_way_the_metric_points():
    for metric, best in (("roc_auc", "0.9000"), ("log_loss", "0.3000")):
        runs = [a_run("one", 0.9, metric=metric), a_run("other", 0.3, metric=metric)]
        assert f"\x1b[1m{best}\x1b[0m" in shown(by_window(runs, metric))


def test_the_last_rejection_says_why():
    why = "fine\n180 mature fresh rows are fewer than the 200 it takes"
    refused = Decision("d", "l", 1_767_225_600_000_000, "gate", "undecided", why=why)
    console = Console(width=200)
    with console.capture() as captured:
        show_runs([a_run("own", 0.7, decisions=[refused])], console)
    assert "own: last rejected on 2026-01-01: 180 mature fresh rows are fewer than the 200 it takes" in captured.get()
    assert "12,345" in captured.get()


def test_a_refresh_by_hand_is_made_once_on_the_day_that_was_named():
    run = replay(a_loop(triggers=[], rollout=[]), a_past(24, turns_on=7), name="x", start=day(6), by_hand=[day(12)])
    asked = [d for d in run.decisions if d.kind == "trigger"]
    assert [(d.by, d.at) for d in asked] == [("person:replay", int(day(12).timestamp() * 1e6))]
    assert run.refreshes == 2


def test_a_refresh_by_hand_waits_while_a_trial_is_under_way():
    days = [day(12), day(12) + timedelta(hours=6)]
    run = replay(a_loop(triggers=[]), a_past(24, turns_on=7), name="x", start=day(6), by_hand=days)
    first, second = [d.at for d in run.decisions if d.kind == "trigger"]
    ended = next(d.at for d in run.decisions if d.kind == "trial" and d.outcome in ("promote", "stop", "roll_back"))
    assert first < ended <= second


def test_a_day_outside_the_replay_is_refused():
    with pytest.raises(BadDefinition, match="--retrain"):
        replay(a_loop(), a_past(8), name="x", start=day(6), by_hand=[day(2)])
