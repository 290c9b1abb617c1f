"""Which arm a unit sees: the same for ever, in every language, and never taken back by a ramp."""

from __future__ import annotations

import json
import subprocess
import sys
from hashlib import blake2b
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from leaven.experiments.assignment import POSITIONS, holder, position, threshold
from leaven.experiments.routing import RoutingTable, ShadowRoute, Standby, arms_for
from leaven.loop import Schema
from tests.experiments.blake2b_by_hand import blake2b_by_hand

VECTORS = json.loads(Path(__file__).with_name("assignment_vectors.json").read_text())
OLD, NEW = ("1", "digest-1"), ("2", "digest-2")
shares = st.floats(0, 1, exclude_min=True, exclude_max=True)


def place_by_hand(unit: str, salt: str) -> int:
    key = blake2b_by_hand(salt.encode("utf-8", "surrogatepass"), size=16)
    return int.from_bytes(blake2b_by_hand(unit.encode("utf-8", "surrogatepass"), size=8, key=key)[:4], "big")


def test_positions_are_the_frozen_ones():
    assert len(VECTORS) > 40
    for unit, salt, place in VECTORS:
        assert position(unit, salt=salt) == place, (unit, salt)


def test_the_frozen_positions_follow_from_the_published_definition():
    for unit, salt, place in VECTORS:
        assert place_by_hand(unit, salt) == place, (unit, salt)


@given(st.binary(max_size=128), st.integers(1, 64), st.binary(max_size=64))
def test_the_oracle_itself_is_blake2b(message, size, key):
    assert blake2b_by_hand(message, size=size, key=key) == blake2b(message, digest_size=size, key=key).digest()


@given(st.text(max_size=20), st.text(max_size=20))
def test_every_unit_of_every_salt_has_its_place(unit, salt):
    assert 0 <= position(unit, salt=salt) < POSITIONS
    assert position(unit, salt=salt) == place_by_hand(unit, salt)


def test_another_process_with_another_hash_seed_assigns_alike():
    program = "from leaven.experiments.assignment import position; print(position('user-7', salt='shop'))"
    for seed in ("0", "1"):
        said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True,
                              env={"PYTHONHASHSEED": seed})  # fmt: skip
        assert int(said.stdout) == position("user-7", salt="shop")


def test_a_lone_surrogate_is_a_unit_too():
    assert position("\ud800", salt="x") != position("\ud801", salt="x")


def test_units_are_spread_evenly_and_salts_are_independent():
    """Chi-square over 64 equal ranges, and over the 8 x 8 cells of two salts; 20,000 units, limit 4.5 sigma."""
    one, two = (np.array([position(f"user-{i}", salt=salt) for i in range(20_000)]) for salt in ("a", "b"))
    for counts in (
        np.bincount(one * 64 // POSITIONS, minlength=64),
        np.bincount((one * 8 // POSITIONS) * 8 + two * 8 // POSITIONS, minlength=64),
    ):
        chi = ((counts - 312.5) ** 2 / 312.5).sum()
        assert chi < 63 + 4.5 * np.sqrt(2 * 63)


@given(shares)
def test_the_arms_cover_every_position_once(share):
    arms = arms_for(OLD, NEW, share=share)
    assert sorted(edge for arm in arms for edge in (arm.low, arm.high))[0] == 0
    assert sum(arm.high - arm.low for arm in arms) == POSITIONS
    assert sum(arm.propensity for arm in arms) == pytest.approx(1)
    for place in {0, POSITIONS - 1, threshold(share), max(0, threshold(share) - 1)} - {POSITIONS}:
        holding = [arm for arm in arms if arm.low <= place < arm.high]
        assert [arms[holder(place, arms)]] == holding


@given(st.lists(shares, min_size=2, max_size=5), st.text(max_size=12))
def test_a_ramp_only_ever_adds_units_to_the_canary(ramp, unit):
    place = position(unit, salt="s")
    tables = [arms_for(OLD, NEW, share=share) for share in sorted(ramp)]
    seen = [arms[holder(place, arms)].arm for arms in tables]
    assert seen == sorted(seen, reverse=True)  # champion, …, champion, canary, …, canary


def test_the_canarys_range_begins_at_zero_and_is_as_wide_as_its_share():
    canary, champion = arms_for(OLD, NEW, share=0.00005)
    assert (canary.arm, canary.low, champion.high) == ("canary", 0, POSITIONS)
    assert canary.propensity == pytest.approx(0.00005, rel=1e-5)
    assert arms_for(OLD)[0].propensity == 1.0
    assert [arm.arm for arm in arms_for(OLD, NEW, share=0.0)] == ["champion"]


def test_a_position_outside_every_range_is_an_error():
    with pytest.raises(LookupError):
        holder(POSITIONS, arms_for(OLD))


def test_a_table_names_every_version_that_must_be_loaded():
    schema = Schema((("x", "float", False),), "user", "binary")
    table = RoutingTable(
        "shop", 3, 0, schema, "shop", arms_for(OLD, NEW, share=0.1), (ShadowRoute("4", "d4"),), (Standby("3", "d3"),)
    )
    assert table.artifacts() == {"1": "digest-1", "2": "digest-2", "3": "d3", "4": "d4"}
    assert table.champion.version == "1"


def test_a_canary_of_all_units_leaves_the_champion_to_stand_in():
    arms = arms_for(("1", "a"), ("2", "b"), share=1.0)
    assert [(arm.arm, arm.propensity) for arm in arms] == [("canary", 1.0), ("champion", 0.0)]
    assert {holder(place, arms) for place in (0, POSITIONS - 1)} == {0}
