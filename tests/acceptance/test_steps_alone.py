"""An orchestrator drives the refresh: each step a command, JSON in and out, its exit code the answer."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from tests.acceptance.conftest import Worlds
from tests.acceptance.stories import Story
from tests.acceptance.worlds import World, differences
from tests.controller.pasts import day

DONE, REFUSED, AGAIN, NOTHING = 0, 10, 75, 99
CONSTANT = "XGBoost(rounds=1, eta=1e-9, threads=1)"  # as good as the same answer to everybody: the gate `Sane` sees it


def test_each_step_run_twice_does_it_once_and_the_last_one_promotes(world: Worlds, story: Story) -> None:
    shop = world(at="nothing yet")
    given = shop.home / "begin.json"
    given.write_bytes(msgspec.json.encode({"loop": "shop", "why": "every Monday"}))
    for name in ("snapshot", "train", "register", "gate", "trial", "promote"):
        out = shop.home / f"{name}.json"
        assert _step(shop, name, given, out) == DONE, name
        first = msgspec.json.decode(out.read_bytes())
        assert _step(shop, name, given, out) == DONE, f"{name} again"
        again = msgspec.json.decode(out.read_bytes())
        for costly in (first, again):
            costly.pop("training", None)
        assert again == first, name
        given = out
    assert shop.version_numbers() == [1]
    assert shop.alias() == 1
    assert [one.state for one in shop.refreshes()] == ["promoted"]
    assert [(one.kind, one.outcome) for one in shop.decisions()] == [("gate", "pass"), ("promote", "promote")]
    # The same examples and the same model as the controller's own refresh at this moment.
    theirs = story.state(6.0)["versions"][0]
    assert shop.everything()["versions"][0]["artifact"] == theirs["artifact"]


@pytest.mark.slow
def test_the_trial_step_says_try_again_until_the_trial_is_won(world: Worlds, story: Story) -> None:
    shop = world(at="advance due")
    given, out = shop.home / "trial.json", shop.home / "out.json"
    given.write_bytes(msgspec.json.encode(shop.refreshes()[0].payload))
    shop.clock.set(day(10.5))
    assert [_step(shop, "trial", given, out), shop.trial().step] == [AGAIN, 0]
    _at(shop, story, 11.0)
    assert [_step(shop, "trial", out, out), shop.trial().step] == [AGAIN, 1]
    assert _step(shop, "promote", out, out) == AGAIN  # not won yet, so nothing to promote
    _at(shop, story, 12.0)
    assert _step(shop, "trial", out, out) == DONE
    assert _step(shop, "trial", out, out) == DONE
    assert _step(shop, "promote", out, out) == DONE
    assert shop.refreshes()[0].state == "promoted"
    mine, theirs = shop.everything(), story.state(12.0)
    for each in (mine, theirs):
        del each["refreshes"]  # says at which step a refresh ended: here the last one, there the trial
    assert not differences(mine, theirs)


def test_a_step_that_a_gate_refuses_exits_with_10(world: Worlds) -> None:
    shop = world(learner=CONSTANT)
    given = shop.home / "begin.json"
    given.write_bytes(msgspec.json.encode({"loop": "shop"}))
    for name in ("snapshot", "train", "register"):
        assert _step(shop, name, given, given) == DONE
    assert _step(shop, "gate", given, given) == REFUSED
    assert "spread" in msgspec.json.decode(given.read_bytes())["why"]
    assert (shop.alias(), [one.state for one in shop.refreshes()]) == (None, ["refused"])
    assert _step(shop, "promote", given, given) == REFUSED  # whoever goes on all the same does not get past it
    assert shop.alias() is None


def test_with_nothing_to_learn_from_the_snapshot_exits_with_99(world: Worlds) -> None:
    shop = world(at=1.0)  # of history; what is mature by now is all held out
    given, out = shop.home / "begin.json", shop.home / "out.json"
    given.write_bytes(msgspec.json.encode({"loop": "shop"}))
    assert _step(shop, "snapshot", given, out) == NOTHING
    assert [one.state for one in shop.refreshes()] == ["nothing"]


@pytest.mark.slow
def test_a_step_beside_a_controller_waits_its_turn(world: Worlds) -> None:
    shop = world(triggers="[]")
    given, out = shop.home / "begin.json", shop.home / "out.json"
    given.write_bytes(msgspec.json.encode({"loop": "shop"}))
    shop.start("controller")
    shop.wait(lambda: "controller" in shop.lease()[0], "the controller to lead")
    said = shop.run("step", "snapshot", "--in", str(given), "--out", str(out))
    assert (said.returncode, out.exists()) == (AGAIN, False)
    assert "a controller leads this installation" in said.stderr
    assert shop.running.pop("controller").end() == 0
    assert _step(shop, "snapshot", given, out) == DONE


def test_a_step_of_no_name_and_a_file_of_no_sense_are_wrong_use(world: Worlds) -> None:
    shop = world(triggers="[]")
    given = shop.home / "begin.json"
    given.write_text("[]")
    for name in ("snapshot", "celebrate"):
        said = shop.run("step", name, "--in", str(given), "--out", str(given))
        assert (said.returncode, given.read_text()) == (2, "[]"), said.stderr


def _step(shop: World, name: str, given: Path, out: Path) -> int:
    said = shop.run("step", name, "--in", str(given), "--out", str(out))
    assert said.returncode in (DONE, REFUSED, AGAIN, NOTHING), said.stderr
    return said.returncode


def _at(shop: World, story: Story, days: float) -> None:
    """Let the clock show day `days`, with everything in the lake that the visitors of the story did until then."""
    moment = {11.0: "advance due", 12.0: "promotion due"}[days]
    lake = shop.home / "lake"
    lake.rename(shop.home / f"lake before day {days}")
    story.copy_lake(moment, lake)
    shop.send_until(days)
