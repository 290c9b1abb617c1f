"""A trial holds, waits for a person's word, and watches what it promoted."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import msgspec
import numpy as np
import pytest

from leaven.controller import moves, state
from leaven.controller.people import promote_by_hand, prove, request_cancel, roll_back
from leaven.controller.standing import standing
from leaven.controller.steps import run_step
from leaven.controller.verify import judged_again
from leaven.controller.words import NotAsked, NoTrial, abort, approve, pause_trial, resume_trial
from leaven.errors import BadDefinition
from leaven.experiments import Approval, Canary, Pause, Shadow, Watch
from leaven.experiments.assignment import POSITIONS
from leaven.registry import aliases, loops
from tests.controller.pasts import Scripted, Watched, a_loop, a_past, day

CANARY = Canary(0.3, each="12h", margin=0.75, min_units=10)
WATCH = Watch("2d", holdback=0.3, min_units=20)
FULL = [CANARY, Pause("12h"), Approval("owner"), WATCH]


def many_users(days=16):
    """A past whose visitors are so many that both arms soon have enough of them."""
    past = a_past(days, per_day=300)
    unit = [f"user-{number}" for number in np.random.default_rng(5).integers(0, 2_000, len(past))]
    return replace(past, unit=np.array(unit, dtype=object))


def two_versions(script, rollout, **loop):
    """A loop with two versions, the second by the script's second word, and champion 1; no trigger fires."""
    driver = Watched(a_loop(learner=Scripted("good", script), gates=[], rollout=[], triggers=[], **loop), many_users())
    driver.run(6)
    driver.ask()
    driver.run(6.25)
    promote_by_hand(driver.database, "shop", 1, by="ada", why="", now=driver.now)
    driver.loop = replace(driver.loop, rollout=tuple(rollout))
    driver.parts.loop = lambda name: driver.loop
    return driver


def on_trial(script="good", rollout=FULL, start_with=None, **loop):
    driver = two_versions(script, rollout, **loop)
    prove(driver.parts, driver.loop, 2, start_with=start_with, by="ada", now=driver.now)
    return driver


def until(driver, holds, *, within=10.0):
    end = driver.now + (day(within) - day(0))
    while not holds():
        assert driver.now < end, [one.why for one in driver.decisions("trial")]
        driver.now += driver.loop.tick_length
        driver.step(driver.now)
    return driver


def at_step(driver, number):
    return until(driver, lambda: driver.trial() is None or driver.trial().step >= number)


def shares(driver):
    return {arm.arm: (arm.version, round(arm.propensity, 6)) for arm in driver.table().arms}


def all_judged_again(driver):
    judged = [(one, judged_again(one)) for one in driver.decisions("trial")]
    assert not [(one.id, again) for one, again in judged if again is not None and again != (one.outcome, one.why)]
    return sum(again is not None for _, again in judged)


def test_a_pause_keeps_the_routes_of_the_step_before_it_and_then_goes_on():
    driver = at_step(on_trial(), 1)
    before, began = driver.table(), driver.now
    assert shares(driver) == {"canary": ("2", 0.3), "champion": ("1", 0.7)}
    at_step(driver, 2)
    assert (driver.table(), driver.now - began) == (before, day(0.5) - day(0))
    told = driver.decisions("trial")[-1]
    assert told.why.startswith("held for 12h; no harm shown")
    assert all_judged_again(driver) == 2


@pytest.mark.parametrize("stage", ["pause", "approval"])
def test_harm_ends_a_trial_that_holds(stage):
    driver = on_trial("reversed", [CANARY, Pause("9d"), Approval(patience="9d")], start_with=stage)
    assert shares(driver)["canary"] == ("2", 0.3)
    until(driver, lambda: driver.trial() is None)
    assert driver.trials()[-1].state == "rolled_back"
    assert "worse than the margin" in driver.decisions("trial")[-1].why
    assert shares(driver) == {"champion": ("1", 1.0)}
    assert all_judged_again(driver) == 1


