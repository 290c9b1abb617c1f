"""Gateway and flusher are killed, and their disk loses its power, under traffic: what was told is there, once."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

import pytest
from deltalake.exceptions import DeltaError

from leaven.storage.wal import GATHER_SECONDS
from tests.acceptance.conftest import Worlds
from tests.acceptance.stories import Story
from tests.acceptance.traffic import Traffic, visitors
from tests.acceptance.worlds import World
from tests.storage.disks import a_disk, why_no_disk
from tests.storage.powercut import begin, cut, recorded

ON_A_DISK = pytest.mark.skipif(
    bool(why_no_disk()),
    reason=f"no disk of ours can be mounted here ({why_no_disk()}); the cuts of a copy of the folder ran instead",
)
# A killed worker takes along what it had answered and not yet written: what gathers for GATHER_SECONDS, and what came
# while a write or a sync was under way, which takes as long as this machine's disk does.
DISK_SECONDS = 5.0


@pytest.mark.parametrize(
    ("kills", "seed", "log_first"),
    [(6, 1, False), *(pytest.param(*each, marks=pytest.mark.slow) for each in ((64, 2, False), (24, 3, True)))],
)
@pytest.mark.timeout(900)
def test_killed_at_random_moments_under_traffic(world: Worlds, kills: int, seed: int, log_first: bool) -> None:
    """Where replies wait for the log, no prediction that was answered is lost either."""
    shop, chance = world(at="promoted"), random.Random(seed)
    shop.besides = {"LEAVEN_LOG_BEFORE_REPLY": "1" if log_first else ""}
    shop.start_gateway(workers=2)
    shop.wait(shop.in_force, "the gateway to take the routes")
    killed: list[float] = []
    with visitors(shop.gateway_port, count=3, may_hang_up=True) as traffic:
        for number in range(kills):
            enough = len(traffic.acknowledged) + 20
            shop.wait(lambda enough=enough: len(traffic.acknowledged) >= enough, "more feedback")
            time.sleep(chance.uniform(0.0, 0.5))
            if number % 3:
                killed.append(shop.kill_worker(chance))
            else:
                shop.kill_flusher()
            shop.feedback_ids(), shop.ids_in("predictions")  # readable at once
            if "flusher" not in shop.running:
                shop.start("flusher")
    assert traffic.refused == []
    held = everything_told_is_there_once(shop, traffic)
    told = [answer for answer in traffic.answers if answer.prediction]
    lost = [answer for answer in told if not held[answer.prediction]]
    before = [min(at - answer.received for at in killed if at > answer.asked) for answer in lost]
    assert max(before, default=0.0) <= GATHER_SECONDS + DISK_SECONDS
    assert not (log_first and lost)
    print(
        f"{kills} kills, {len(killed)} of them of gateway workers: {len(traffic.acknowledged)} reports acknowledged, 0 "
        f"lost; {len(told)} predictions answered, {len(lost)} lost, the earliest {max(before, default=0.0):.3f} s "
        "before its worker was killed; 0 twice"
    )


def everything_told_is_there_once(shop: World, traffic: Traffic) -> Counter[str]:
    """Wait until the log is empty; what the lake then holds of predictions, by id."""
    shop.wait(
        lambda: set(traffic.acknowledged) <= set(shop.feedback_ids()), "the feedback to reach the lake", every=0.3
    )
    shop.running.pop("gateway").end()
    shop.wait(lambda: not [*(shop.home / "wal").glob("*/*.*")], "the log to be flushed")
    feedback, predictions = Counter(shop.feedback_ids()), Counter(shop.ids_in("predictions"))
    assert [id for id in traffic.acknowledged if feedback[id] != 1] == []
    assert [id for held in (feedback, predictions) for id, times in held.items() if times > 1] == []
    return predictions


@pytest.mark.parametrize("where", ["a copy that keeps what was synced", pytest.param("ext4, cut off", marks=ON_A_DISK)])
@pytest.mark.parametrize(("cuts", "seed"), [(1, 3), pytest.param(10, 4, marks=pytest.mark.slow)])
@pytest.mark.timeout(900)
def test_the_power_goes_under_traffic(story: Story, tmp_path: Path, where: str, cuts: int, seed: int) -> None:
    chance, traffics = random.Random(seed), []
    with ExitStack() as closing:
        disk = closing.enter_context(a_disk(tmp_path / "disk")) if where.startswith("ext4") else None
        home = (disk.path if disk else tmp_path) / "home"
        shop = story.begin("promoted", home)
        closing.callback(lambda: shop.close())
        subprocess.run(["sync", "-f", home], check=True)  # an installation that stood there for a while
        for number in range(cuts):
            journal = tmp_path / f"journal-{number}"
            if disk is None:
                begin(home, journal)
                shop.besides = recorded({"PYTHONPATH": os.environ.get("PYTHONPATH", "")}, journal)
            shop.start_gateway(workers=2)
            shop.wait(shop.in_force, "the gateway to take the routes")
            with visitors(shop.gateway_port, count=3, may_hang_up=True) as traffic:
                traffics.append(traffic)
                shop.wait(lambda now=traffic: len(now.acknowledged) > 100, "feedback")
                time.sleep(chance.uniform(0.0, 1.0))
                if disk is not None:
                    disk.cut_power()
                    time.sleep(1.0)  # what is asked now is answered, and what is told is refused
                kill_everything(shop)
            assert len(traffic.acknowledged) > 100
            if disk is not None:
                shop.close()
                disk.unmount()
                disk.mount()
                shop = World(home, shop.loop_file, shop.past)
            else:
                lose(home, journal, tmp_path / f"left-{number}", chance)
            shop.end_lease("flusher")
        shop.besides = {}
        shop.start_gateway()
        shop.wait(lambda: mended(shop), "the flusher to mend the tables", every=0.3)
        every = Traffic(0, acknowledged=[id for each in traffics for id in each.acknowledged])
        everything_told_is_there_once(shop, every)
        print(f"{where}: {cuts} cuts under traffic, {len(every.acknowledged)} reports acknowledged, 0 lost, 0 twice")


def mended(shop: World) -> bool:
    """Whether the tables open: what a power cut left of a last commit is removed when a flusher starts."""
    try:
        shop.feedback_ids(), shop.ids_in("predictions")
    except DeltaError:
        return False
    return True


def kill_everything(shop: World) -> None:
    """As the power does: at once, so that nothing is said after it."""
    pids = [*shop.workers(), *(started.pid for started in shop.running.values())]
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    while shop.running:
        shop.running.popitem()[1].kill()


def lose(home: Path, journal: Path, left: Path, chance: random.Random) -> None:
    """Keep of log and lake what a power cut might leave; the control database's own syncs are not noted here."""
    for name in ("wal", "lake"):
        cut(home / name, journal, left / name, chance=chance)
        shutil.rmtree(home / name)
        (left / name).rename(home / name)
    shutil.rmtree(journal)
