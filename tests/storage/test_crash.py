"""What is left when a process is killed at any moment: every acknowledged event once, and nothing torn."""

from __future__ import annotations

import random
import time

import pytest

from .builders import until
from .processes import check, processes


@pytest.mark.parametrize("durability", ["fsync", "os"])
def test_kill_a_writer_under_load(tmp_path, durability):
    """Both survive the end of the process; what `os` does not survive is a power cut."""
    with processes(tmp_path / "disk", tmp_path / "told") as running:
        for name in ("a", "b"):
            writer = running.write(name, durability=durability)
            told = len(running.acknowledged())
            until(lambda told=told: len(running.acknowledged()) > told + 100, seconds=60)
            time.sleep(0.4)
            running.kill(writer)
    check(tmp_path / "disk", running.acknowledged(), kills=2)


@pytest.mark.parametrize(("kills", "seed"), [(6, 7), pytest.param(60, 8, marks=pytest.mark.slow)])
@pytest.mark.timeout(900)
def test_kill_the_flusher_at_random_moments(tmp_path, kills, seed):
    chance, lake = random.Random(seed), tmp_path / "disk" / "lake"
    with processes(tmp_path / "disk", tmp_path / "told") as running:
        writer = running.write("a")
        for _ in range(kills):
            flusher = running.flush()
            seen = len(list(lake.rglob("*.json")))
            until(lambda seen=seen: len(list(lake.rglob("*.json"))) > seen, seconds=60)  # it began: now at any moment
            time.sleep(chance.uniform(0, 0.3))
            running.kill(flusher)
        running.kill(writer)
    check(tmp_path / "disk", running.acknowledged(), kills=1)