def test_a_trial_waits_for_a_person_s_word_and_says_who_gave_it():
    driver = at_step(on_trial(), 2)
    driver.run(12)
    assert driver.trial().step == 2
    with pytest.raises(BadDefinition, match="--for owner"):
        approve(driver.database, driver.loop, by="person:ada", why="fine", now=driver.now)
    decided = approve(
        driver.database, driver.loop, by="person:ada", why="looks fine", now=driver.now, on_behalf_of="owner"
    )
    assert (decided.outcome, decided.by) == ("promote", "person:ada")
    assert decided.why == "approved by ada for owner: looks fine"
    assert decided.evidence["canary"]["units"] > 0
    assert driver.trial().watching  # at once, with no controller


def test_an_approval_that_is_not_given_leaves_everything_with_the_champion():
    driver = on_trial(rollout=[CANARY, Approval(patience="2d")], start_with="approval")
    until(driver, lambda: driver.trial() is None)
    assert driver.trials()[-1].state == "rolled_back"
    assert "approval of a person was not given within 2d" in driver.decisions("trial")[-1].why
    assert driver.alias("champion") == 1
    assert all_judged_again(driver) == 1


def test_an_approval_before_any_traffic_routes_nothing():
    driver = on_trial(rollout=[Approval(), Shadow("12h")])
    assert (shares(driver), driver.table().shadows) == ({"champion": ("1", 1.0)}, ())
    approve(driver.database, driver.loop, by="person:ada", why="", now=driver.now)
    assert [one.version for one in driver.table().shadows] == ["2"]


def test_only_what_waits_for_a_word_takes_one():
    driver = on_trial()
    with pytest.raises(NotAsked, match="waits for nobody's word"):
        approve(driver.database, driver.loop, by="person:owner", why="", now=driver.now)
    at_step(driver, 2)
    pause_trial(driver.database, "shop", by="ada", why="", now=driver.now)
    with pytest.raises(NotAsked, match="is paused"):
        approve(driver.database, driver.loop, by="person:owner", why="", now=driver.now)
    abort(driver.database, "shop", by="ada", why="", now=driver.now)
    for word in (pause_trial, resume_trial, abort):
        with pytest.raises(NoTrial):
            word(driver.database, "shop", by="ada", why="", now=driver.now)


def test_the_promoted_challenger_is_watched_beside_units_that_had_the_old_champion_and_then_kept():
    driver = on_trial(rollout=[CANARY, WATCH])
    canary = {arm.arm: arm for arm in driver.table().arms}["canary"]
    at_step(driver, 1)
    holdback = {arm.arm: arm for arm in driver.table().arms}["holdback"]
    assert shares(driver) == {"champion": ("2", 0.7), "holdback": ("1", 0.3)}
    assert canary.high <= holdback.low
    assert holdback.high == POSITIONS
    assert (driver.alias("champion"), driver.alias("previous"), driver.trial().state) == (2, 1, "open")
    driver.run(16)
    assert [one.outcome for one in driver.decisions("trial")] == ["begin", "promote", "keep"]
    assert driver.decisions("trial")[-1].evidence["holdback"]["loss"]["count"] > 20
    assert (driver.trials()[-1].state, shares(driver)) == ("promoted", {"champion": ("2", 1.0)})
    assert all_judged_again(driver) == 2


def test_a_unit_stays_with_its_version_from_the_canary_into_the_watch():
    driver = on_trial(rollout=[CANARY, WATCH])
    salt = driver.table().salt
    at_step(driver, 1)
    assert driver.table().salt == salt


def test_a_refresh_is_promoted_when_its_watch_begins_and_its_steps_say_so():
    driver = Watched(a_loop(rollout=[CANARY, WATCH], gates=[]), a_past(16)).run(6)
    until(driver, lambda: driver.trial() is not None and driver.trial().watching, within=9)
    refresh = next(one for one in driver.refreshes() if one.id == driver.trial().refresh)
    assert refresh.state == "promoted"
    with driver.database.read() as connection:
        kept = state.refresh(connection, refresh.id).payload
    assert run_step("trial", driver.parts, kept, now=driver.now).code == "done"
    assert run_step("promote", driver.parts, kept, now=driver.now).code == "done"


