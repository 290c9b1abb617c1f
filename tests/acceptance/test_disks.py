"""The disk of the log, or of the lake, is full or fails: predictions go on, feedback is refused, then all is well again."""

from __future__ import annotations

import resource
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import psutil

from tests.acceptance.conftest import Worlds
from tests.acceptance.test_nothing_lost import ON_A_DISK, everything_told_is_there_once
from tests.acceptance.traffic import visitors
from tests.acceptance.worlds import World
from tests.storage.disks import a_disk


def test_no_file_can_grow(world: Worlds) -> None:
    """The kernel refuses every byte that the worker would add to a file: runs on any machine."""
    shop = world(at="promoted")
    shop.start_gateway()
    (worker,) = shop.workers()
    process = psutil.Process(worker)

    @contextmanager
    def trouble() -> Iterator[None]:
        process.rlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
        yield
        process.rlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))

    predictions_go_on_and_feedback_is_refused(shop, trouble, said="File too large")


@ON_A_DISK
def test_the_disk_of_the_log_is_full(world: Worlds, tmp_path: Path) -> None:
    shop = world(at="promoted")
    with a_disk(tmp_path / "small", megabytes=16) as disk:
        (shop.home / "wal").symlink_to(disk.path)
        shop.start_gateway()

        @contextmanager
        def trouble() -> Iterator[None]:
            disk.fill()
            yield
            disk.free()

        predictions_go_on_and_feedback_is_refused(shop, trouble, said="No space left on device")
        shop.close()


def predictions_go_on_and_feedback_is_refused(shop: World, trouble: Callable[[], Any], *, said: str) -> None:
    shop.wait(shop.in_force, "the gateway to take the routes")
    workers = shop.workers()
    with visitors(shop.gateway_port) as traffic:
        shop.wait(lambda: len(traffic.acknowledged) > 20, "feedback")
        with trouble():
            shop.wait(lambda: traffic.refused, "feedback to be refused")
            began = time.monotonic()
            shop.wait(lambda: len(traffic.since(began)) > 100, "predictions")
            told = len(traffic.acknowledged)
            time.sleep(1.5)  # the disk is tried again meanwhile
            assert len(traffic.acknowledged) == told
            log = status(shop)["log"]
            assert said in log["trouble"]
            assert log["refused_disk"] > 0
            assert log["dropped_disk"] > 0
            assert metric(shop, "leaven_log_failing") == 1
            assert metric(shop, "leaven_log_dropped_total", reason="disk") > 0
            assert metric(shop, "leaven_log_refused_total", reason="disk") > 0
        shop.wait(lambda: len(traffic.acknowledged) > told + 50, "feedback to be taken again")
    assert {answer.status for answer in traffic.answers} == {200}
    assert all(refused.startswith("503 ") and said in refused for refused in traffic.refused), traffic.refused[:3]
    assert set(traffic.come_again) == {"1"}
    assert shop.workers() == workers  # nobody was started again
    log = status(shop)["log"]
    assert (log["trouble"], metric(shop, "leaven_log_failing")) == ("", 0)
    assert log["refused_disk"] == len(traffic.refused)
    held = everything_told_is_there_once(shop, traffic)
    lost = [answer for answer in traffic.answers if not held[answer.prediction]]
    assert len(lost) == log["dropped_disk"]  # each that is not there was counted, and no other


def status(shop: World) -> Any:
    with urllib.request.urlopen(f"http://127.0.0.1:{shop.gateway_port}/v1/status") as reply:
        return msgspec.json.decode(reply.read())


def metric(shop: World, name: str, **labels: str) -> float:
    with urllib.request.urlopen(f"http://127.0.0.1:{shop.gateway_port}/metrics") as reply:
        lines = reply.read().decode().splitlines()
    wanted = [f'{label}="{value}"' for label, value in labels.items()]
    (found,) = [line for line in lines if line.startswith(f"{name}{{") and all(each in line for each in wanted)]
    return float(found.rsplit(" ", 1)[1])
