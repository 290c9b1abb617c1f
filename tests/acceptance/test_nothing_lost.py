"""Gateway and flusher are killed, and their disk loses its power, under traffic: what was told is there, once."""

from __future__ import annotations

import random
import time
from collections import Counter

import pytest

from leaven.storage.wal import GATHER_SECONDS
from tests.acceptance.conftest import Worlds
from tests.acceptance.traffic import Traffic, visitors
from tests.acceptance.worlds import World

# A killed worker takes along what it had answered and not yet written: what gathers for GATHER_SECONDS, and what came
# while a write or a sync was under way, which takes as long as this machine's disk does.
DISK_SECONDS = 2.0


@pytest.mark.parametrize(("kills", "seed"), [(10, 1), pytest.param(64, 2, marks=pytest.mark.slow)])
@pytest.mark.timeout(900)
def test_killed_at_random_moments_under_traffic(world: Worlds, kills: int, seed: int) -> None:
    shop, chance = world(at="promoted"), random.Random(seed)
    shop.start_gateway(workers=2)
    shop.wait(shop.in_force, "the gateway to take the routes")
    killed: list[float] = []
    with visitors(shop.gateway_port, count=3, may_hang_up=True) as traffic:
        for number in range(kills):
            enough = len(traffic.acknowledged) + 20
            shop.wait(lambda enough=enough: len(traffic.acknowledged) >= enough, "more feedback")
            time.sleep(chance.uniform(0.0, 0.5))
            if number % 3:
                killed.append(time.monotonic())
                shop.kill_worker(chance)
            else:
                shop.kill_flusher()
            shop.feedback_ids(), shop.ids_in("predictions")  # readable at once
            if "flusher" not in shop.running:
                shop.start("flusher")
    assert traffic.refused == []
    held = everything_told_is_there_once(shop, traffic)
    told = [answer for answer in traffic.answers if answer.prediction]
    lost = [answer for answer in told if not held[answer.prediction]]
    before = [min(at - answer.received for at in killed if at > answer.received - 0.1) for answer in lost]
    assert max(before, default=0.0) <= GATHER_SECONDS + DISK_SECONDS
    print(
        f"{kills} kills, {len(killed)} of them of gateway workers: {len(traffic.acknowledged)} reports acknowledged, 0 "
        f"lost; {len(told)} predictions answered, {len(lost)} lost, the earliest {max(before, default=0.0):.3f} s "
        "before its worker was killed; 0 twice"
    )


def everything_told_is_there_once(shop: World, traffic: Traffic) -> Counter[str]:
    """Wait until the log is empty; what the lake then holds of predictions, by id."""
    shop.wait(lambda: set(traffic.acknowledged) <= set(shop.feedback_ids()), "the feedback to reach the lake")
    shop.running.pop("gateway").end()
    shop.wait(lambda: not [*(shop.home / "wal").glob("*/*.*")], "the log to be flushed")
    feedback, predictions = Counter(shop.feedback_ids()), Counter(shop.ids_in("predictions"))
    assert [id for id in traffic.acknowledged if feedback[id] != 1] == []
    assert [id for held in (feedback, predictions) for id, times in held.items() if times > 1] == []
    return predictions
