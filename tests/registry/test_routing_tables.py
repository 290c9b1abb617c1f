"""Do gateways learn of the newest routing table, and only of that?"""

from __future__ import annotations

import pytest

from leaven.experiments.routing import RoutingTable, ShadowRoute, Standby, arms_for
from leaven.registry import routing
from leaven.registry.routing import RevisionTaken
from leaven.storage.control.database import ControlDatabase
from tests.control_databases import a_loop


def a_table(loop: str = "flights", revision: int = 1, **changes: object) -> RoutingTable:
    facts = {"arms": arms_for(("1", "a" * 64), ("2", "b" * 64), share=0.1), "salt": loop, "at": revision * 10}
    return RoutingTable(loop=loop, revision=revision, schema=a_loop().schema, **(facts | changes))


def test_a_table_comes_back_as_it_was_published(database: ControlDatabase):
    table = a_table(shadows=(ShadowRoute("3", "c" * 64, 5),), standby=(Standby("4", "d" * 64),))
    with database.write() as connection:
        assert routing.latest(connection, "flights") is None
        routing.publish(connection, table)
        routing.publish(connection, table)  # the same again: nothing happens
        assert routing.latest(connection, "flights") == table


def test_a_table_that_was_made_from_an_old_one_is_refused(database: ControlDatabase):
    with database.write() as connection:
        routing.publish(connection, a_table(revision=4))
        for stale in (a_table(revision=4, at=99), a_table(revision=3)):
            with pytest.raises(RevisionTaken, match="is not newer than 4, which is published"):
                routing.publish(connection, stale)


def test_gateways_are_given_each_loops_newest_table_once(database: ControlDatabase):
    with database.write() as connection:
        for revision in (1, 2, 10):  # 10 is after 2, as numbers are
            routing.publish(connection, a_table("a", revision))
        routing.publish(connection, a_table("b", 1))
    known: dict[str, int] = {}
    assert routing.newer_tables(database, known) == [a_table("a", 10), a_table("b", 1)]
    assert routing.newer_tables(database, {"a": 2, "b": 1}) == [a_table("a", 10)]
    assert routing.newer_tables(database, {"a": 10, "b": 1}) == []
    # A cached table of a newer revision than the database knows is not replaced by an older one.
    assert routing.newer_tables(database, {"a": 11, "b": 0}) == [a_table("b", 1)]


def test_gateways_say_which_table_they_run_until_they_leave(database: ControlDatabase):
    day = routing.FORGET_AFTER
    facts = {"host": "here", "pid": 5, "started_at": 1}
    routing.report(database, "g1", {"a": 1}, seen_at=10, **facts)
    routing.report(database, "g1", {"a": 2, "b": 1}, seen_at=20, **facts)
    routing.report(database, "g2", {}, seen_at=30, **facts)
    with database.read() as connection:
        assert [(g.id, g.seen_at, g.revisions) for g in routing.gateways(connection)] == [
            ("g1", 20, {"a": 2, "b": 1}),
            ("g2", 30, {}),
        ]
        assert [g.id for g in routing.gateways(connection, since=25)] == ["g2"]
    routing.report(database, "g3", {}, seen_at=25 + day, **facts)
    routing.leave(database, "g3")
    with database.read() as connection:
        assert [g.id for g in routing.gateways(connection)] == ["g2"]  # g1 was silent for a day and is forgotten
