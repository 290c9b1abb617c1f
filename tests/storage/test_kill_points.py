"""The flusher is killed before and after each thing it does to the disk; nothing is lost, doubled or unreadable."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from leaven.storage.flusher import Flusher

from .builders import ENVIRONMENT, a_label, a_lake, a_log, a_prediction, ids, seal, sealed

# Runs the flusher once per point in a process of its own, forked, which ends itself at that point. What the product
# does to the disk is counted by wrapping the calls that do it, from outside.
KILLER = """
import json, os, random, shutil, signal, sys, threading
from pathlib import Path
from deltalake import DeltaTable
from leaven.storage import delta, flusher
from leaven.storage.lake import Lake

template, disks, most = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
delta.CHECKPOINT_EVERY, flusher.COMPACT_EVERY, flusher.BATCH_BYTES = 3, 2, 1
os.fsync = lambda handle: None  # a killed process loses nothing that it wrote, synced or not
done = []

def killing(name, call, at):
    def do(*arguments, **named):
        die_at(f"before {name}", at)
        out = call(*arguments, **named)
        die_at(f"after {name}", at)
        return out
    return do

def die_at(what, at):
    if len(done) == at:
        os.kill(os.getpid(), signal.SIGKILL)
    done.append(what)

def flush(disk, at):
    for owner, names in (
        (os, ("fsync", "rename", "unlink", "replace", "rmdir")), (delta, ("_commit",)),
        (DeltaTable, ("create", "create_checkpoint", "vacuum", "cleanup_metadata")),
        (delta.EventTable, ("compact",)),
    ):
        for name in names:
            setattr(owner, name, killing(name, getattr(owner, name), at))
    flushing = flusher.Flusher(disk / "wal", Lake(str(disk / "lake")))
    flushing.flush_once()
    flushing.tend()

def run(disk, at):
    shutil.copytree(template, disk)
    child = os.fork()
    if not child:
        try:
            flush(disk, at)
            (disk.parent / "points").write_text(json.dumps(done))
        finally:
            os._exit(0)
    status = os.waitpid(child, 0)[1]
    return os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL

assert not run(disks / "whole", -1)
points = json.loads((disks / "points").read_text())
# The first and the last of each kind, and others by chance.
chosen = {points.index(name) for name in points} | {len(points) - 1 - points[::-1].index(name) for name in points}
others = [at for at in range(len(points)) if at not in chosen]
chosen |= set(random.Random(3).sample(others, min(len(others), max(0, most - len(chosen)))))
(disks / "chosen").write_text(json.dumps({at: points[at] for at in sorted(chosen)}))
for at in chosen:
    assert run(disks / str(at), at), f"was not killed {points[at]}"
"""


def a_full_log(folder: Path) -> dict[str, list[str]]:
    """A log and a lake in which a flush has everything to do; the ids that must be in the lake in the end."""
    lake = a_lake(folder)
    for i in range(3):
        seal(folder, a_prediction(f"old-{i}"), a_label(f"old-{i}", id=f"old-{i}"))
        Flusher(folder / "wal", lake).flush_once()
    for i in range(2):
        seal(folder, a_prediction(f"new-{i}"), a_label(f"new-{i}", id=f"new-{i}"), a_prediction(f"o-{i}", loop="other"))
    log = a_log(folder, seal_seconds=60)
    log.append_durably([a_prediction("open"), a_label("open", id="open")]).result(60)
    shutil.copytree(folder / "wal" / log.writer, folder / "wal" / "killed")  # its lock is held by nobody
    log.close()
    shutil.rmtree(folder / "wal" / log.writer)
    lake.close()
    both = ["old-0", "old-1", "old-2", "new-0", "new-1", "open"]
    return {"predictions": both, "feedback": both, "other": ["o-0", "o-1"]}


def in_the_lake(folder: Path) -> dict[str, list[str]]:
    lake = a_lake(folder)
    tables = (("flights", "predictions"), ("flights", "feedback"), ("other", "predictions"))
    rows = {loop if loop == "other" else name: lake.tail(loop, 10**6, table=name) for loop, name in tables}
    lake.close()
    for held in rows.values():
        assert [row["seq"] for row in held] == list(range(1, len(held) + 1))
    return {name: sorted(ids(held)) for name, held in rows.items()}


@pytest.mark.parametrize("most", [40, pytest.param(1000, marks=pytest.mark.slow)])
@pytest.mark.timeout(600)
def test_a_flusher_that_is_killed_at_any_point_is_continued_by_the_next(tmp_path, monkeypatch, most):
    monkeypatch.setattr(os, "fsync", lambda handle: None)
    wanted = {name: sorted(each) for name, each in a_full_log(tmp_path / "template").items()}
    disks = tmp_path / "disks"
    disks.mkdir()
    ran = subprocess.run(
        [sys.executable, "-c", KILLER, str(tmp_path / "template"), str(disks), str(most)], env=ENVIRONMENT,
        capture_output=True, text=True, timeout=500, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    chosen = json.loads((disks / "chosen").read_text())
    for step in ("before create", "before _commit", "after _commit", "before fsync", "after fsync", "before unlink",
                 "after unlink", "before create_checkpoint", "after create_checkpoint", "before rename",
                 "before compact", "after compact"):  # fmt: skip
        assert step in chosen.values()
    for at, point in chosen.items():
        disk = disks / at
        held = in_the_lake(disk)  # at once, before anybody repairs anything
        assert all(set(held[name]) <= set(wanted[name]) for name in wanted), point
        Flusher(disk / "wal", a_lake(disk)).flush_once()
        assert in_the_lake(disk) == wanted, f"killed {point} (point {at})"
        assert sealed(disk / "wal") == []
        shutil.rmtree(disk)
    print(f"killed at {len(chosen)} points: nothing lost, nothing doubled")
