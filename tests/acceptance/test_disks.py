"""The disk of the log, or of the lake, is full or fails: predictions go on, feedback is refused until it is well."""

from __future__ import annotations

import os
import random
import resource
import shutil
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import msgspec
import psutil
import pytest

from tests.acceptance.conftest import Worlds
from tests.acceptance.test_nothing_lost import ON_A_DISK, everything_told_is_there_once
from tests.acceptance.traffic import Traffic, visitors
from tests.acceptance.worlds import World
from tests.storage.disks import a_disk

SLOW = Path(__file__).parent.parent / "storage" / "slow"


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
    with a_disk(tmp_path / "small", megabytes=16) as disk, closing(shop):
        (shop.home / "wal").symlink_to(disk.path)
        shop.start_gateway()

        @contextmanager
        def trouble() -> Iterator[None]:
            disk.fill()
            yield
            disk.free()

        predictions_go_on_and_feedback_is_refused(shop, trouble, said="No space left on device")


@ON_A_DISK
def test_the_disk_of_the_log_turns_read_only(world: Worlds, tmp_path: Path) -> None:
    """As after an error of the disk; a worker that is started on it answers as well, and a good disk is taken at once.

    The disk is then exchanged under the living workers: what they acknowledge from then on is on the new one.
    """
    shop = world(at="promoted")
    with a_disk(tmp_path / "bad", megabytes=16) as bad, a_disk(tmp_path / "good", megabytes=16) as good, closing(shop):
        wal = shop.home / "wal"
        wal.symlink_to(bad.path)
        shop.start_gateway(workers=2)
        shop.wait(shop.in_force, "the gateway to take the routes")
        with visitors(shop.gateway_port, may_hang_up=True) as traffic:
            shop.wait(lambda: len(traffic.acknowledged) > 20, "feedback")
            early = set(traffic.acknowledged)
            shop.wait(lambda: early <= set(shop.feedback_ids()), "the lake to hold it", every=0.3)
            bad.turn_read_only()
            shop.wait(lambda: traffic.refused, "feedback to be refused")
            shop.kill_worker(random.Random(1))
            shop.wait(lambda: len(shop.workers()) == 2 and shop.in_force(), "a new worker")
            began, told = time.monotonic(), len(traffic.acknowledged)
            shop.wait(lambda: len(traffic.since(began)) > 200, "predictions")
            assert "Read-only file system" in status(shop)["log"]["trouble"]
            assert len(traffic.acknowledged) == told
            wal.unlink()
            wal.symlink_to(good.path)
            shop.wait(lambda: len(traffic.acknowledged) > told + 50, "feedback to be taken again")
        assert {answer.status for answer in traffic.answers} == {200}
        reasons = ("Read-only file system", "Input/output error", "removed or replaced")
        assert [said for said in traffic.refused if not any(reason in said for reason in reasons)] == []
        # What was acknowledged in the last moment before lies on the bad disk, and would be flushed once it is mended.
        left_behind = len(traffic.acknowledged) - told
        again = Traffic(0, acknowledged=traffic.acknowledged[-left_behind:])
        everything_told_is_there_once(shop, again)


@ON_A_DISK
def test_the_disk_of_the_lake_is_full(world: Worlds, tmp_path: Path) -> None:
    """The log keeps what the lake cannot take, and the flusher says so; nobody who asks or reports notices."""
    shop = world(at="promoted")
    with a_disk(tmp_path / "small", megabytes=32) as disk, closing(shop):
        shutil.copytree(shop.home / "lake", disk.path / "lake")
        shutil.rmtree(shop.home / "lake")
        (shop.home / "lake").symlink_to(disk.path / "lake")
        shop.start_gateway()
        shop.wait(shop.in_force, "the gateway to take the routes")
        with visitors(shop.gateway_port) as traffic:
            shop.wait(lambda: len(traffic.acknowledged) > 20, "feedback")
            disk.fill()
            told = len(traffic.acknowledged)
            flusher = shop.home / "logs" / "flusher.log"
            shop.wait(lambda: "events stay in the write-ahead log" in flusher.read_text(), "the flusher to say so")
            shop.wait(lambda: len(traffic.acknowledged) > told + 50, "feedback to be taken all the same")
            assert "No space left on device" in flusher.read_text()
            before = shop.feedback_ids()  # readable as ever
            assert not set(traffic.acknowledged[-20:]) & set(before)
            disk.free()
        assert traffic.refused == []
        everything_told_is_there_once(shop, traffic)


@pytest.mark.timeout(400)
@pytest.mark.slow  # it waits for the disk; other troubles of disks are tried in every run
def test_a_slow_disk_slows_feedback_and_no_prediction(world: Worlds) -> None:
    """Each sync takes half a second; all who report meanwhile share the next one."""
    shop = world(at="promoted")
    path = os.pathsep.join(filter(None, (str(SLOW), os.environ.get("PYTHONPATH"))))
    shop.besides = {"PYTHONPATH": path, "SYNC_SECONDS": "0.5"}
    shop.start_gateway()
    shop.wait(shop.in_force, "the gateway to take the routes")
    with visitors(shop.gateway_port, count=8) as reporting, visitors(shop.gateway_port, feedback=False) as asking:
        shop.wait(lambda: len(reporting.acknowledged) > 60, "feedback")
    assert (reporting.refused, asking.refused) == ([], [])
    assert (
        median(answer.received - answer.asked for answer in asking.answers) < 0.45
    )  # one that waits for a sync takes longer
    log = status(shop)["log"]
    assert log["longest_sync_us"] >= 500_000
    assert log["syncs"] < len(reporting.acknowledged)
    held = everything_told_is_there_once(shop, reporting)
    assert all(held[answer.prediction] for answer in (*reporting.answers, *asking.answers))


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
    labels["worker"] = status(shop)["worker"]  # the folder may still hold what one before it counted
    with urllib.request.urlopen(f"http://127.0.0.1:{shop.gateway_port}/metrics") as reply:
        lines = reply.read().decode().splitlines()
    wanted = [f'{label}="{value}"' for label, value in labels.items()]
    (found,) = [line for line in lines if line.startswith(f"{name}{{") and all(each in line for each in wanted)]
    return float(found.rsplit(" ", 1)[1])
