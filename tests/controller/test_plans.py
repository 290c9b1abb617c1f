"""Plans in the loop: hybrid rebuilds when due, replay shows older rows again, updates are compared with rebuilds."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from itertools import pairwise

import msgspec
import numpy as np
import pytest
from sklearn.linear_model import SGDClassifier

from leaven.controller.replay import own_plan, replay, variant
from leaven.controller.reproducing import reproduce
from leaven.controller.verify import judged_again
from leaven.curation import AllHistory, Recent
from leaven.curation.snapshot import Snapshot, read_snapshot
from leaven.duration import instant
from leaven.learners import ScikitLearn, XGBoost
from leaven.loop import Feature
from leaven.registry import snapshots, versions
from leaven.training import Hybrid, Stateful, Stateless
from leaven.training.costs import Power
from leaven.training.learner import Files, TrainingSet
from tests.controller.pasts import Watched, a_loop, a_past, day

ONWARDS = ScikitLearn(SGDClassifier(loss="log_loss", learning_rate="constant", eta0=0.01))
QUICK = {"learner": ONWARDS, "data": AllHistory(), "rollout": [], "gates": [], "tick": "1d"}


class Soft:
    """A learner that takes labels between 0 and 1: each row counts as yes and as no, as far as it is either."""

    format, stateful, soft_labels = "skops", True, True

    def __repr__(self) -> str:
        return "Soft()"

    def fit(self, data: TrainingSet, *, seed: int) -> Files:
        return ONWARDS.fit(data, seed=seed)

    def update(self, parent: Files, data: TrainingSet, *, seed: int) -> Files:
        rng = np.random.default_rng(seed)
        return ONWARDS.update(parent, replace(data, label=(rng.random(len(data.label)) < data.label) * 1.0), seed=seed)


def made_of(driver: Watched) -> list[versions.VersionRecord]:
    with driver.database.read() as connection:
        return versions.versions(connection, "shop")


def snapshot_of(driver: Watched, version: versions.VersionRecord) -> Snapshot:
    with driver.database.read() as connection:
        return msgspec.convert(snapshots.snapshot(connection, version.snapshot).definition, Snapshot)


def test_hybrid_updates_at_its_pace_and_rebuilds_when_due():
    loop = a_loop(**QUICK, plan=Hybrid(update="1d", rebuild="5d", compare_every=None), triggers=[])
    driver = Watched(loop, a_past(24)).run(18)
    made = made_of(driver)
    assert [one.mode for one in made] == driver.modes
    assert driver.modes == (["fit", *["update"] * 4] * 3)[: len(driver.modes)]
    assert len(driver.modes) == 13  # day 6, and every day after
    assert "5d have passed" in made[5].lineage["plan"]["why"]
    assert made[5].parent is None
    assert made[5].lineage["replaces"] == 5
    for one in driver.decisions("plan"):
        assert judged_again(one) == (one.outcome, one.why)
    assert [one.outcome for one in driver.decisions("plan")] == driver.modes


def test_a_hybrid_replay_costs_less_than_a_stateless_one_and_refits_when_due():
    loop = a_loop(**QUICK | {"data": Recent("4d")}, plan=Hybrid(rebuild="4d"), triggers=[])
    loop = replace(loop, plan=Hybrid(update="1d", rebuild="4d"))
    assert own_plan(loop) == "hybrid"
    assert variant(loop, "hybrid") is loop
    assert repr(variant(loop, "stateless").triggers) == repr(loop.pace)  # at the same pace, whatever the plan
    past = a_past(16, per_day=60)
    runs = {
        plan: replay(variant(loop, plan), past, name=plan, start=day(6), window=timedelta(days=5))
        for plan in ("frozen", "stateless", "stateful", "hybrid")
    }
    assert runs["frozen"].refreshes == 1
    assert len({runs[plan].refreshes for plan in ("stateless", "stateful", "hybrid")}) == 1
    rows = {plan: run.train_rows for plan, run in runs.items()}
    assert rows["frozen"] < rows["stateful"] < rows["hybrid"] < rows["stateless"]


def test_without_replay_nothing_older_than_the_champion_s_snapshot_is_read_to_train():
    driver = Watched(a_loop(**QUICK, plan=Stateful()), a_past(24)).run(6)
    spans, read = [], driver.log.examples
    driver.log.examples = lambda span, *given, **named: (spans.append(span), read(span, *given, **named))[1]
    driver.run(23)
    taken = [snapshot_of(driver, one) for one in made_of(driver)]
    assert len(taken) > 3
    edges = [instant(max(stretch.end for stretch in snapshot.stretches)) for snapshot in taken]
    trained_on = [read_snapshot(snapshot, driver.log, driver.loop.label).predictions.id for snapshot in taken]
    everything = np.concatenate(trained_on)
    assert len(set(everything)) == len(everything)
    for one, (before, _) in zip(driver.refreshes()[1:], pairwise(edges), strict=True):
        spans.clear()
        payload = {"loop": "shop", "refresh": one.id, "as_of": one.as_of, "cause": {}, **one.payload}
        from leaven.controller.steps import run_step

        run_step("train", driver.parts, payload, now=driver.now)
        assert spans
        assert min(span.start for span in spans) == before


def test_taking_a_snapshot_onwards_asks_the_log_for_new_rows_only():
    from leaven.controller.steps import run_step

    driver = Watched(a_loop(**QUICK, plan=Stateful(), triggers=[]), a_past(24)).run(12)
    edge = instant(snapshot_of(driver, made_of(driver)[0]).stretches[-1].end)
    asked, read = [], driver.log.examples
    driver.log.examples = lambda span, *given, **named: (asked.append(span.start), read(span, *given, **named))[1]
    payload = {"loop": "shop", "refresh": "r", "as_of": driver.micros, "cause": {}}
    result = run_step("snapshot", driver.parts, payload, now=driver.now)
    assert result.payload["mode"] == "update"
    assert set(asked) == {edge}


@pytest.mark.parametrize("share", [0.5, 2.0])
def test_replay_shows_older_rows_again_as_many_as_asked_evenly_by_month(share):
    past = a_past(80, per_day=40)
    loop = a_loop(**QUICK, plan=Stateful(replay=share), triggers=[])
    driver = Watched(loop, past).run(64, start=60)
    update(driver)
    first, second = made_of(driver)
    edge = max(stretch.end for stretch in snapshot_of(driver, first).stretches)
    learnt = read_snapshot(snapshot_of(driver, second), driver.log, loop.label).predictions
    older = learnt.at < np.datetime64(edge, "us")
    assert second.lineage["replayed"] == older.sum() == round(share * (~older).sum())
    assert second.lineage["learnt"] == first.lineage["learnt"] + (~older).sum()  # older ones were counted before
    months, counts = np.unique(learnt.at[older].astype("datetime64[M]"), return_counts=True)
    assert len(months) == 2
    assert counts.max() - counts.min() <= 1
    update(driver, days=3)  # the next one begins where the new rows of this one ended
    assert min(s.start for s in snapshot_of(driver, made_of(driver)[2]).stretches[1:]) == max(
        s.end for s in snapshot_of(driver, second).stretches
    )


def update(driver: Watched, *, days: float = 0) -> None:
    """Let time pass, then refresh on a person's word."""
    driver.run((driver.now - day(0)).total_seconds() / 86_400 + days)
    driver.ask()
    driver.now += driver.loop.tick_length
    driver.step(driver.now)


