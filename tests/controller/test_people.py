"""What a person decides takes effect at once, whole, and is on record with a name."""

from __future__ import annotations

from datetime import timedelta

import pytest

from leaven.controller import state
from leaven.controller.people import NothingToCancel, promote_by_hand, prove, request_cancel, request_refresh, roll_back
from leaven.controller.promotion import NothingToRollBack
from leaven.curation import Recent
from leaven.duration import micros
from leaven.errors import BadDefinition
from leaven.registry import aliases, loops, snapshots
from leaven.registry.versions import UnknownVersion
from tests.controller.pasts import Watched, a_loop, a_past


def two_versions(**loop):
    """A loop at rest whose second version is champion, the first one standing by."""
    driver = Watched(a_loop(rollout=[], **loop), a_past(24, turns_on=4)).run(11)
    assert (driver.alias("champion"), driver.alias("previous")) == (2, 1)
    driver.loop = a_loop(triggers=[], **loop)
    driver.parts.loop = lambda name: driver.loop
    return driver


def in_trial(kind="shadow"):
    driver = Watched(a_loop(), a_past(24, turns_on=4))
    return driver, driver.until_trial(kind)


def test_a_promotion_by_hand_serves_at_once_and_says_who_and_why():
    driver = two_versions()
    decided = promote_by_hand(driver.database, "shop", 1, by="ada", why="the old one was kinder", now=driver.now)
    table = driver.table()
    assert (table.champion.version, [one.version for one in table.standby]) == ("1", ["2"])
    assert (decided.by, decided.why, decided.version) == ("ada", "the old one was kinder", 1)
    assert driver.decisions("promote")[-1] == decided


def test_promoting_the_champion_again_keeps_the_one_to_go_back_to():
    driver = two_versions()
    promote_by_hand(driver.database, "shop", 2, by="ada", why="", now=driver.now)
    assert (driver.alias("champion"), driver.alias("previous")) == (2, 1)
    assert [one.version for one in driver.table().standby] == ["1"]


def test_a_version_that_does_not_exist_is_not_promoted_and_nothing_changes():
    driver = two_versions()
    before = driver.everything()
    with pytest.raises(UnknownVersion):
        promote_by_hand(driver.database, "shop", 9, by="ada", why="", now=driver.now)
    assert driver.everything() == before


def test_promoting_the_challenger_wins_its_trial():
    driver, trial = in_trial()
    promote_by_hand(driver.database, "shop", int(trial.challenger), by="ada", why="", now=driver.now)
    assert driver.trials()[-1].state == "promoted"
    assert driver.refreshes()[-1].state == "promoted"
    assert (driver.table().champion.version, driver.table().shadows) == (trial.challenger, ())
    assert driver.alias("challenger") is None


def test_a_rollback_gives_all_traffic_back_to_the_champion_before():
    driver = two_versions()
    decided = roll_back(driver.database, "shop", by="ada", why="complaints", now=driver.now)
    assert (decided.kind, decided.version, decided.by) == ("rollback", 1, "ada")
    assert [(arm.version, arm.propensity) for arm in driver.table().arms] == [("1", 1.0)]
    with driver.database.read() as connection:
        assert [span.version for span in aliases.history(connection, "shop", "champion")] == [1, 2, 1]


@pytest.mark.parametrize("kind", ["shadow", "canary"])
def test_a_rollback_during_a_trial_ends_the_trial_and_keeps_the_champion(kind):
    driver, trial = in_trial(kind)
    roll_back(driver.database, "shop", by="ada", why="", now=driver.now)
    assert driver.trials()[-1].state == "rolled_back"
    assert driver.refreshes()[-1].state == "rejected"
    assert [(arm.arm, arm.version) for arm in driver.table().arms] == [("champion", trial.champion)]


def test_there_is_nothing_to_roll_back_to_before_a_second_champion():
    driver = Watched(a_loop(triggers=[]), a_past(8)).run(7)
    before = driver.everything()
    with pytest.raises(NothingToRollBack, match="no earlier champion"):
        roll_back(driver.database, "shop", by="ada", why="", now=driver.now)
    assert driver.everything() == before


def test_a_person_puts_any_version_into_a_trial_at_the_stage_they_name():
    driver = two_versions()
    trial = prove(driver.parts, driver.loop, 1, start_with="canary", by="ada", now=driver.now)
    assert (trial.step, trial.champion, trial.refresh) == (1, "2", None)
    assert {arm.arm: arm.version for arm in driver.table().arms} == {"canary": "1", "champion": "2"}
    assert driver.decisions("trial")[-1].by == "ada"
    driver.run(15)
    assert driver.trials()[-1].id == trial.id
    assert driver.trials()[-1].state != "open" or driver.trials()[-1].looks > 0


