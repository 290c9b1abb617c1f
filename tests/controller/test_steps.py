"""The steps of a refresh: each can come twice, and a stateful plan learns each example once."""

from __future__ import annotations

from itertools import pairwise

import msgspec
import numpy as np
import pytest
from sklearn.linear_model import SGDClassifier

from leaven.controller import state
from leaven.controller.people import promote_by_hand, request_cancel, roll_back
from leaven.controller.refreshes import InlineRunner, carry_out, noter
from leaven.controller.steps import STEP_NAMES, run_step
from leaven.curation import AllHistory, Recent
from leaven.curation.snapshot import Snapshot, SnapshotChanged, examples_digest, read_holdout, read_snapshot
from leaven.duration import instant
from leaven.learners import ScikitLearn
from leaven.registry import loops, snapshots, versions
from leaven.training import Stateful
from leaven.triggers import Cause, LabelsGrow
from tests.controller.pasts import Scripted, Watched, a_loop, a_past, day

HOUR = 3_600_000_000
ONWARDS = ScikitLearn(SGDClassifier(loss="log_loss", learning_rate="constant", eta0=0.01))


def an_opened_refresh(**loop):
    """A loop whose past has gone by for twelve days, and a refresh that has been opened and not begun."""
    driver = Watched(a_loop(triggers=[], **loop), a_past(24, turns_on=4)).run(12)
    with driver.database.write() as connection:
        opened = state.open_refresh(
            connection, "shop", Cause("manual", "why not"), as_of=driver.micros, now=driver.micros
        )
    return driver, {"loop": "shop", "refresh": opened.id, "as_of": opened.as_of, "cause": {}}


def run_steps(driver, payload, *, times=1, names=STEP_NAMES):
    codes = []
    for name in names:
        before = payload
        for _ in range(times):  # as an engine does that died before it could keep the result
            result = run_step(name, driver.parts, before, now=driver.now)
        codes.append(result.code)
        payload = msgspec.json.decode(msgspec.json.encode(result.payload))
        if result.code != "done":
            break
    return codes, payload


@pytest.mark.parametrize("times", [1, 2, 3])
def test_steps_that_come_twice_make_one_version_one_decision_one_trial(times):
    driver, payload = an_opened_refresh()
    codes, payload = run_steps(driver, payload, times=times)
    assert codes == ["done", "done", "done", "done", "again"]
    with driver.database.read() as connection:
        made = versions.versions(connection, "shop")
        kept = snapshots.snapshots(connection, "shop")
    assert [one.number for one in made] == [1, 2]
    assert len(kept) == 2
    assert driver.outcomes("gate") == ["pass", "pass"]
    assert [trial.challenger for trial in driver.trials()] == ["2"]
    assert driver.outcomes("trial") == ["begin"]
    assert driver.table().revision == 2


@pytest.mark.parametrize("times", [1, 2])
def test_without_a_rollout_the_gates_promote_once(times):
    driver, payload = an_opened_refresh(rollout=[])
    codes, _ = run_steps(driver, payload, times=times)
    assert codes == ["done"] * 6
    assert (driver.alias("champion"), driver.alias("previous"), driver.table().revision) == (2, 1, 2)
    assert driver.outcomes("promote") == ["promote", "promote"]


def test_a_promotion_that_comes_again_does_not_undo_what_a_person_decided_meanwhile():
    driver, payload = an_opened_refresh(rollout=[])
    _, payload = run_steps(driver, payload)
    roll_back(driver.database, "shop", by="ada", why="it was late", now=driver.now)
    assert driver.alias("champion") == 1
    again = run_step("promote", driver.parts, payload, now=day(13))
    assert again.code == "done"  # it was promoted, once
    assert driver.alias("champion") == 1


def test_a_trial_step_that_comes_again_after_a_rollback_opens_no_second_trial():
    driver, payload = an_opened_refresh()
    _, payload = run_steps(driver, payload, names=STEP_NAMES[:4])
    run_step("trial", driver.parts, payload, now=driver.now)
    roll_back(driver.database, "shop", by="ada", why="no", now=driver.now)
    run_step("trial", driver.parts, payload, now=day(13))
    assert [trial.state for trial in driver.trials()] == ["rolled_back"]
    assert driver.trial() is None


def test_the_gate_step_refuses_and_nothing_after_it_promotes():
    driver, payload = an_opened_refresh(learner=Scripted("good", "reversed"))
    codes, payload = run_steps(driver, payload)
    assert codes == ["done", "done", "done", "refused"]
    assert payload["gate"] == "fail"
    assert run_step("promote", driver.parts, payload, now=driver.now).code == "refused"
    assert driver.alias("champion") == 1