@pytest.mark.parametrize("learner", [Soft(), XGBoost(10, 3, update_rounds=3, threads=1)], ids=["own", "XGBoost"])
def test_older_rows_may_be_labelled_by_the_parent_s_answers(learner):
    if isinstance(learner, XGBoost):
        pytest.importorskip("xgboost")
    loop = a_loop(**QUICK | {"learner": learner}, plan=Stateful(replay=0.25, replay_labels="model"), triggers=[])
    driver = Watched(loop, a_past(24)).run(14)
    update(driver)
    second = made_of(driver)[1]
    learnt = read_snapshot(snapshot_of(driver, second), driver.log, loop.label)
    older = learnt.predictions.at < np.datetime64(second.lineage["new_since"], "us")
    answers = driver.parts.model("shop", 1).answer(learnt.predictions.features)
    label, soft = driver.trained[-1].label, driver.trained[-1].soft
    assert soft
    assert not driver.trained[0].soft
    assert reproduce(driver.parts, loop, 2).equal
    assert older.sum() == round(0.25 * (~older).sum()) == second.lineage["replayed"]
    assert np.array_equal(label[older], answers[older])
    assert np.array_equal(label[~older], learnt.labels.value[~older])


def test_a_plan_that_only_goes_on_ends_a_refresh_with_what_to_do_when_the_features_change():
    driver = Watched(a_loop(**QUICK, plan=Stateful()), a_past(24)).run(8)
    grown = a_loop(**QUICK, plan=Stateful(), features=[Feature("x", "float")])
    driver.parts.loop = lambda name: grown
    update(driver)
    ended = driver.refreshes()[-1]
    assert ended.state == "failed"
    assert "the features lost z (float) since the champion" in ended.error
    assert "Use plan=Hybrid(), which rebuilds on such changes" in ended.error


