"""The controller is killed with no warning, wherever it is; what it comes to is as if nothing had happened."""

from __future__ import annotations

import fcntl
import os
import random
import signal
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from tests.acceptance.conftest import Worlds
from tests.acceptance.stories import LAST, TICK, Story
from tests.acceptance.worlds import World, differences

ROOT = Path(__file__).parents[2]
STEPS = ("snapshot", "train", "register", "gate", "trial")


def test_a_refresh_whose_controller_dies_in_every_step_ends_as_if_it_had_not(world: Worlds, story: Story) -> None:
    shop = world(at="refresh due")
    for step in STEPS:
        _kill_in_step(shop, "shop-r2", step, day=10.0)
    shop.start("controller")
    shop.settle(10.0)
    assert not differences(shop.everything(), story.state(10.0))


def test_a_controller_that_dies_as_it_promotes_promotes_once(world: Worlds, story: Story) -> None:
    shop = world(at="nothing yet")
    _kill_in_step(shop, "shop-r1", "promote", day=6.0)
    shop.start("controller")
    shop.settle(6.0)
    assert not differences(shop.everything(), story.state(6.0))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("step", STEPS)
def test_a_refresh_whose_controller_dies_somewhere_in_a_step_ends_as_if_it_had_not(
    world: Worlds, story: Story, step: str, seed: int
) -> None:
    shop = world(at="refresh due")
    _kill_in_step(shop, "shop-r2", step, day=10.0, delay=random.Random(f"{seed} {step}").uniform(0, 0.05))
    shop.start("controller")
    shop.settle(10.0)
    assert not differences(shop.everything(), story.state(10.0))


@pytest.mark.parametrize("kill", ["before the commit", "after the commit"])
@pytest.mark.parametrize(("moment", "day"), [("advance due", 11.0), ("promotion due", 12.0)])
def test_a_trial_whose_controller_dies_at_its_decision_ends_as_if_it_had_not(
    world: Worlds, story: Story, moment: str, day: float, kill: str
) -> None:
    shop = world(at=moment)
    shop.start("controller")
    shop.wait(lambda: "controller" in shop.lease()[0], "the controller to lead")
    begun = len(shop.decisions("trial"))
    if kill == "before the commit":
        _kill_at_a_write(shop, then=lambda: shop.send_until(day))
        assert len(shop.decisions("trial")) == begun
    else:
        shop.send_until(day)
        _poll(lambda: len(shop.decisions("trial")) > begun, "the decision")
        shop.kill_controller()
    shop.start("controller")
    shop.settle(day)
    assert not differences(shop.everything(), story.state(day))


@pytest.mark.parametrize(
    ("kills", "seed"), [pytest.param(*each, marks=pytest.mark.slow) for each in ((4, 1), (40, 2), (40, 3), (40, 4))]
)
@pytest.mark.timeout(400)
def test_a_controller_that_dies_again_and_again_decides_what_an_undisturbed_one_does(
    world: Worlds, story: Story, kills: int, seed: int
) -> None:
    """Through a refresh, its shadow and its canary, under traffic."""
    shop, chance = world(at="refresh due"), random.Random(seed)
    shop.start_gateway()
    shop.wait(shop.in_force, "the gateway to take the routes")
    shop.begin_sending()
    shop.start("controller")
    now, left = 10.0 - TICK, kills
    while now < LAST:
        now += TICK
        shop.send_until(now)
        # Most of the time goes into the refresh, so it gets most of the kills; a start takes about two seconds.
        for _ in range(left if now == LAST else left // 2 if now == 10.0 else min(left, max(1, kills // 8))):
            time.sleep(chance.uniform(0.0, 3.0))
            shop.kill_controller()
            shop.start("controller")
            left -= 1
        shop.settle(now)
        assert not differences(shop.everything(), story.state(now)), f"after day {now}"
    assert left == 0


def _kill_in_step(shop: World, refresh: str, step: str, *, day: float, delay: float = 0.0) -> None:
    """Start a controller, let the tick of `day` come, and kill it in `step`: as it begins, or `delay` s later."""
    shop.send_until(day)
    shop.besides = {"PYTHONPATH": os.pathsep.join(filter(None, (os.environ.get("PYTHONPATH"), str(ROOT))))}
    controller = shop.start("controller", by=("tests.acceptance.halting", step))
    shop.wait(lambda: _stands_still(controller.pid), f"step {step} to begin")
    stopped = shop.refresh()
    assert stopped is not None
    assert (stopped.id, stopped.step, stopped.state) == (refresh, step, "running")
    if delay:
        controller.signal(signal.SIGCONT)
        time.sleep(delay)
    shop.kill_controller()


def _stands_still(pid: int) -> bool:
    """Whether the process was stopped by a signal."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


def _kill_at_a_write(shop: World, *, then: Callable[[], None]) -> None:
    """Keep everybody from writing, do `then`, and kill the controller when it waits for its turn to write."""
    with (
        closing(sqlite3.connect(shop.control_file, timeout=60, isolation_level=None)) as opened,
        shop.control_file.with_name("control.db.lock").open("a") as turn,
    ):
        # The controller prolongs its lease every few seconds, and this is not the write that is meant.
        until = opened.execute("SELECT until FROM leases WHERE name = 'controller'").fetchone()
        _poll(lambda: opened.execute("SELECT until FROM leases WHERE name = 'controller'").fetchone() != until, "it")
        opened.execute("BEGIN IMMEDIATE")
        then()
        _poll(lambda: _taken(turn.fileno()), "the controller to write")
        shop.running.pop("controller").kill()
        opened.execute("ROLLBACK")
    shop.end_lease()


def _taken(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    fcntl.flock(lock, fcntl.LOCK_UN)
    return False


def _poll(holds: Callable[[], bool], what: str, seen: Callable[[], object] = lambda: "") -> None:
    """Look as often as one can: what is waited for may be over in milliseconds."""
    end = time.monotonic() + 120
    while not holds():
        assert time.monotonic() < end, f"waited in vain for {what}: {seen()}"
        time.sleep(0.0002)
