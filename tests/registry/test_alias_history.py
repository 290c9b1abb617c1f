"""Who was champion when, and by which decision?"""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from leaven.registry import aliases
from leaven.registry.aliases import AliasSpan
from leaven.storage.control.database import ControlDatabase
from tests.control_databases import a_version, migrated


def test_the_history_tells_who_was_champion_when_and_by_which_decision(database: ControlDatabase):
    with database.write() as connection:
        for _ in range(3):
            a_version(connection)
        assert aliases.set_alias(connection, "flights", "champion", 1, decision="d1", at=10)
        assert not aliases.set_alias(connection, "flights", "champion", 1, decision="d2", at=20)
        assert aliases.set_alias(connection, "flights", "champion", 3, decision="d3", at=30)
        assert aliases.set_alias(connection, "flights", "challenger", 2, decision="d4", at=35)
        assert aliases.set_alias(connection, "flights", "champion", None, decision="d5", at=40)
        assert not aliases.set_alias(connection, "flights", "champion", None, decision="d6", at=50)
    with database.read() as connection:
        assert aliases.history(connection, "flights", "champion") == [
            AliasSpan("flights", "champion", 1, 10, 30, "d1", "d3"),
            AliasSpan("flights", "champion", 3, 30, 40, "d3", "d5"),
        ]
        assert aliases.alias(connection, "flights", "champion") is None
        assert aliases.aliases(connection, "flights") == {"challenger": 2}
        assert len(aliases.history(connection, "flights")) == 3


def test_a_clock_that_lags_behind_leaves_no_overlap(database: ControlDatabase):
    with database.write() as connection:
        a_version(connection)
        a_version(connection)
        aliases.set_alias(connection, "flights", "champion", 1, decision="d1", at=100)
        aliases.set_alias(connection, "flights", "champion", 2, decision="d2", at=90)
        first, second = aliases.history(connection, "flights", "champion")
    assert (first.since, first.until, second.since, second.until) == (100, 100, 100, None)


@settings(max_examples=40)
@given(moves=st.lists(st.tuples(st.none() | st.integers(1, 3), st.integers(0, 50)), max_size=12))
def test_whatever_happens_the_spans_of_an_alias_never_overlap_and_the_last_one_is_the_present(moves):
    database = migrated("sqlite://")
    with database.write() as connection:
        for _ in range(3):
            a_version(connection)
        for place, (version, at) in enumerate(moves):
            aliases.set_alias(connection, "flights", "champion", version, decision=str(place), at=at)
            spans = aliases.history(connection, "flights", "champion")
            present = [span.version for span in spans if span.until is None]
            assert present == ([] if version is None else [version])
        for before, after in pairwise(spans if moves else []):
            assert before.until is not None
            assert before.since <= before.until <= after.since
            assert before.ended_by is not None
            # Where one decision moved the alias from one version to another, there is no moment between.
            assert before.until == after.since or before.ended_by != after.decision
    database.dispose()