def test_the_trial_step_looks_again_until_the_trial_has_ended():
    driver, payload = an_opened_refresh()
    _, payload = run_steps(driver, payload)
    codes = []
    while not codes or codes[-1] == "again":
        driver.run((driver.now - day(0)).total_seconds() / 86_400 + 0.25)
        codes.append(run_step("trial", driver.parts, payload, now=driver.now).code)
    assert codes[-1] == "done"
    assert len(codes) > 2
    assert run_step("promote", driver.parts, payload, now=driver.now).code == "done"
    assert driver.outcomes("promote") == ["promote"]  # the first version's; the trial itself promoted the second


def test_a_loop_with_nothing_mature_has_nothing_to_do():
    driver = Watched(a_loop(), a_past(8))
    driver.log.serve(day(1), None, lambda version: None)
    with driver.database.write() as connection:
        loops.put(connection, driver.loop, path="", source="", at=0)
        opened = state.open_refresh(connection, "shop", Cause("manual", ""), as_of=0, now=0)
    payload = {"loop": "shop", "refresh": opened.id, "as_of": int((day(1) - instant(0)).total_seconds() * 1e6)}
    result = run_step("snapshot", driver.parts, payload, now=day(1))
    assert result.code == "nothing"
    assert "mature" in result.payload["why"]


def test_training_rows_are_mature_and_older_than_the_holdout_they_are_judged_on():
    driver = Watched(a_loop(), a_past(24)).run(12)
    with driver.database.read() as connection:
        taken = [msgspec.convert(one.definition, Snapshot) for one in snapshots.snapshots(connection, "shop")]
    assert len(taken) == 2
    for snapshot in taken:
        learnt = read_snapshot(snapshot, driver.log, driver.loop.label)
        held = read_holdout(snapshot, driver.log, driver.loop.label)
        as_of = np.datetime64(instant(snapshot.as_of).replace(tzinfo=None))
        assert len(learnt) > 200
        assert len(held) > 50
        assert learnt.predictions.at.max() < held.predictions.at.min()
        assert held.labels.closes_at.max() <= as_of
        # The holdout is the newest stretch of which every label is final: only what nobody ever told is missing.
        assert (snapshot.holdout.start, snapshot.holdout.end) == (snapshot.as_of - 30 * HOUR, snapshot.as_of - 6 * HOUR)
        assert len(learnt) == snapshot.rows
        assert examples_digest(learnt) == snapshot.digest


def test_the_version_is_trained_on_exactly_the_rows_of_its_snapshot():
    driver = Watched(a_loop(), a_past(24)).run(12)
    with driver.database.read() as connection:
        taken = [msgspec.convert(one.definition, Snapshot) for one in snapshots.snapshots(connection, "shop")]
    for snapshot, data in zip(taken, driver.trained, strict=True):
        learnt = read_snapshot(snapshot, driver.log, driver.loop.label)
        assert np.array_equal(data.matrix[:, 0], learnt.predictions.features["x"])
        assert np.array_equal(data.label, learnt.labels.value)


def test_a_training_whose_snapshot_no_longer_reads_the_same_is_refused():
    driver, payload = an_opened_refresh()
    payload = run_step("snapshot", driver.parts, payload, now=driver.now).payload
    driver.log._history.features["x"][500:1200] += 1e-9
    with pytest.raises(SnapshotChanged, match="now reads as"):
        run_step("train", driver.parts, payload, now=driver.now)


@pytest.mark.parametrize(("data", "short"), [(AllHistory(), 0), (Recent("30d", before="1d"), 1)])
def test_a_stateful_plan_learns_every_mature_example_once_and_in_order(data, short):
    loop = a_loop(learner=ONWARDS, plan=Stateful(), data=data, rollout=[], gates=[])
    driver = Watched(loop, a_past(24)).run(23)
    assert driver.modes == ["fit", *["update"] * (len(driver.modes) - 1)]
    assert len(driver.modes) > 4
    with driver.database.read() as connection:
        taken = [msgspec.convert(one.definition, Snapshot) for one in snapshots.snapshots(connection, "shop")]
        parents = [one.parent for one in versions.versions(connection, "shop")]
    assert parents == [None, *range(1, len(parents))]
    learnt = [read_snapshot(snapshot, driver.log, loop.label).predictions.id.tolist() for snapshot in taken]
    ids = [one for part in learnt for one in part]
    assert len(ids) == len(set(ids))
    assert ids == sorted(ids)
    assert all(before.stretches[-1].end == after.stretches[0].start for before, after in pairwise(taken))
    assert {one.holdout.start - one.stretches[-1].end for one in taken} == {short * 24 * HOUR}
    assert [len(data.label) for data in driver.trained] == [len(part) for part in learnt]


