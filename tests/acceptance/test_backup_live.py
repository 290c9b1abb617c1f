"""Is a backup that was taken under load a whole installation, with everything that was acknowledged before it?"""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections import Counter
from pathlib import Path

import pytest

from tests.acceptance.conftest import Worlds
from tests.acceptance.traffic import visitors
from tests.acceptance.worlds import World


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["tar.gz", "folder"])
def test_what_was_acknowledged_before_a_backup_is_in_it_once_and_everything_hangs_together(
    world: Worlds, tmp_path: Path, kind: str
) -> None:
    shop = world(at="promoted")
    shop.start_up(workers=2)
    place = tmp_path / ("kept" if kind == "folder" else f"kept.{kind}")
    with visitors(shop.gateway_port, count=3) as traffic:
        shop.wait(lambda: len(traffic.acknowledged) > 100, "some feedback")
        shop.clock.set(shop.clock.now())
        assert shop.run("retrain", "shop").returncode == 0  # a refresh takes its steps meanwhile
        before = list(traffic.acknowledged)
        kept = shop.run("backup", str(place), "--json")
        assert kept.returncode == 0, kept.stderr
        print(f"the control database was held for {json.loads(kept.stdout)['locked_seconds'] * 1e3:.1f} ms")
        shop.wait(lambda: len(traffic.acknowledged) > len(before) + 100, "more feedback")
    assert traffic.refused == []
    _kill(shop)
    shutil.rmtree(shop.home / "lake")  # nothing is left to look at but the backup
    shutil.rmtree(shop.home / "wal")

    other = World(tmp_path / "elsewhere", shop.loop_file, shop.past)
    restored = other.run("restore", str(place))
    assert restored.returncode == 0, restored.stderr
    try:
        other.start_up()
        with visitors(other.gateway_port, count=1) as again:
            other.wait(lambda: len(again.acknowledged) > 20, "feedback after the restoration")
        assert again.refused == []
        counts = other.wait(
            lambda: _all_there(other, before + again.acknowledged), "the lake to hold all feedback", every=0.3
        )
        assert set(counts.values()) == {1}
        other.wait(lambda: not other.in_steps(), "the refresh to end")
        assert other.run("status", "--json").returncode == 0
        report = json.loads(kept.stdout)
        assert report["missing"] == []
        assert _no_version_is_unknown(other)
        assert [one.state for one in other.refreshes()].count("failed") == 0
        doctor = other.run("doctor", "--json", "--deep")
        assert doctor.returncode == 0, doctor.stdout
    finally:
        other.close()


def _kill(shop: World) -> None:
    up = shop.running.pop("up")
    pids = [shop.part(name) for name in ("gateway", "flusher", "controller")]
    up.kill()
    for pid in filter(None, pids):
        os.kill(pid, signal.SIGKILL)
    from tests.acceptance.worlds import processes_of

    shop.wait(lambda: not processes_of(shop.home), "everything to be dead")


def _all_there(shop: World, ids: list[str]) -> Counter[str] | None:
    counts = Counter(shop.feedback_ids())
    return counts if set(ids) <= counts.keys() else None


def _no_version_is_unknown(shop: World) -> bool:
    """Whether every version that an event names is one that the registry has."""
    import duckdb
    from deltalake import DeltaTable

    files = DeltaTable(shop.home / "lake" / "shop" / "predictions").file_uris()
    with duckdb.connect() as opened:
        rows = opened.execute(
            "SELECT DISTINCT version FROM read_parquet($files, union_by_name = true)", {"files": files}
        ).fetchall()
    return {row[0] for row in rows} - {""} <= {str(number) for number in shop.version_numbers()}
