"""What is left when the power goes: on a real file system that is cut off, and on a model of a crueller one.

The first needs a machine that lets us mount; the second runs everywhere. Each says with `-rA` what it cut.
"""

from __future__ import annotations

import shutil
import time
from collections import Counter
from random import Random

import pytest

from .builders import ENVIRONMENT, until
from .disks import a_disk, why_no_disk
from .powercut import begin, cut, recorded
from .processes import Processes, check, processes

OUTCOMES = 4  # that are looked at of each cut: many disks could be left of one moment
ON_A_DISK = pytest.mark.skipif(
    bool(why_no_disk()),
    reason=f"no disk of ours can be mounted here ({why_no_disk()}); the cuts of a copy of the folder ran instead",
)


def work(running: Processes, name: str, chance: Random, *, durability: str = "fsync") -> None:
    """Log and flush for a while."""
    running.write(name, durability=durability)
    running.flush()
    commits = len(list(running.disk.glob("lake/*/*/_delta_log/*.json")))
    until(lambda: len(list(running.disk.glob("lake/*/*/_delta_log/*.json"))) > commits + 1, seconds=60)
    told = len(running.acknowledged())
    until(lambda: len(running.acknowledged()) > told + 100, seconds=60)
    time.sleep(chance.uniform(0.1, 0.9))


@pytest.mark.parametrize(("cuts", "seed"), [(2, 1), *(pytest.param(25, s, marks=pytest.mark.slow) for s in (2, 3))])
@pytest.mark.timeout(900)
def test_a_power_cut_that_keeps_only_what_was_synced_loses_nothing_acknowledged(tmp_path, cuts, seed):
    chance, disk, told = Random(seed), tmp_path / "disk", tmp_path / "told"
    disk.mkdir()
    done = Counter()
    for number in range(cuts):
        journal = tmp_path / f"journal-{number}"
        begin(disk, journal)
        with processes(disk, told, environment=recorded(ENVIRONMENT, journal)) as running:
            work(running, f"w{number}", chance)
        for outcome in range(OUTCOMES):
            left = tmp_path / f"left-{number}-{outcome}"
            done += cut(disk, journal, left, chance=chance)
            shutil.copytree(left, tmp_path / "looked at")
            check(tmp_path / "looked at", running.acknowledged(), kills=number + 1, torn=True)
            shutil.rmtree(tmp_path / "looked at")
        shutil.rmtree(disk)
        left.rename(disk)  # and so on from the last of them
    told_of = len(running.acknowledged())
    print(f"copied folder: {cuts} cuts, {OUTCOMES} outcomes of each, {told_of} acknowledged, 0 lost; {dict(done)}")


@ON_A_DISK
@pytest.mark.parametrize(("cuts", "seed"), [(2, 4), pytest.param(20, 5, marks=pytest.mark.slow)])
@pytest.mark.timeout(900)
def test_a_power_cut_of_a_real_disk_loses_nothing_acknowledged(tmp_path, cuts, seed):
    chance = Random(seed)
    with a_disk(tmp_path, megabytes=128) as disk:
        for number in range(cuts):
            with processes(disk.path, tmp_path / "told") as running:
                work(running, f"w{number}", chance)
                disk.cut_power()
            disk.unmount()
            disk.mount()
            found = check(disk.path, running.acknowledged(), kills=number + 1, torn=True)
    print(f"ext4 cut off: {cuts} cuts, {len(running.acknowledged())} acknowledged, 0 lost; rows {found}")


@ON_A_DISK
def test_the_disk_that_is_cut_off_does_lose_what_was_not_synced(tmp_path):
    """Or the test above would prove nothing."""
    with a_disk(tmp_path) as disk:
        with processes(disk.path, tmp_path / "told") as running:
            running.write("w", durability="os")
            until(lambda: len(running.acknowledged()) > 1000, seconds=60)
            disk.cut_power()
        disk.unmount()
        disk.mount()
        with pytest.raises(AssertionError, match="acknowledged and are lost"):
            check(disk.path, running.acknowledged(), kills=1, torn=True)


def test_a_copy_that_loses_what_was_not_synced_does_lose_it(tmp_path):
    disk, journal = tmp_path / "disk", tmp_path / "journal"
    disk.mkdir()
    begin(disk, journal)
    with processes(disk, tmp_path / "told", environment=recorded(ENVIRONMENT, journal)) as running:
        running.write("w", durability="os")
        until(lambda: len(running.acknowledged()) > 1000, seconds=60)
    cut(disk, journal, tmp_path / "left", chance=Random(1))
    with pytest.raises(AssertionError, match="acknowledged and are lost"):
        check(tmp_path / "left", running.acknowledged(), kills=1, torn=True)
