"""What a person may stop, and what a person may not begin."""

from __future__ import annotations

import json
import time
from pathlib import Path

from tests.acceptance.conftest import Worlds
from tests.acceptance.worlds import SLOW_LEARNER, World

NEVER = {"extra": SLOW_LEARNER.format(seconds=600), "learner": "Slow(rounds=5)"}


def test_a_training_that_is_called_off_ends_and_nothing_of_it_is_kept(world: Worlds) -> None:
    shop = world(**NEVER)
    shop.start("controller")
    shop.wait(lambda: _training_processes(shop), "the training process")

    refused = shop.run("retrain", "shop", "--json")
    assert refused.returncode == 3
    assert "is busy: shop-r1 is running" in json.loads(refused.stdout)["error"]

    called_off = shop.run("cancel", "shop", "--json")
    assert called_off.returncode == 0, called_off.stderr
    assert json.loads(called_off.stdout) == {"cancelled": "shop-r1", "loop": "shop"}
    shop.wait(lambda: shop.refresh() is None, "the refresh to end")
    assert [(one.id, one.state) for one in shop.refreshes()] == [("shop-r1", "cancelled")]
    assert shop.version_numbers() == []
    shop.wait(lambda: not _training_processes(shop), "the training process to end")

    again = shop.run("cancel", "shop")
    assert again.returncode == 3
    assert "nothing to cancel" in again.stderr


def test_a_controller_that_is_told_to_stop_leaves_its_training_at_once_for_the_next_one(world: Worlds) -> None:
    shop = world(**NEVER)
    controller = shop.start("controller")
    shop.wait(lambda: _training_processes(shop), "the training process")
    assert controller.end() == 0  # though the training would have taken ten minutes
    assert not _training_processes(shop)
    assert [(one.state, one.step) for one in shop.refreshes()] == [("running", "train")]
    shop.start("controller")
    shop.wait(lambda: _training_processes(shop), "the training to begin again")


def test_a_refresh_that_is_called_off_while_no_controller_runs_stays_called_off(world: Worlds) -> None:
    shop = world(**NEVER)
    shop.start("controller")
    shop.wait(lambda: _training_processes(shop), "the training process")
    shop.kill_controller()
    shop.wait(lambda: not _training_processes(shop), "the training process to end with its controller")
    assert shop.run("cancel", "shop").returncode == 0
    shop.start("controller")
    shop.wait(lambda: shop.refresh() is None, "the refresh to end")
    assert [(one.id, one.state) for one in shop.refreshes()] == [("shop-r1", "cancelled")]


def test_a_trial_that_is_called_off_gives_all_units_back_to_the_champion(world: Worlds) -> None:
    shop = world(at="promotion due")
    shop.start("controller")
    assert shop.run("retrain", "shop").returncode == 3
    assert {arm.arm for arm in shop.table().arms} == {"champion", "canary"}
    assert shop.run("cancel", "shop").returncode == 0
    assert shop.trial() is None
    assert [(arm.arm, arm.version) for arm in shop.table().arms] == [("champion", "1")]
    shop.pass_to(12.0)
    assert (shop.refreshes()[0].state, shop.alias(), shop.alias("challenger")) == ("cancelled", 1, None)
    ended = shop.decisions("trial")[-1]
    assert (ended.outcome, ended.why) == ("stop", "cancelled")
    assert ended.by.startswith("person:")


def test_a_paused_loop_neither_begins_a_refresh_nor_moves_a_trial_forward_until_it_is_resumed(world: Worlds) -> None:
    shop = world(at="advance due")
    assert shop.run("pause", "shop", "--why", "stocktaking").returncode == 0
    shop.start("controller")
    shop.pass_to(11.0)
    assert shop.trial().step == 0  # undisturbed, it serves now
    status = json.loads(shop.run("status", "shop", "--json").stdout)["loops"][0]
    assert (status["paused"], status["paused_why"]) == (True, "stocktaking")
    assert shop.run("resume", "shop").returncode == 0
    shop.pass_to(11.5)
    assert shop.trial().step == 1


def test_a_paused_loop_begins_no_refresh_by_itself_and_one_that_is_asked_for(world: Worlds) -> None:
    shop = world()
    assert shop.run("pause", "shop").returncode == 0
    shop.start("controller")
    shop.pass_to(6.0)
    time.sleep(0.5)
    assert shop.refreshes() == []
    assert shop.run("retrain", "shop").returncode == 0
    shop.wait(lambda: shop.refreshes()[0].state == "running", "the refresh that was asked for")
    assert shop.refreshes()[0].cause.trigger == "manual"


def _training_processes(shop: World) -> list[str]:
    """Process ids of the training processes that the shop's controller started."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            command, environment = (entry / "cmdline").read_bytes(), (entry / "environ").read_bytes()
        except OSError:
            continue  # it ended while we looked
        if b"leaven.learners.fitting" in command and f"LEAVEN_HOME={shop.home}\0".encode() in environment:
            found.append(entry.name)
    return found
