"""The whole system serves while versions change hands, parts die and the database is away."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from dataclasses import dataclass
from datetime import timedelta
from itertools import pairwise
from pathlib import Path

import pytest
from sqlalchemy import select

from leaven.storage.control.schema import leases
from tests.acceptance.conftest import Worlds
from tests.acceptance.test_leaders import LEASE_LOST
from tests.acceptance.traffic import Traffic, visitors
from tests.acceptance.worlds import World

FOLLOWS_WITHIN = 1.0  # seconds from a decision to the last question that the version before answers


def test_versions_change_hands_under_traffic_without_a_failed_request(world: Worlds) -> None:
    shop = world(at="promoted")
    shop.start_up(workers=2)
    with visitors(shop.gateway_port) as traffic:
        _until_answered_by(traffic, "2")
        changes = [Change("2", began=0.0, decided=0.0, followed=0.0)]
        for command, version in (("promote", "1"), ("rollback", "2"), ("promote", "1"), ("rollback", "2")):
            shop.clock.set(shop.clock.now() + timedelta(seconds=1))
            began = time.monotonic()
            decided = _decided(shop, command, *(["1"] if command == "promote" else []))
            shop.wait(shop.in_force, "the gateways to follow")
            changes.append(Change(version, began, decided, followed=time.monotonic()))
            _until_answered_by(traffic, version)
            time.sleep(0.3)
    assert traffic.refused == []
    assert {answer.status for answer in traffic.answers} == {200}
    _each_answer_was_live(traffic, changes)
    assert [one.outcome for one in shop.decisions("rollback")] == ["roll_back", "roll_back"]


@pytest.mark.parametrize("seconds", [5, pytest.param(60, marks=pytest.mark.slow)])
@pytest.mark.parametrize("on", [pytest.param("sqlite", marks=pytest.mark.slow), "postgres"])
def test_with_controller_and_database_away_every_prediction_is_served_and_all_feedback_kept(
    world: Worlds, on: str, seconds: float
) -> None:
    shop = world(at="promoted", on=on)
    shop.start_up(workers=2)
    with visitors(shop.gateway_port) as traffic:
        _until_answered_by(traffic, "2")
        os.kill(shop.part("controller"), signal.SIGKILL)
        with shop.database_away():
            began = time.monotonic()
            time.sleep(seconds)
            asked = len(traffic.answers)
            shop.wait(lambda: len(traffic.answers) > asked + 20, "predictions to go on")
        back = time.monotonic()
        assert {answer.version for answer in traffic.since(began)} == {"2"}

        # And everything is as before: the gateways follow a decision, a controller leads, the lake fills.
        _decided(shop, "promote", "1")
        _until_answered_by(traffic, "1")
        shop.wait(lambda: _leads(shop), "a controller to lead again")
    assert traffic.refused == []
    assert traffic.answers[-1].asked > back
    assert {answer.status for answer in traffic.answers} == {200}
    _all_feedback_is_in_the_lake_once(shop, traffic)
    assert shop.refreshes()[0].state == "promoted"  # nothing was lost, and nothing made in its place


@pytest.mark.parametrize("on", [pytest.param("sqlite", marks=pytest.mark.slow), "postgres"])
def test_a_refresh_that_is_under_way_when_the_database_goes_away_ends_well_when_it_is_back(
    world: Worlds, on: str
) -> None:
    shop = world(at="nothing yet", on=on)
    controller = shop.start("controller")
    shop.wait(lambda: (active := shop.refresh()) is not None and active.step == "train", "the training")
    with shop.database_away():
        time.sleep(4)  # longer than the training, whose end finds no database, and shorter than a lease

    def ended() -> bool:
        if "controller" in shop.running and controller.process.poll() == LEASE_LOST:
            shop.running.pop("controller")  # it took longer than a lease here after all, and somebody starts it again
            shop.start("controller", key="again")
        return shop.refresh() is None

    shop.wait(ended, "the refresh to end")
    assert (shop.alias(), shop.version_numbers()) == (1, [1])
    assert [one.state for one in shop.refreshes()] == ["promoted"]
    assert [one.outcome for one in shop.decisions("promote")] == ["promote"]


def _decided(shop: World, command: str, *arguments: str) -> float:
    """Run a command that changes the routes; return when the change could first be seen in the database."""
    before = shop.newest_revision()
    process = shop.start(command, "shop", *arguments, key=f"deciding-{time.monotonic_ns()}")
    end = time.monotonic() + 120
    while shop.newest_revision() == before:
        assert time.monotonic() < end, shop.logs()
        time.sleep(0.002)
    decided = time.monotonic()
    assert process.process.wait(120) == 0
    return decided


def _until_answered_by(traffic: Traffic, version: str) -> None:
    end = time.monotonic() + 120
    while not traffic.answers or traffic.answers[-1].version != version:
        assert time.monotonic() < end, traffic.refused or f"version {version} never answered"
        time.sleep(0.01)


@dataclass(frozen=True)
class Change:
    """Who serves, and when (`time.monotonic`) that was asked for, seen to be decided, and in force at all gateways."""

    version: str
    began: float
    decided: float
    followed: float


def _each_answer_was_live(traffic: Traffic, changes: list[Change]) -> None:
    """Live: routed by the table in force, or by the one before until all gateways followed, soon after the decision.

    How soon is the quickest of the changes: this machine may stall in one of them.
    """
    assert len(traffic.answers) > 200
    after = [change.followed for change in changes[1:]] + [float("inf")]
    for answer in traffic.answers:
        allowed = {
            change.version for change, until in zip(changes, after, strict=True)
            if answer.received >= change.began and answer.asked <= until
        }  # fmt: skip
        assert answer.version in allowed, (answer, changes)
    took = [
        max((answer.asked for answer in traffic.answers if answer.version == before.version
             and change.began <= answer.asked <= change.followed), default=0.0) - change.decided
        for before, change in pairwise(changes)
    ]  # fmt: skip
    print("the version before was asked for the last time", *(f"{max(each, 0.0):.3f}" for each in took), "s after")
    assert min(took) < FOLLOWS_WITHIN


def _all_feedback_is_in_the_lake_once(shop: World, traffic: Traffic) -> None:
    held = Counter()

    def all_there() -> bool:
        held.clear()
        held.update(shop.feedback_ids())
        return set(traffic.acknowledged) <= held.keys()

    shop.wait(all_there, "the feedback to reach the lake", every=0.3)
    assert [id for id in traffic.acknowledged if held[id] != 1] == []


def _leads(shop: World) -> bool:
    """Whether a controller that lives holds a lease that has not run out."""
    with shop.app.database.read() as connection:
        found = connection.execute(select(leases).where(leases.c.name == "controller")).one()
    return found.until > time.time_ns() // 1000 and Path(f"/proc/{found.holder.rpartition('-')[2]}").exists()
