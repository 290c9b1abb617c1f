"""Which versions exist, and where do they come from?"""

from __future__ import annotations

import pickle

import pytest

from leaven.registry import aliases, loops, snapshots, versions
from leaven.registry.loops import UnknownLoop
from leaven.registry.snapshots import SnapshotDiffers, SnapshotRecord, UnknownSnapshot
from leaven.registry.versions import UnknownVersion
from leaven.storage.control.database import ControlDatabase
from tests.control_databases import a_loop, a_version

A_SNAPSHOT = SnapshotRecord("s1", "flights", {"marks": [3, 4], "rule": 'Label("y")'}, 120, "abcd", 5)


def test_a_version_comes_back_with_all_that_was_registered(database: ControlDatabase):
    lineage = {"cause": "Every('7d')", "metrics": {"log_loss": 0.1 + 0.2}, "seconds": 3.5, "libraries": {"numpy": "2"}}
    with database.write() as connection:
        first = a_version(connection)
        snapshots.put(connection, A_SNAPSHOT)
        second = a_version(connection, parent=first, snapshot="s1", refresh="r1", mode="update", lineage=lineage, at=9)
    with database.read() as connection:
        found = versions.version(connection, "flights", second)
        assert [record.number for record in versions.versions(connection, "flights")] == [1, 2]
    assert (found.parent, found.snapshot, found.refresh, found.mode, found.created_at) == (1, "s1", "r1", "update", 9)
    assert found.lineage == lineage


def test_each_loop_counts_its_own_versions(database: ControlDatabase):
    with database.write() as connection:
        assert [a_version(connection, loop) for loop in ("a", "b", "a", "a", "b")] == [1, 1, 2, 3, 2]


def test_a_refresh_registers_once_however_often_it_is_run(database: ControlDatabase):
    with database.write() as connection:
        number = a_version(connection, refresh="r1")
        a_version(connection, refresh="r2")
    with database.write() as connection:
        assert a_version(connection, refresh="r1", artifact="b" * 64) == number
        assert len(versions.versions(connection, "flights")) == 2
        assert versions.version(connection, "flights", number).artifact == "a" * 64


def test_lineage_that_leads_nowhere_is_refused(database: ControlDatabase):
    with database.write() as connection, pytest.raises(UnknownLoop, match="no loop 'flights' is registered"):
        versions.register(connection, "flights", artifact="a", format="f", mode="fit", definition_digest="d", at=0)
    with database.write() as connection:
        a_version(connection)
        with pytest.raises(UnknownVersion, match=r"no version '7'. It has 1\."):
            a_version(connection, parent=7)
        with pytest.raises(UnknownSnapshot, match="no snapshot 's9'"):
            a_version(connection, snapshot="s9")
        assert len(versions.versions(connection, "flights")) == 1


def test_a_snapshot_is_kept_once_and_never_with_other_rows(database: ControlDatabase):
    with database.write() as connection:
        a_version(connection)
        assert snapshots.put(connection, A_SNAPSHOT) == A_SNAPSHOT
        later = SnapshotRecord("s1", "flights", {}, 120, "abcd", 99)
        assert snapshots.put(connection, later) == A_SNAPSHOT
        with pytest.raises(SnapshotDiffers, match="'s1' was registered with digest abcd and now has ffff"):
            snapshots.put(connection, SnapshotRecord("s1", "flights", {}, 121, "ffff", 99))
        assert snapshots.snapshots(connection, "flights") == [A_SNAPSHOT]


def test_a_loop_keeps_its_salt_and_its_pause_through_new_definitions(database: ControlDatabase):
    changed = a_loop(seed=3)
    with database.write() as connection:
        first = loops.put(connection, a_loop(), path="a.py", source="one", at=10)
        assert (first.salt, first.paused, first.registered_at) == ("flights", False, 10)
        assert loops.pause(connection, "flights", why="holiday")
        assert not loops.pause(connection, "flights", why="again")
        same = loops.put(connection, a_loop(), path="moved.py", source="one", at=20)
        assert (same.registered_at, same.path) == (10, "moved.py")
        newer = loops.put(connection, changed, path="a.py", source="two", at=30, salt="other")
    assert (newer.salt, newer.paused, newer.paused_why, newer.registered_at) == ("flights", True, "holiday", 30)
    assert (newer.digest, newer.definition, newer.schema) == (changed.digest, repr(changed), changed.schema)
    with database.read() as connection:  # what older versions were trained for can still be told
        assert loops.definition(connection, "flights", a_loop().digest) == repr(a_loop())
        assert loops.definition(connection, "flights", changed.digest) == repr(changed)
        assert loops.definition(connection, "flights", "0" * 16) is None
    with database.write() as connection:
        assert loops.resume(connection, "flights")
        assert not loops.resume(connection, "flights")
        assert loops.loop(connection, "flights").paused_why == ""
        assert loops.loops(connection) == [loops.loop(connection, "flights")]


def test_the_last_look_of_a_controller_is_noted_and_never_moves_back(database: ControlDatabase):
    with database.write() as connection:
        assert loops.put(connection, a_loop(), path="a.py", source="one", at=10).looked_at is None
        for tick in (100, 300, 200):
            loops.looked(connection, "flights", at=tick)
        assert loops.put(connection, a_loop(seed=3), path="a.py", source="two", at=20).looked_at == 300


def test_a_version_is_found_by_number_and_by_alias(database: ControlDatabase):
    with database.write() as connection:
        a_version(connection)
        a_version(connection)
        aliases.set_alias(connection, "flights", "champion", 2, decision="d1", at=1)
        assert [aliases.resolve(connection, "flights", text) for text in ("1", "v1", "champion")] == [1, 1, 2]
        with pytest.raises(UnknownVersion, match=r"no version 'canary'. It has 1, 2, champion\."):
            aliases.resolve(connection, "flights", "canary")


@pytest.mark.parametrize(
    "error",
    [UnknownVersion("a", "1", ("2",)), UnknownLoop("a", ()), UnknownSnapshot("s"), SnapshotDiffers("s", "a", "b")],
)
def test_errors_survive_the_way_between_processes(error: Exception):
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again)) == (type(error), str(error))