def test_harm_after_the_promotion_gives_everybody_back_to_the_old_champion():
    driver = on_trial("reversed", [CANARY, WATCH], start_with="watch")
    until(driver, lambda: driver.trial() is None)
    told = driver.decisions("trial")
    assert [one.outcome for one in told] == ["begin", "promote", "roll_back"]
    assert "champion 2.0" in told[-1].why
    assert "worse than the margin" in told[-1].why
    assert (driver.alias("champion"), driver.alias("previous"), shares(driver)) == (1, None, {"champion": ("1", 1.0)})
    assert driver.trials()[-1].state == "rolled_back"
    assert all_judged_again(driver) == 1


@pytest.mark.parametrize("holdback", [0.0, 0.3])
def test_a_champion_that_fails_is_rolled_back_with_and_without_a_holdback(holdback):
    driver = on_trial("nan", [Watch("4d", holdback=holdback)])
    until(driver, lambda: driver.trial() is None)
    assert driver.outcomes("trial") == ["begin", "promote", "roll_back"]
    assert driver.alias("champion") == 1
    assert all_judged_again(driver) == 1


def test_without_a_holdback_everybody_gets_the_new_champion_at_once():
    driver = on_trial(rollout=[Watch("1d", holdback=0.0)])
    until(driver, lambda: driver.trial().watching)
    assert shares(driver) == {"champion": ("2", 1.0)}
    until(driver, lambda: driver.trial() is None)
    assert driver.outcomes("trial")[-1] == "keep"
    assert all_judged_again(driver) == 1


def test_a_daily_loop_is_not_held_up_by_a_long_watch():
    """The next challenger that reaches its trial ends the watch, by what was seen so far."""
    driver = on_trial(rollout=[Watch("30d", holdback=0.2)])
    until(driver, lambda: driver.trial().watching)
    driver.run(9)
    first = driver.trial()
    assert driver.ask().state == "requested"
    until(driver, lambda: driver.trials()[-1].id != first.id)
    ended = next(one for one in driver.trials() if one.id == first.id)
    told = [one for one in driver.decisions("trial") if one.trial == first.id][-1]
    assert (ended.state, told.outcome) == ("promoted", "keep")
    assert told.why.startswith("version 3 begins its own trial, so this watch ends; no harm shown in ")
    assert driver.trial().champion == "2"
    all_judged_again(driver)
    until(driver, lambda: driver.trial().watching)
    assert shares(driver) == {"champion": ("3", 0.8), "holdback": ("2", 0.2)}


def test_triggers_are_asked_during_a_watch_but_not_during_a_trial_that_is_open():
    driver = Watched(a_loop(rollout=[CANARY, Watch("30d")], gates=[]), a_past(24)).run(20)
    trials = driver.trials()
    assert len(trials) >= 2
    assert [one.state for one in trials[:-1]] == ["promoted"] * (len(trials) - 1)
    all_judged_again(driver)


def test_a_person_s_rollback_in_the_watch_gives_all_traffic_back_at_once():
    driver = at_step(on_trial(rollout=[CANARY, WATCH]), 1)
    decided = roll_back(driver.database, "shop", by="ada", why="complaints", now=driver.now)
    assert (decided.kind, decided.trial) == ("rollback", driver.trials()[-1].id)
    assert (driver.trials()[-1].state, shares(driver)) == ("rolled_back", {"champion": ("1", 1.0)})
    assert driver.alias("previous") is None  # a second rollback does not return to what was just left


@pytest.mark.parametrize("watching", [False, True])
def test_an_aborted_trial_leaves_all_units_with_the_champion_it_began_with(watching):
    driver = at_step(on_trial(rollout=[CANARY, WATCH]), int(watching))
    decided = abort(driver.database, "shop", by="ada", why="a holiday", now=driver.now)
    assert (decided.outcome, decided.why) == ("roll_back" if watching else "stop", "a holiday")
    assert driver.trials()[-1].state == ("rolled_back" if watching else "stopped")
    assert (driver.alias("champion"), shares(driver)) == (1, {"champion": ("1", 1.0)})