def test_hybrid_rebuilds_when_the_features_change_and_the_reason_is_on_record():
    driver = Watched(a_loop(**QUICK, plan=Hybrid(), triggers=[]), a_past(24)).run(8)
    driver.parts.loop = lambda name: a_loop(**QUICK, plan=Hybrid(), triggers=[], features=[Feature("x", "float")])
    update(driver)
    first, second = made_of(driver)
    assert (second.mode, second.parent, driver.alias("champion")) == ("fit", None, 2)
    assert "the features lost z (float)" in second.lineage["plan"]["why"]
    assert second.lineage["replaces"] == first.number
    assert "the features lost z (float)" in driver.decisions("plan")[-1].why


class Forgets:
    """An update of it answers the reverse of what the new rows say; from scratch it is sound."""

    format, stateful = "skops", True

    def __repr__(self) -> str:
        return "Forgets()"

    def fit(self, data: TrainingSet, *, seed: int) -> Files:
        return ONWARDS.fit(data, seed=seed)

    def update(self, parent: Files, data: TrainingSet, *, seed: int) -> Files:
        return ONWARDS.fit(replace(data, label=1 - data.label), seed=seed)


@pytest.mark.parametrize("learner", [ONWARDS, Forgets()], ids=["a sound learner", "one whose updates forget"])
def test_a_model_from_scratch_beside_an_update_measures_the_gap_and_is_taken_if_that_is_shown(learner):
    plan = Hybrid(rebuild="60d", compare_every=3, gap=0.3)
    loop = a_loop(**QUICK | {"learner": learner}, plan=plan, triggers=[])
    driver = Watched(loop, a_past(24)).run(10)
    for _ in range(3):
        update(driver, days=1)
    made = made_of(driver)
    compared = made[3].lineage["compared"]
    assert [("compared" in one.lineage) for one in made] == [False, False, False, True]
    assert compared["updates"] == 3
    assert compared["other"]["cpu_seconds"] > 0
    decision = driver.decisions("compare")[-1]
    assert judged_again(decision) == (decision.outcome, decision.why)
    if learner is ONWARDS:
        assert (made[3].mode, made[3].parent, compared["taken"]) == ("update", 3, "updated")
        assert compared["share"]["low"] < 0.3
        assert made[3].lineage["otherwise"]["version"] is None  # what the other cost was measured beside it
        assert made[3].lineage["otherwise"]["mode"] == "fit"
    else:
        assert (made[3].mode, made[3].parent, compared["taken"]) == ("fit", None, "scratch")
        assert compared["share"]["low"] > 0.3
        held = read_snapshot(snapshot_of(driver, made[3]), driver.log, loop.label)
        assert len(held) == made[3].lineage["rows"] == made[3].lineage["learnt"] > 900  # all the loop's data


def test_every_update_tells_what_it_took_what_the_other_way_took_and_what_it_changed():
    loop = a_loop(**QUICK, plan=Stateful(), triggers=[])
    driver = Watched(loop, a_past(24)).run(10)
    driver.parts.power = Power(watts=20, grid_intensity=300)
    update(driver)
    first, second = made_of(driver)
    assert first.lineage.get("otherwise") is None
    assert first.lineage.get("energy") is None
    assert {"rows", "cpu_seconds", "wall_seconds", "peak_memory_mb"} <= set(second.lineage["training"])
    other = second.lineage["otherwise"]
    assert (other["mode"], other["version"], other["rows"]) == ("fit", 1, first.lineage["rows"])
    took = second.lineage["energy"]
    assert took["kwh"] == pytest.approx(second.lineage["training"]["cpu_seconds"] * 20 / 3.6e6)
    assert took["co2_g"] == pytest.approx(300 * took["kwh"])
    changed = driver.decisions("gate")[-1].evidence["forgetting"]
    assert changed["backward_transfer"] == changed["past"]["difference"]
    assert 0 <= changed["churn_decisions"] <= 1
    assert "forgetting" not in driver.decisions("gate")[0].evidence  # there was no champion
    assert {"leaven", "python", "numpy", "sklearn", "skops"} <= set(second.lineage["environment"])


def test_the_plan_of_a_loop_is_switched_by_one_word():
    written = repr(a_loop(plan=Stateless()))
    for plan in (Stateful(), Hybrid()):
        assert repr(a_loop(plan=plan)) == written.replace("Stateless()", repr(plan))
