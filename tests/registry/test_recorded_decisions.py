"""Are decisions kept once, unchanged, and found again?"""

from __future__ import annotations

import json
import pickle

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leaven.registry.decisions import Decision, DecisionDiffers, UnknownDecision, decision, decisions, record
from leaven.storage.control.database import ControlDatabase
from tests.control_databases import a_version, migrated

PASSED = Decision(
    "r1/gate/0", "flights", 7, "gate", "pass", version=1, rule={"gate": 'NotWorse("log_loss")', "margin": 0.1},
    evidence={"champion": [0.1 + 0.2, 1e-300], "rows": 9007199254740993}, why="log loss fell by 0.02", by="NotWorse",
    refresh="r1",
)  # fmt: skip

_json = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(alphabet=st.characters(blacklist_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from("abcd"), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


@settings(max_examples=40)
@given(evidence=st.dictionaries(st.sampled_from(["x", "y"]), _json))
def test_evidence_comes_back_bit_for_bit(evidence):
    database = migrated("sqlite://")
    with database.write() as connection:
        a_version(connection)
        record(connection, Decision("d", "flights", 1, "trial", "advance", evidence=evidence))
    with database.read() as connection:
        found = decision(connection, "d").evidence
    # As text: 0.0 and -0.0, 1 and 1.0 count as different.
    assert json.dumps(found, sort_keys=True) == json.dumps(evidence, sort_keys=True)
    database.dispose()


def test_a_decision_is_recorded_once_and_the_first_one_stands(database: ControlDatabase):
    again = Decision(PASSED.id, "flights", 99, "gate", "pass", version=1, evidence={"other": 1})
    with database.write() as connection:
        a_version(connection)
        assert record(connection, PASSED) == PASSED
        assert record(connection, again) == PASSED
        with pytest.raises(DecisionDiffers, match=r"as flights/gate/1: pass and now would be .*: fail"):
            record(connection, Decision(PASSED.id, "flights", 99, "gate", "fail", version=1))
        assert decisions(connection) == [PASSED]


def test_decisions_are_found_by_what_they_are_about(database: ControlDatabase):
    with database.write() as connection:
        a_version(connection, "a")
        a_version(connection, "b")
        for place in range(6):
            loop, kind = "ab"[place % 2], ["gate", "trial", "promote"][place % 3]
            record(connection, Decision(f"d{place}", loop, 100 - place, kind, "yes", version=place % 3, trial="t"))
    with database.read() as connection:
        found = lambda *loop, **wanted: [d.id for d in decisions(connection, *loop, **wanted)]  # noqa: E731
        assert found() == ["d0", "d1", "d2", "d3", "d4", "d5"]  # as recorded, not as timed
        assert found("a") == ["d0", "d2", "d4"]
        assert found("b", limit=2) == ["d3", "d5"]
        assert found(kind="gate") == found(version=0) == ["d0", "d3"]
        assert found("a", trial="t", kind="promote") == ["d2"]
        assert found(refresh="none") == []
        with pytest.raises(UnknownDecision, match="no decision 'nope' was recorded"):
            decision(connection, "nope")


def test_a_refused_decision_leaves_nothing_of_its_transaction(database: ControlDatabase):
    with database.write() as connection:
        a_version(connection)
        record(connection, PASSED)

    def try_again() -> None:
        with database.write() as connection:
            a_version(connection)
            record(connection, Decision(PASSED.id, "flights", 1, "gate", "fail"))

    with pytest.raises(DecisionDiffers):
        try_again()
    with database.write() as connection:
        assert a_version(connection) == 2


@pytest.mark.parametrize("error", [UnknownDecision("d"), DecisionDiffers("d", "a", "b")])
def test_errors_survive_the_way_between_processes(error: Exception):
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