def test_a_watch_that_is_cancelled_leaves_the_new_champion():
    driver = at_step(on_trial(rollout=[CANARY, WATCH]), 1)
    driver.ask()
    cancelled = request_cancel(driver.database, "shop", by="ada", now=driver.now)
    assert cancelled == driver.refreshes()[-1].id  # the refresh that was asked for; the watch goes on
    assert driver.trial().watching
    assert request_cancel(driver.database, "shop", by="ada", now=driver.now) == driver.trials()[-1].id
    assert (driver.trials()[-1].state, shares(driver)) == ("promoted", {"champion": ("2", 1.0)})


@pytest.mark.parametrize(("version", "ends"), [(1, "rolled_back"), (2, "promoted")])
def test_a_promotion_by_hand_ends_a_watch(version, ends):
    driver = at_step(on_trial(rollout=[CANARY, WATCH]), 1)
    promote_by_hand(driver.database, "shop", version, by="ada", why="", now=driver.now)
    assert (driver.trials()[-1].state, shares(driver)) == (ends, {"champion": (str(version), 1.0)})


def test_a_rollout_that_is_edited_in_a_watch_ends_it_and_keeps_the_champion():
    driver = at_step(on_trial(rollout=[CANARY, WATCH]), 1)
    driver.loop = replace(driver.loop, rollout=(Shadow("1d"),))
    driver.run(9)
    assert (driver.trials()[-1].state, shares(driver)) == ("promoted", {"champion": ("2", 1.0)})


def test_a_paused_trial_moves_nothing_and_goes_on_when_resumed():
    driver = on_trial(rollout=[Canary(0.3, each="12h", margin=0.75, min_units=10, patience="2d"), WATCH])
    assert pause_trial(driver.database, "shop", by="ada", why="a holiday", now=driver.now) is not None
    assert pause_trial(driver.database, "shop", by="ada", why="", now=driver.now) is None
    before = driver.table()
    driver.run(10)
    assert (driver.trial().step, driver.table(), driver.outcomes("trial")) == (0, before, ["begin", "pause"])
    with driver.database.read() as connection:
        assert "ada: a holiday" in str(standing(connection, driver.loop, now=driver.now).paused)
    assert resume_trial(driver.database, "shop", by="ada", why="back", now=driver.now) is not None
    assert resume_trial(driver.database, "shop", by="ada", why="", now=driver.now) is None
    driver.run(10.25)
    assert driver.outcomes("trial") == ["begin", "pause", "resume", "promote"]


@pytest.mark.parametrize("start_with", ["canary", "watch"])
def test_a_paused_trial_still_rolls_back_what_harms(start_with):
    driver = on_trial("reversed", [CANARY, WATCH], start_with=start_with)
    if start_with == "watch":
        until(driver, lambda: driver.trial().watching)
    pause_trial(driver.database, "shop", by="ada", why="", now=driver.now)
    until(driver, lambda: driver.trial() is None)
    assert driver.trials()[-1].state == "rolled_back"


def test_a_paused_loop_does_not_end_its_watch():
    driver = at_step(on_trial(rollout=[CANARY, WATCH]), 1)
    with driver.database.write() as connection:
        loops.pause(connection, "shop", why="")
    driver.run(14)
    assert driver.trial().watching


class Crash(BaseException):
    """The process ends here."""


EVIDENCE = [(state, "keep_evidence"), (state, "keep_look")]
MOVE = [(state, "save_trial"), (moves, "publish_routes")]
ALIASES, END = [(aliases, "set_alias")], [(moves, "end_trial")]
TRANSITIONS = {
    "a pause ends": ("good", FULL, "pause", "advance", EVIDENCE + MOVE),
    "the watch begins": ("good", [CANARY, WATCH], None, "promote", EVIDENCE + ALIASES + MOVE),
    "the watch ends": ("good", [Watch("6h", holdback=0.3)], None, "keep", EVIDENCE + END + MOVE),
    "the watch rolls back": ("reversed", [WATCH], None, "roll_back", EVIDENCE + ALIASES + END + MOVE),
}


