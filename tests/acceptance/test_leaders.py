"""Two controllers on one installation: one leads, the other waits, and nobody acts who was thought dead."""

from __future__ import annotations

import signal
import time

import pytest

from leaven.controller.service import LEASE_SECONDS
from tests.acceptance.conftest import Worlds
from tests.acceptance.stories import Story
from tests.acceptance.worlds import Started, World, differences

LEASE_LOST = 70  # exit code of a controller that lost its lease unawares


def test_when_the_leader_is_killed_the_other_takes_over_and_finishes_its_refresh(world: Worlds, story: Story) -> None:
    shop = world(at="refresh due")
    leader, other = _leader_and_other(shop)
    _, token = shop.lease()
    shop.send_until(10.0)
    shop.wait(lambda: (active := shop.refresh()) is not None and active.step == "train", "the training")
    leader.kill()
    killed = time.monotonic()
    shop.wait(lambda: shop.lease()[1] > token, "the other to lead", seconds=LEASE_SECONDS + 60)
    assert time.monotonic() - killed < LEASE_SECONDS + 30
    assert shop.lease() == (_holder(shop, other), token + 1)
    shop.settle(10.0)
    assert not differences(shop.everything(), story.state(10.0))


@pytest.mark.slow
def test_a_leader_that_was_stopped_for_longer_than_its_lease_never_acts_again(world: Worlds, story: Story) -> None:
    """It wakes up in the middle of a step that another one has done meanwhile."""
    shop = world(at="refresh due")
    leader, other = _leader_and_other(shop)
    shop.send_until(10.0)
    shop.wait(lambda: (active := shop.refresh()) is not None and active.step == "train", "the training")
    leader.signal(signal.SIGSTOP)
    shop.wait(lambda: shop.lease()[0] == _holder(shop, other), "the other to lead", seconds=LEASE_SECONDS + 60)
    shop.settle(10.0)
    then = shop.everything()
    leader.signal(signal.SIGCONT)
    assert leader.process.wait(60) == LEASE_LOST, shop.logs()
    assert not differences(shop.everything(), then)
    assert not differences(then, story.state(10.0))
    assert shop.lease()[0] == _holder(shop, other)


def test_a_second_controller_does_nothing_while_the_first_leads_and_follows_it_at_once_when_it_ends(
    world: Worlds, story: Story
) -> None:
    shop = world(at="advance due")
    leader, other = _leader_and_other(shop)
    shop.pass_to(11.0)
    assert not differences(shop.everything(), story.state(11.0))
    assert shop.lease()[0] == _holder(shop, leader)
    assert "another controller leads; waiting" in (shop.home / "logs" / "other.log").read_text()
    assert leader.end() == 0
    assert shop.lease()[0] == _holder(shop, other) or shop.lease_ended()  # given back: nobody waits for its end
    shop.wait(lambda: shop.lease()[0] == _holder(shop, other), "the other to lead")
    assert shop.run("retrain", "shop").returncode == 3  # the trial is still open
    assert not differences(shop.everything(), story.state(11.0))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_leaders_that_are_stopped_and_woken_in_turn_end_up_where_an_undisturbed_one_does(
    world: Worlds, story: Story
) -> None:
    shop = world(at="refresh due")
    _leader_and_other(shop)
    shop.send_until(10.0)
    for turn in range(5):
        holder = shop.lease()[0]
        leader = next(one for one in shop.running.values() if _holder(shop, one) == holder)
        time.sleep(0.7 * turn)
        leader.signal(signal.SIGSTOP)
        shop.wait(lambda before=holder: shop.lease()[0] != before, "another to lead", seconds=LEASE_SECONDS + 60)
        leader.signal(signal.SIGCONT)
        assert leader.process.wait(60) == LEASE_LOST, shop.logs()
        shop.start("controller", key=f"turn-{turn}")
    shop.settle(10.0)
    assert not differences(shop.everything(), story.state(10.0))


def _leader_and_other(shop: World) -> tuple[Started, Started]:
    leader = shop.start("controller", key="leader")
    shop.wait(lambda: shop.lease()[0] == _holder(shop, leader), "the first to lead")
    other = shop.start("controller", key="other")
    log = shop.home / "logs" / "other.log"
    shop.wait(lambda: "waiting to take over" in log.read_text(), "the second to wait")
    return leader, other


def _holder(shop: World, controller: Started) -> str:
    """Under which name the process holds the lease."""
    holder = shop.lease()[0]
    return holder if holder.endswith(f"-{controller.pid}") else f"the process {controller.pid}"
