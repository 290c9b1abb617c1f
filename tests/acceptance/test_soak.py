"""The whole system under mixed load for a quarter of an hour: nothing leaks, and the counts balance to the event.

pytest -m slow tests/acceptance/test_soak.py [--soak MINUTES] -s
"""

from __future__ import annotations

import random
import signal
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from statistics import median

import psutil
import pytest

from tests.acceptance.conftest import Worlds
from tests.acceptance.test_nothing_lost import DISK_SECONDS
from tests.acceptance.traffic import Traffic, visitors
from tests.acceptance.worlds import World

# What may grow while the load stays the same: memory by allocators that keep what they once had, the rest not at all.
MEGABYTES, SHARE = 12.0, 0.10
HANDLES = 3
AT_REST = 8  # threads that delta-rs keeps


@dataclass
class Gauge:
    """How one process that is never killed stands, again and again."""

    process: psutil.Process
    seen: dict[str, list[float]] = field(default_factory=dict)

    def look(self) -> None:
        with self.process.oneshot():
            now = {
                "megabytes": self.process.memory_info().rss / 2**20,
                "descriptors": self.process.num_fds(),
                "threads": _threads(self.process.pid)[0],
                "connections": len(self.process.net_connections("inet")),
                "children": len(self.process.children()),
            }
        for what, value in now.items():
            self.seen.setdefault(what, []).append(value)

    def grown(self, what: str) -> tuple[float, float]:
        """What it stood at in the second quarter of the time, when all is warm, and in the last.

        Of threads and the like the least counts: some are started for a moment, and a leak is what stays.
        """
        seen, of = self.seen[what], median if what == "megabytes" else min
        quarter = max(len(seen) // 4, 1)
        return of(seen[quarter : 2 * quarter]), of(seen[-quarter:])


def _threads(pid: int) -> tuple[int, int]:
    """Threads of a process: its own, and those of delta-rs, which come with the work and go ten seconds after it."""
    names = Counter(path.read_text().strip() for path in Path(f"/proc/{pid}/task").glob("*/comm"))
    return names.total() - names["tokio-rt-worker"], names["tokio-rt-worker"]


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_nothing_leaks_and_the_counts_balance(world: Worlds, soak_minutes: float) -> None:
    shop, chance = world(at="promoted"), random.Random(11)
    before = set(shop.ids_in("predictions"))
    up = shop.start_up(workers=2)
    shop.wait(shop.in_force, "the gateways to take the routes")
    killed: list[float] = []
    done: Counter[str] = Counter()
    gauges: dict[str, Gauge] = {}
    # The first worker lives through it all, with the gateway and `leaven up`; its neighbour is killed again and again.
    steady = shop.workers()[0]
    end = time.monotonic() + soak_minutes * 60
    with visitors(shop.gateway_port, count=4, may_hang_up=True) as traffic:
        while time.monotonic() < end:
            done[_happens(shop, chance, killed, spare=steady, calm=time.monotonic() > end - soak_minutes * 40)] += 1
            parts = {"up": up.pid, "gateway": shop.part("gateway"), "worker": steady, "flusher": shop.part("flusher"),
                     "controller": shop.part("controller")}  # fmt: skip
            _look(gauges, parts)
            assert time.monotonic() - traffic.answers[-1].received < 10.0, shop.logs()
    lasting = [gauge.process.pid for gauge in gauges.values()]
    shop.wait(lambda: max(_threads(pid)[1] for pid in lasting) <= AT_REST, "delta-rs to come to rest")
    print(f"\n{soak_minutes:g} minutes: {dict(done)}; {len(killed)} workers killed")
    _balance(shop, traffic, killed, before)
    _no_leak(gauges)


def _happens(shop: World, chance: random.Random, killed: list[float], *, spare: int, calm: bool) -> str:
    """One of the things that happen to a system; controller and flusher are left alone once it is `calm`."""
    shop.clock.set(shop.clock.now() + timedelta(minutes=20))
    what = chance.choice(["promote", "rollback", "refresh", "refresh", "kill worker", *([] if calm else ["kill part"])])
    if what == "promote":
        assert shop.run("promote", "shop", chance.choice("12")).returncode in (0, 1)
    elif what == "rollback":
        assert shop.run("rollback", "shop").returncode in (0, 1)
    elif what == "refresh":
        shop.run("cancel", "shop")
        assert shop.run("retrain", "shop").returncode in (0, 1)
        shop.wait(lambda: not shop.in_steps(), "the refresh to take its steps")
        shop.run("cancel", "shop")
    elif what == "kill worker":
        killed.append(time.monotonic())
        (other,) = [pid for pid in shop.workers() if pid != spare]
        psutil.Process(other).send_signal(signal.SIGKILL)
        shop.wait(lambda: other not in (now := shop.workers()) and len(now) == 2, "a new worker")
    else:
        name = chance.choice(["flusher", "controller"])
        psutil.Process(shop.part(name)).send_signal(signal.SIGKILL)
        shop.end_lease(name)
        shop.wait(lambda: shop.part(name), f"another {name}")
    time.sleep(chance.uniform(0.5, 2.0))
    return what


def _look(gauges: dict[str, Gauge], parts: dict[str, int]) -> None:
    for name, pid in parts.items():
        if name not in gauges or gauges[name].process.pid != pid:
            with suppress(psutil.NoSuchProcess):
                gauges[name] = Gauge(psutil.Process(pid))  # it was killed, and another one stands in its place
        with suppress(psutil.NoSuchProcess):
            gauges[name].look()


def _balance(shop: World, traffic: Traffic, killed: list[float], before: set[str]) -> None:
    """Every request has an outcome, and every event is in the lake or accounted for."""
    told = [answer.prediction for answer in traffic.answers if answer.prediction]
    assert len(traffic.sent) == len(traffic.answers) + len(traffic.reports) + len(traffic.hung_up)
    assert len(told) == sum(answer.status == 200 for answer in traffic.answers)
    assert traffic.refused == []
    shop.running.pop("up").end(60)  # the gateway closes its log, and the flusher empties it
    assert list((shop.home / "wal").glob("*/*.*")) == []
    feedback, predictions = Counter(shop.feedback_ids()), Counter(shop.ids_in("predictions"))
    assert [id for id in traffic.acknowledged if feedback[id] != 1] == []
    assert [id for held in (feedback, predictions) for id, times in held.items() if times > 1] == []
    lost = [answer for answer in traffic.answers if answer.prediction and not predictions[answer.prediction]]
    for answer in lost:
        assert any(-0.1 <= at - answer.received <= DISK_SECONDS for at in killed), "lost, though nobody was killed"
    more = predictions.keys() - before - set(told)
    assert len(more) <= len(traffic.hung_up)  # written down, and the worker was killed before it could answer
    print(
        f"{len(traffic.sent)} requests sent = {len(traffic.answers)} predictions + {len(traffic.reports)} reports "
        f"answered + {len(traffic.hung_up)} connections broken; {len(told)} predictions answered = "
        f"{len(told) - len(lost)} in the lake + {len(lost)} lost at {len(killed)} kills; "
        f"{len(traffic.acknowledged)} reports acknowledged, all in the lake once"
    )


def _no_leak(gauges: dict[str, Gauge]) -> None:
    leaks = []
    for name, gauge in gauges.items():
        for what in gauge.seen:
            warm, last = gauge.grown(what)
            bound = max(MEGABYTES, SHARE * warm) if what == "megabytes" else HANDLES
            said = f"{name}: {what} {warm:.0f} -> {last:.0f} in {len(gauge.seen[what])} looks"
            print(said)
            if last - warm > bound:
                leaks.append(said)
    assert leaks == []