@pytest.mark.parametrize("transition", TRANSITIONS)
def test_a_crash_at_any_write_of_a_transition_leaves_none_of_it_and_the_next_look_does_all(monkeypatch, transition):
    script, rollout, start_with, outcome, writes = TRANSITIONS[transition]
    driver, calm = (on_trial(script, rollout, start_with=start_with) for _ in range(2))
    until(calm, lambda: outcome in calm.outcomes("trial"))
    while driver.now < calm.now - driver.loop.tick_length:
        driver.now += driver.loop.tick_length
        driver.step(driver.now)
    before, driver.now = driver.everything(), calm.now

    def crash(*given, **named):
        raise Crash

    for where, what in writes:
        with monkeypatch.context() as patched:
            patched.setattr(where, what, crash)
            with pytest.raises(Crash):
                driver.step(driver.now)
        assert driver.everything() == before, what
    driver.step(driver.now)
    did, calmly = driver.everything(), calm.everything()
    assert {name: did[name] for name in did if name != "refreshes"} == {  # which tell how long a training took
        name: calmly[name] for name in calmly if name != "refreshes"
    }


def test_where_a_trial_stands_is_told_with_plan_evidence_verdict_and_past():
    driver = at_step(on_trial(rollout=[CANARY, Pause("2d"), Approval("owner"), WATCH]), 1)
    for _ in range(4):
        driver.now += driver.loop.tick_length
        driver.step(driver.now)
    with driver.database.read() as connection:
        told = standing(connection, driver.loop, now=driver.now)
    assert (told.step, told.steps, told.stage, told.kind, told.share) == (2, 4, 'Pause("2d")', "canary", 0.3)
    assert [each.stands for each in told.plan] == ["passed", "present", "to come", "to come"]
    assert (told.verdict.outcome, told.at_least_days) == ("hold", 1.0)
    loss, failures, *_ = told.evidence
    assert (loss.metric, loss.arm, failures.metric) == ("log_loss", "canary", "failed units")
    assert loss.low < loss.difference < loss.high
    assert [(one.step, one.outcome, one.by) for one in told.past] == [(1, "advance", "rule")]
    assert {one.step for one in told.history} == {1, 2}
    assert msgspec.json.decode(msgspec.json.encode(told))["evidence"][0]["metric"] == "log_loss"


def test_where_a_watch_stands_and_where_it_ended():
    driver = at_step(on_trial(rollout=[CANARY, WATCH]), 1)
    driver.run(9)
    with driver.database.read() as connection:
        told = standing(connection, driver.loop, now=driver.now)
    assert (told.watching, told.evidence[0].arm) == (True, "champion")
    assert told.evidence[0].low < told.evidence[0].difference < told.evidence[0].high
    driver.run(12)
    with driver.database.read() as connection:
        told = standing(connection, driver.loop, now=driver.now)
    assert (told.state, told.verdict.outcome, [one.outcome for one in told.past]) == (
        "promoted", "keep", ["promote", "keep"],
    )  # fmt: skip


def test_a_loop_that_had_no_trial_has_nothing_to_stand():
    driver = two_versions("good", [CANARY])
    with driver.database.read() as connection:
        assert standing(connection, driver.loop, now=driver.now) is None


def test_the_history_of_looks_grows_with_the_logarithm_of_a_step_s_length():
    driver = on_trial()
    trial = driver.trial()
    with driver.database.write() as connection:
        for hour in range(1, 4_000):
            at = trial.since + hour * 3_600_000_000
            state.keep_look(connection, trial, state.Look(0, at, hour, "hold", ()))
        kept = state.looks(connection, trial.id)
    assert 200 < len(kept) < 200 + 200 * 4  # a look each of the first 200 hours, then 200 ln(4,000 / 200)
    assert max(b.at - a.at for a, b in pairwise(kept)) <= 4_000 * 3_600_000_000 / 190