def test_after_a_lost_trial_a_stateful_plan_goes_on_from_the_champion_and_takes_the_unlearnt_rows_along():
    loop = a_loop(learner=ONWARDS, plan=Stateful(), data=AllHistory(), rollout=[])
    driver = Watched(loop, a_past(24)).run(7)
    driver.loop = loop
    with driver.database.read() as connection:
        first = msgspec.convert(snapshots.snapshots(connection, "shop")[0].definition, Snapshot)
    refused = a_loop(learner=ONWARDS, plan=Stateful(), data=AllHistory(), gates=(*loop.gates[:0], Refuses()))
    driver.parts.loop = lambda name: refused
    driver.run(19)
    with driver.database.read() as connection:
        taken = [msgspec.convert(one.definition, Snapshot) for one in snapshots.snapshots(connection, "shop")]
    assert {one.state for one in driver.refreshes()[1:]} == {"refused"}
    assert len(taken) > 2
    assert {snapshot.stretches[0].start for snapshot in taken[1:]} == {first.stretches[-1].end}


class Refuses:
    """A gate that lets nobody pass."""

    def look(self, check):
        from leaven.gates import GateEvidence

        return GateEvidence(len(check.fresh.examples))

    def judge(self, evidence):
        from leaven.gates import GateReport

        return GateReport("Refuses()", "fail", "no", evidence)


def test_growth_counts_all_that_a_continued_champion_learnt_and_not_its_last_update_alone():
    """Else each update is smaller than the one before, down to one at every tick."""
    loop = a_loop(learner=ONWARDS, plan=Stateful(), data=AllHistory(), rollout=[], gates=[], triggers=[LabelsGrow(0.3)])
    driver = Watched(loop, a_past(24)).run(23)
    rows = [len(data.label) for data in driver.trained]
    assert len(rows) > 2
    for count in range(2, len(rows)):
        assert sum(rows[: count + 1]) >= 1.2 * sum(rows[:count])


def test_a_cancelled_refresh_ends_before_its_next_step():
    driver, payload = an_opened_refresh()
    calls = []

    def train(*given, **named):
        calls.append("train")
        request_cancel(driver.database, "shop", by="ada", now=driver.now)
        return original(*given, **named)

    original, driver.parts.train = driver.parts.train, train
    with driver.database.read() as connection:
        opened = state.refresh(connection, payload["refresh"])
    InlineRunner(driver.parts).start(opened, now=driver.now)
    assert calls == ["train"]
    assert driver.refreshes()[-1].state == "cancelled"
    assert driver.outcomes("gate") == ["pass"]  # the first version's
    with driver.database.read() as connection:
        assert len(versions.versions(connection, "shop")) == 1


def test_a_refresh_that_a_person_ended_stays_ended_whatever_its_last_step_reports():
    driver, payload = an_opened_refresh()
    with driver.database.read() as connection:
        opened = state.refresh(connection, payload["refresh"])

    def call(name, payload):
        result = run_step(name, driver.parts, payload, now=driver.now)
        if name == "trial":
            promote_by_hand(driver.database, "shop", payload["version"], by="ada", why="", now=driver.now)
        return result

    carry_out(opened, call, noter(driver.parts, opened.id, lambda: driver.now))
    assert driver.refreshes()[-1].state == "promoted"
    assert (driver.trials()[-1].state, driver.alias("champion")) == ("promoted", 2)


def test_a_refresh_that_cannot_learn_fails_with_its_reason_and_the_next_one_may_start():
    driver = Watched(a_loop(), a_past(24)).run(7)

    def train(*given, **named):
        from leaven.training.learner import CannotLearn

        raise CannotLearn("A", "one class only", "Wait.")

    original, driver.parts.train = driver.parts.train, train
    driver.run(11)
    assert driver.refreshes()[-1].state == "failed"
    assert "one class only" in driver.refreshes()[-1].error
    driver.parts.train = original
    driver.run(15)
    assert driver.refreshes()[-1].state != "failed"
    assert driver.alias("champion") is not None


@pytest.mark.parametrize(("arms", "plan"), [("all", None), ("champion", Stateful()), ("own", None)])
def test_a_version_learns_from_the_arms_that_its_loop_names_and_its_lineage_says_which(arms, plan):
    other = {"learner": ONWARDS, "plan": plan} if plan is not None else {}
    driver = Watched(a_loop(data=Recent("8d", arms=arms), **other), a_past(24, turns_on=4)).run(17)
    with driver.database.read() as connection:
        made = versions.versions(connection, "shop")
        held = {one.snapshot: snapshots.snapshot(connection, one.snapshot).definition for one in made}
        lines = {one.number: versions.ancestry(connection, "shop", one.number) for one in made}
    seen = set()
    for one in made:
        kept = msgspec.convert(held[one.snapshot], Snapshot)
        examples = read_snapshot(kept, driver.log, driver.loop.label)  # raises where it reads otherwise now
        arm, version = examples.predictions.arm, examples.predictions.version
        assert kept.served == {name: (arm == name).sum() for name in set(arm)} == one.lineage["served"]
        assert {stretch.arms for stretch in kept.stretches} == {arms}
        if arms == "own" and kept.lineage:
            assert tuple(map(str, lines[int(kept.lineage[0])])) == kept.lineage
            assert set(version) <= {"", *kept.lineage}
        seen |= set(arm)
    assert len(made) > 2
    assert ("canary" in seen) is (arms != "champion")