@pytest.mark.parametrize(
    ("version", "stage", "error"),
    [(2, None, "is the champion"), (1, "interleave", "rollout"), (7, None, "no version")],
)
def test_what_cannot_be_proven_is_refused(version, stage, error):
    driver = two_versions()
    before = driver.everything()
    with pytest.raises((BadDefinition, UnknownVersion), match=error):
        prove(driver.parts, driver.loop, version, start_with=stage, by="ada", now=driver.now)
    assert driver.everything() == before


def test_while_a_refresh_or_trial_is_under_way_nothing_else_starts():
    driver, trial = in_trial()
    with pytest.raises(state.RefreshUnderWay, match="busy"):
        driver.ask()
    with pytest.raises(state.RefreshUnderWay):
        prove(driver.parts, driver.loop, int(trial.challenger), start_with=None, by="ada", now=driver.now)
    idle = two_versions()
    idle.ask()
    with pytest.raises(state.RefreshUnderWay, match="requested"):
        idle.ask()
    with pytest.raises(state.RefreshUnderWay):
        prove(idle.parts, idle.loop, 1, start_with=None, by="ada", now=idle.now)


@pytest.mark.parametrize("paused", [False, True])
def test_a_refresh_that_is_asked_for_starts_at_the_next_look_even_where_the_loop_is_paused(paused):
    driver = two_versions()
    if paused:
        with driver.database.write() as connection:
            loops.pause(connection, "shop", why="")
    asked = driver.ask()
    assert (asked.state, asked.cause.trigger) == ("requested", "manual")
    driver.now += driver.loop.tick_length
    driver.step(driver.now)
    taken = driver.refreshes()[-1]
    assert taken.id == asked.id
    assert taken.as_of == driver.micros
    assert taken.state == "proving"
    assert driver.decisions("trigger")[-1].by == "ada"


def test_cancelling_a_trial_routes_its_units_back():
    driver, trial = in_trial("canary")
    assert request_cancel(driver.database, "shop", by="ada", now=driver.now) == trial.id
    assert driver.trials()[-1].state == "stopped"
    assert driver.refreshes()[-1].state == "cancelled"
    assert len(driver.table().arms) == 1


def test_cancelling_what_nobody_has_begun_ends_it_and_frees_the_loop():
    driver = two_versions()
    asked = driver.ask()
    assert request_cancel(driver.database, "shop", by="ada", now=driver.now) == asked.id
    assert driver.refreshes()[-1].state == "cancelled"
    with pytest.raises(NothingToCancel):
        request_cancel(driver.database, "shop", by="ada", now=driver.now)
    assert driver.ask().id != asked.id


def test_a_refresh_learns_from_what_was_known_at_the_moment_that_a_person_names():
    driver = two_versions()
    then = driver.now - timedelta(days=4)
    with pytest.raises(BadDefinition, match="yet to come"):
        request_refresh(driver.database, "shop", by="ada", now=driver.now, as_of=driver.now + timedelta(days=1))
    asked = request_refresh(driver.database, "shop", by="ada", now=driver.now, as_of=then)
    driver.step(driver.now + driver.loop.tick_length)
    with driver.database.read() as connection:
        done = state.refresh(connection, asked.id)
        taken = snapshots.snapshot(connection, done.payload["snapshot"])
    assert done.as_of == taken.definition["as_of"] == micros(then)


def test_a_first_version_of_old_data_says_how_it_can_be_made():
    driver = Watched(a_loop(data=Recent("1d")), a_past(6))
    driver.enter(driver.now)
    driver.log.serve(driver.now, None, lambda version: pytest.fail("nobody serves yet"))
    late = driver.now + timedelta(days=400)
    request_refresh(driver.database, "shop", by="ada", now=late)
    driver.step(late)
    with driver.database.read() as connection:
        (ended,) = state.latest_refreshes(connection, "shop")
    assert ended.state == "nothing"
    assert 'Recent("1d")' in ended.payload["why"]
    assert "--as-of" in ended.payload["why"]


def test_two_decisions_of_one_moment_are_two():
    driver = two_versions()
    for _ in range(2):
        roll_back(driver.database, "shop", by="ada", why="", now=driver.now)
    assert [one.id for one in driver.decisions("rollback")] == ["shop-rollback-1", "shop-rollback-2"]
    assert driver.alias("champion") == 2
