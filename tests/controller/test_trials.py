"""What the controller does with an open trial, and what it leaves alone."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import msgspec
import numpy as np
import pytest

from leaven.controller import self_testing, state
from leaven.controller.people import promote_by_hand, prove
from leaven.controller.self_testing import latest, salt_for
from leaven.controller.trials import _step_of_stage, begin_trial, reconcile_trial
from leaven.controller.verify import judged_again
from leaven.events import Label
from leaven.events.columns import column_time
from leaven.experiments import Canary, Shadow
from leaven.experiments import self_test as self_test_of_salts
from leaven.experiments.assignment import POSITIONS
from leaven.experiments.self_test import SelfTest
from leaven.registry import aliases, loops, versions
from tests.controller.pasts import Scripted, Watched, a_loop, a_past, day


def a_trial(kind="shadow", **loop):
    driver = Watched(a_loop(**loop), a_past(24, turns_on=4 if "learner" not in loop else None))
    return driver, driver.until_trial(kind)


def test_a_trial_that_is_looked_at_twice_with_nothing_new_spends_no_look_and_changes_nothing():
    driver, _ = a_trial()
    driver.run(11.25)
    before = driver.everything()
    for _ in range(3):
        reconcile_trial(driver.parts, driver.loop, driver.trial(), now=driver.now)
    assert driver.everything() == before


@pytest.mark.parametrize("kind", ["shadow", "canary"])
def test_what_is_judged_from_an_outdated_state_is_left_undone(kind):
    driver, _ = a_trial(kind)
    known = driver.trial()
    while driver.trial() is not None and driver.trial().step == known.step:
        driver.now += driver.loop.tick_length
        driver.step(driver.now)
    driver.now += driver.loop.tick_length
    driver.step(driver.now)
    before = driver.everything()
    reconcile_trial(driver.parts, driver.loop, known, now=driver.now)
    assert driver.everything() == before


def test_a_tick_that_comes_twice_or_again_after_a_crash_does_nothing_twice():
    driver = Watched(a_loop(), a_past(24, turns_on=7))
    calm = Watched(a_loop(), a_past(24, turns_on=7)).run(20)
    driver.run(6)
    while driver.now < day(20):
        driver.now += driver.loop.tick_length
        driver.step(driver.now)
        if driver.trial() is not None or driver.refreshes()[-1].state != "running":
            driver._controller.tick(driver.loop, driver.now)
    assert driver.decisions() == calm.decisions()
    assert driver.table() == calm.table()


def test_a_crash_in_the_middle_of_a_decision_leaves_none_of_it(monkeypatch):
    driver, _ = a_trial()
    from leaven.controller import moves

    def fail(*given, **named):
        raise KeyboardInterrupt

    monkeypatch.setattr(moves, "publish_routes", fail)
    before = driver.everything()
    with pytest.raises(KeyboardInterrupt):
        driver.run(16)
    after = driver.everything()
    assert after["decisions"] == before["decisions"]
    assert (after["table"], after["aliases"]) == (before["table"], before["aliases"])
    assert after["trials"][-1].step == before["trials"][-1].step
    monkeypatch.undo()
    driver.step(driver.now)
    assert driver.outcomes("trial")[-1] == "advance"


def test_a_champion_that_changes_under_a_trial_ends_it_without_a_verdict():
    driver, trial = a_trial("canary")
    with driver.database.write() as connection:
        number = versions.register(
            connection, "shop", artifact=versions.version(connection, "shop", 1).artifact, format="skops", mode="fit",
            definition_digest="x", at=0,
        )  # fmt: skip
        aliases.set_alias(connection, "shop", "champion", number, decision="by a person", at=driver.micros)
    driver.run((driver.now - day(0)).total_seconds() / 86_400 + 0.25)
    ended = driver.trials()[-1]
    assert (ended.id, ended.state) == (trial.id, "stopped")
    assert driver.decisions("trial")[-1].why == "the champion was changed during the trial"
    assert driver.alias("champion") == number
    assert [(arm.arm, arm.version) for arm in driver.table().arms] == [("champion", str(number))]
    assert driver.refreshes()[-1].state == "rejected"


def test_a_rollout_that_is_edited_under_a_trial_ends_it_without_a_verdict():
    driver, _ = a_trial()
    edited = replace(driver.loop, rollout=(Shadow("2d"),))
    ended = reconcile_trial(driver.parts, edited, driver.trial(), now=driver.now)
    assert ended.state == "stopped"
    assert "rollout was edited" in driver.decisions("trial")[-1].why
    assert driver.table().shadows == ()
    again = reconcile_trial(driver.parts, edited, ended, now=driver.now)
    assert again == ended
    assert driver.outcomes("trial").count("stop") == 1


def test_an_edit_elsewhere_in_the_loop_leaves_the_trial_open():
    driver, trial = a_trial()
    edited = replace(driver.loop, triggers=(), seed=7, gates=())
    assert reconcile_trial(driver.parts, edited, driver.trial(), now=driver.now).state == "open"
    assert driver.trial().id == trial.id


def test_a_paused_loop_moves_nothing_forward_and_goes_on_when_resumed():
    driver, trial = a_trial()
    with driver.database.write() as connection:
        loops.pause(connection, "shop", why="a holiday")
    driver.run(16)
    assert driver.trial().step == trial.step
    assert driver.outcomes("trial") == ["begin"]
    assert len(driver.refreshes()) == 2
    with driver.database.write() as connection:
        loops.resume(connection, "shop")
    driver.run(16.5)
    assert driver.outcomes("trial")[:2] == ["begin", "advance"]


def test_a_paused_loop_still_rolls_back_what_is_broken():
    canary = [Canary(0.3, each="12h", min_units=20)]
    driver, _ = a_trial("canary", learner=Scripted("good", "reversed"), gates=[], rollout=canary)
    with driver.database.write() as connection:
        loops.pause(connection, "shop", why="a holiday")
    driver.run(16)
    assert driver.trials()[-1].state == "rolled_back"
    assert driver.outcomes("trial") == ["begin", "roll_back"]
    assert len(driver.refreshes()) == 2  # and triggers are not asked


def test_a_trial_that_never_sees_enough_gives_up_when_its_patience_is_over():
    driver, _ = a_trial("canary", rollout=[Canary(0.3, each="12h", min_units=10_000, patience="3d")])
    driver.run(16)
    assert driver.trials()[0].state == "rolled_back"
    told = driver.decisions("trial")[1]
    assert "fewer than the 10000" in told.why
    assert told.rule["elapsed"] == 3 * 86_400_000_000


def until_it_ends(driver, *, within=14):
    """Run until the open trial has ended."""
    end = driver.now + timedelta(days=within)
    while driver.trial() is not None:
        assert driver.now < end
        driver.now += driver.loop.tick_length
        driver.step(driver.now)


def test_a_shadow_that_decides_promotes_past_the_canary_and_its_decision_can_be_judged_again():
    rollout = [Shadow("10d", margin=0.25, min_units=40, decides=True), Canary(0.5)]
    driver, trial = a_trial(rollout=rollout, outcome_depends_on_prediction=False)
    until_it_ends(driver)
    assert (driver.trials()[0].id, driver.trials()[0].state) == (trial.id, "promoted")
    told = driver.decisions("trial")[1]
    assert (told.outcome, told.version) == ("promote", int(trial.challenger))
    assert told.rule["elapsed"] < 10 * 86_400_000_000
    assert "the challenger's loss is lower" in told.why
    assert judged_again(told) == ("promote", told.why)
    assert "canary" not in driver.log._served.arm.tolist()
    assert driver.alias("champion") == int(trial.challenger)


def test_a_canary_that_answered_as_many_units_as_it_may_gives_them_back():
    driver, _ = a_trial("canary", rollout=[Canary(0.3, 0.6, each="12h", min_units=10_000, most_units=40)])
    until_it_ends(driver)
    assert driver.trials()[0].state == "rolled_back"
    told = driver.decisions("trial")[-1]
    assert "40 are its budget" in told.why
    assert judged_again(told) == ("roll_back", told.why)
    served = driver.log._served
    ours = (served.arm == "canary") & (served.version == driver.trials()[0].challenger)
    assert told.evidence["exposed"] == len(set(served.unit[ours].tolist())) >= 40


def test_loops_with_names_alike_keep_their_trials_apart():
    driver, trial = a_trial(name="my-tecs")
    other, refresh = a_loop(name="my-recs"), driver.refreshes()[-1]
    with driver.database.write() as connection:
        loops.put(connection, other, path="", source="", at=0)
        artifact = versions.version(connection, "my-tecs", 1).artifact
        first, second = (
            versions.register(
                connection, "my-recs", artifact=artifact, format="skops", mode="fit", definition_digest="x", at=0
            )
            for _ in range(2)
        )
        aliases.set_alias(connection, "my-recs", "champion", first, decision="d", at=0)
        for number in range(2):
            asked = state.open_refresh(connection, "my-recs", refresh.cause, as_of=0, now=0)
            if number == 0:
                state.save_refresh(connection, msgspec.structs.replace(asked, state="failed"), now=0)
    assert asked.id == refresh.id.replace("my-tecs", "my-recs")
    begun = begin_trial(driver.parts, other, second, refresh=asked.id, now=driver.now)
    assert (begun.loop, begun.challenger, begun.refresh) == ("my-recs", str(second), asked.id)
    assert begun.id != trial.id


def test_a_second_trial_of_a_loop_is_refused_while_one_is_open():
    driver, trial = a_trial()
    with pytest.raises(state.RefreshUnderWay, match=trial.id):
        begin_trial(driver.parts, driver.loop, 1, refresh=None, now=driver.now)


def test_a_step_is_counted_within_its_own_stage():
    shadow, canary = Shadow("1d"), Canary(0.1, 0.5)
    assert [_step_of_stage((shadow, canary), step) for step in range(3)] == [0, 0, 1]
    assert [_step_of_stage((canary, shadow, canary), step) for step in range(5)] == [0, 1, 0, 0, 1]


@pytest.mark.parametrize("share", [0.3, 0.6])
def test_the_canary_gets_the_units_of_its_range_and_a_step_up_only_adds_some(share):
    driver, _ = a_trial("canary")
    seen = {}
    while driver.trial() is not None:
        arms = {arm.arm: arm for arm in driver.table().arms}
        seen.setdefault(driver.trial().step, arms)
        assert arms.get("canary") is None or arms["canary"].low == 0
        assert sum(arm.high - arm.low for arm in arms.values()) == POSITIONS
        driver.now += driver.loop.tick_length
        driver.step(driver.now)
    ranges = [arms["canary"].high for arms in seen.values() if "canary" in arms]
    assert ranges == sorted(ranges)
    assert len(ranges) == 2
    assert share in [round(edge / POSITIONS, 6) for edge in ranges]


def test_a_shadow_answers_beside_the_champion_who_serves_everybody():
    driver, trial = a_trial()
    table = driver.table()
    assert [(arm.arm, arm.version) for arm in table.arms] == [("champion", trial.champion)]
    assert [(one.version, one.high) for one in table.shadows] == [(trial.challenger, POSITIONS)]


def test_after_a_promotion_the_champion_before_stands_by():
    driver, trial = a_trial("canary")
    while driver.trial() is not None:
        driver.now += driver.loop.tick_length
        driver.step(driver.now)
    table = driver.table()
    assert driver.trials()[0].state == "promoted"
    assert (table.champion.version, table.shadows) == (trial.challenger, ())
    assert [one.version for one in table.standby] == [trial.champion]
    assert driver.alias("challenger") is None


def test_each_trial_draws_its_units_anew():
    driver, first = a_trial()
    salt = driver.table().salt
    promote_by_hand(driver.database, "shop", int(first.champion), by="ada", why="", now=driver.now)
    assert driver.table().salt == "shop" != salt
    second = prove(driver.parts, driver.loop, int(first.challenger), start_with="canary", by="ada", now=driver.now)
    assert first.id in salt
    assert second.id in driver.table().salt != salt


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        ({"label": Label("bought", above=0.25, within="6h")}, "the loop's label was edited"),
        ({"unit": "visit"}, "the loop's unit was edited"),
        ({"label": Label("bought", above=0.25, within="6h"), "unit": "visit"}, "the loop's label and unit were edited"),
    ],
)
def test_a_question_that_is_edited_under_a_trial_ends_it_without_a_verdict(edit, says):
    driver, _ = a_trial()
    ended = reconcile_trial(driver.parts, replace(driver.loop, **edit), driver.trial(), now=driver.now)
    assert ended.state == "stopped"
    assert says in driver.decisions("trial")[-1].why


def test_a_trial_begins_with_a_salt_that_was_tested_and_keeps_what_was_seen():
    driver, trial = a_trial()
    begun = next(each for each in driver.decisions("trial") if each.outcome == "begin")
    found = msgspec.convert(begun.evidence["self_test"], SelfTest)
    assert (found.passed, found.salt) == (True, trial.salt)
    assert trial.salt == f"shop/{trial.id}" == driver.table().salt
    with driver.database.read() as connection:
        assert state.find_trial(connection, trial.id) == trial
    assert found.units > 150  # of 200 users
    assert [round(each.planned, 2) for each in found.tries[0].shares] == [0.3, 0.6]
    assert all(each.alike is not None for each in found.tries[0].shares)
    assert found.why in begun.why


def test_the_latest_units_are_tested_on_their_loss_under_the_champion():
    driver, _ = a_trial()
    now = driver.now
    examples = latest(driver.log, driver.loop, now=now)
    assert (examples.predictions.at < column_time(now - driver.loop.label.window)).all()
    found = salt_for(driver.parts, driver.loop, "shop-t9", now=now, step=1)
    judged = examples.mature().predictions
    served = judged.arm == "champion"
    assert found.with_loss == len(set(judged.unit[served & ~np.isnan(judged.answer)]))
    assert found.units == len(set(examples.predictions.unit))
    assert found.tries[0].independence is not None  # there is a trial before it
    again = salt_for(driver.parts, driver.loop, "shop-t9", now=now, step=1)
    assert again == found


def test_no_more_of_the_log_is_tested_on_than_is_needed(monkeypatch):
    driver, _ = a_trial()
    monkeypatch.setattr(self_testing, "MOST_ROWS", 50)
    asked = []
    examples = driver.log.examples

    def noted(span, *rest, **named):
        asked.append(span)
        return examples(span, *rest, **named)

    monkeypatch.setattr(driver.log, "examples", noted)
    few = latest(driver.log, driver.loop, now=driver.now)
    assert len(few) == 50
    assert len(asked) <= 2
    assert (few.predictions.at >= column_time(driver.now - timedelta(days=2))).all()


@pytest.mark.parametrize("kind", ["shadow", "canary"])
def test_an_unlucky_salt_is_replaced_and_the_units_are_dealt_by_the_next(kind, monkeypatch):
    alike = self_test_of_salts.ALIKE_ALPHA

    def unlucky_first(*given, salt, **named):
        monkeypatch.setattr(self_test_of_salts, "ALIKE_ALPHA", alike if salt.endswith("/2") else 1.1)
        return tried(salt, *given, **named)

    tried = self_test_of_salts._tried
    monkeypatch.setattr(self_test_of_salts, "_tried", lambda salt, *rest: unlucky_first(*rest, salt=salt))
    driver, trial = a_trial(kind)
    assert trial.salt == f"shop/{trial.id}/2" == driver.table().salt
    begun = next(each for each in driver.decisions("trial") if each.outcome == "begin")
    assert [each["passed"] for each in begun.evidence["self_test"]["tries"]] == [False, True]
    assert "salt 2" in begun.why
