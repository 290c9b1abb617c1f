"""Who takes part and gets what: the frozen cases, GrowthBook's published ones, and what a ramp may never do."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from leaven.errors import BadDefinition
from leaven.experiments import growthbook
from leaven.experiments.assignment import POSITIONS, holder, position
from leaven.experiments.experiment import Experiment, Holdout, Part, Slot, assign, propensity, slots, widened
from leaven.experiments.routing import arms_for
from tests.experiments.test_assignment import place_by_hand

HERE = Path(__file__).parent
CASES = json.loads((HERE / "assignment_cases.json").read_text())
GROWTHBOOK = json.loads((HERE / "growthbook_cases.json").read_text())
UNITS = [f"user-{i}" for i in range(4_000)]

weights = st.lists(st.integers(1, 50), min_size=1, max_size=5)


def shares_of(numbers):
    return {f"arm-{i}": number / sum(numbers) for i, number in enumerate(numbers)}


def test_the_frozen_cases_hold():
    assert len(CASES["cases"]) >= 60
    for case in CASES["cases"]:
        layer = case["layer"] and Part(*case["layer"])
        holdout = case["holdout"] and Holdout(*case["holdout"])
        experiment = Experiment(
            case["experiment"], tuple(Slot(*slot) for slot in case["slots"]), "", "user", layer, holdout
        )
        assert assign(case["unit"], experiment).arm == case["arm"], case


def test_the_frozen_cases_follow_from_the_published_definition():
    """Oracle: BLAKE2b by hand, and the rules as the file states them."""
    for case in CASES["cases"]:
        unit, arm = case["unit"], None
        layer, holdout = case["layer"], case["holdout"]
        held = holdout and place_by_hand(unit, f"holdout\0{holdout[0]}") < round(holdout[1] * 2**32)
        where = layer and place_by_hand(unit, f"layer\0{layer[0]}")
        out = layer and not round(layer[1] * 2**32) <= where < round(layer[2] * 2**32)
        if not held and not out:
            place = place_by_hand(unit, case["experiment"])
            arm = next((name for name, low, high in case["slots"] if low <= place < high), None)
        assert arm == case["arm"], case


def test_growthbooks_published_hashes_are_ours():
    for seed, unit, version, expected in GROWTHBOOK["hash"]:
        if version == 2:
            assert growthbook.bucket(unit, seed=seed) / 10_000 == expected
        else:
            assert growthbook.bucket_v1(unit, seed=seed) / 1_000 == expected


def test_growthbooks_published_ranges_and_namespaces_are_ours():
    for shares, coverage, expected in GROWTHBOOK["ranges"]:
        ours = slots({str(i): share for i, share in enumerate(shares)}, coverage=coverage, hash="growthbook-v2")
        assert [[slot.low / 10_000, slot.high / 10_000] for slot in ours] == [
            pytest.approx(each, abs=1.01e-4) for each in expected
        ]
    for namespace, unit, low, high, inside in GROWTHBOOK["namespace"]:
        experiment = Experiment("x", slots({"a": 1}, hash="growthbook-v2"), part=Part(namespace, low, high),
                                hash="growthbook-v2")  # fmt: skip
        assert (assign(unit, experiment).arm is not None) == inside


@given(st.floats(0, 1), st.integers(0, 9_999))
def test_a_bucket_is_in_where_the_sdk_compares_quotients(edge, bucket):
    assert (bucket >= growthbook.first_bucket(edge)) == (bucket / 10_000 >= edge)


def test_a_unit_outside_the_basic_plane_has_the_javascript_sdks_bucket():
    """Measured with growthbook 4.0.0 for Python, which follows the JavaScript SDK; 2.2.1 says 0.4148."""
    assert growthbook.bucket("🙂", seed="exp") == 1156


@given(weights, st.floats(0, 1), st.sampled_from(["leaven", "growthbook-v2"]))
def test_slots_do_not_overlap_and_are_as_wide_as_their_shares(numbers, coverage, hash):
    shares, every = shares_of(numbers), POSITIONS if hash == "leaven" else growthbook.BUCKETS
    laid = slots(shares, coverage=coverage, hash=hash)
    assert all(0 <= slot.low <= slot.high <= every for slot in laid)
    assert all(one.high <= two.low for one, two in pairwise(laid))
    experiment = Experiment("x", laid, hash=hash)
    for arm, share in shares.items():
        assert propensity(experiment, arm) == pytest.approx(share * coverage, abs=2 / every)
    if coverage == 1:
        assert sum(slot.high - slot.low for slot in laid) == every


@given(weights, st.floats(0, 1), st.floats(0, 1), st.text(min_size=1, max_size=8))
def test_more_coverage_only_ever_adds_units(numbers, one, two, unit):
    narrow, wide = (slots(shares_of(numbers), coverage=c) for c in sorted((one, two)))
    before = assign(unit, Experiment("x", narrow)).arm
    assert before is None or assign(unit, Experiment("x", wide)).arm == before


@given(st.floats(0, 1), st.floats(0, 1), st.text(min_size=1, max_size=8))
def test_a_ramp_of_one_of_two_arms_only_ever_adds_units_to_it(one, two, unit):
    seen = [assign(unit, Experiment("x", slots({"old": 1 - s, "new": s}))).arm for s in sorted((one, two))]
    assert seen != ["new", "old"]


@given(weights.filter(lambda numbers: len(numbers) > 1), st.floats(0, 1), st.text(min_size=1, max_size=8))
def test_widening_an_arm_moves_units_from_its_source_alone(numbers, part, unit):
    shares = shares_of(numbers)
    present = slots(shares)
    after = widened(present, "arm-1", shares["arm-1"] + part * shares["arm-0"] * 0.999, source="arm-0")
    was, now = (assign(unit, Experiment("x", each)).arm for each in (present, after))
    assert was == now or (was, now) == ("arm-0", "arm-1")
    assert sum(slot.high - slot.low for slot in after) == POSITIONS
    assert propensity(Experiment("x", after), "arm-1") == pytest.approx(
        shares["arm-1"] + part * shares["arm-0"] * 0.999, abs=1e-9
    )


def test_an_arm_does_not_shrink_nor_take_what_is_not_there():
    present = slots({"a": 0.5, "b": 0.5})
    for share, source in ((0.4, "a"), (1.1, "a"), (0.6, "b"), (0.6, "nobody")):
        with pytest.raises(BadDefinition, match="cannot grow"):
            widened(present, "b", share, source=source)


def test_a_routing_table_and_an_experiment_deal_alike():
    arms = arms_for(("1", "d"), ("2", "d"), share=0.2)
    experiment = Experiment("shop", slots({"canary": 0.2, "champion": 0.8}))
    for unit in UNITS[:500]:
        assert assign(unit, experiment).arm == arms[holder(position(unit, salt="shop"), arms)].arm


def test_a_canary_of_five_thousandths_of_a_percent_is_one():
    laid = slots({"canary": 0.00005, "champion": 0.99995})
    assert propensity(Experiment("x", laid), "canary") == pytest.approx(0.00005, rel=1e-5)


def test_experiments_with_parts_of_one_layer_share_no_unit_and_cover_it():
    parts = [Experiment(name, slots({"a": 1}), part=Part("web", *part))
             for name, part in (("one", (0, 0.3)), ("two", (0.3, 0.5)), ("three", (0.5, 1)))]  # fmt: skip
    seen = np.array([[assign(unit, each).arm is not None for each in parts] for unit in UNITS])
    assert (seen.sum(axis=1) == 1).all()
    assert seen.mean(axis=0) == pytest.approx([0.3, 0.2, 0.5], abs=0.03)


def test_arms_within_a_part_of_a_layer_are_dealt_independently_of_the_layer():
    """Even where experiment and layer have one name."""
    half = Experiment("web", slots({"a": 0.5, "b": 0.5}), part=Part("web", 0, 0.5))
    arms = [assign(unit, half).arm for unit in UNITS]
    inside = [arm for arm in arms if arm is not None]
    assert np.mean([arm == "a" for arm in inside]) == pytest.approx(0.5, abs=0.04)


def test_a_holdout_is_the_same_units_for_every_experiment_and_grows_only():
    def held(share, name):
        experiment = Experiment(name, slots({"a": 1}), holdout=Holdout("2026", share))
        return {unit for unit in UNITS if assign(unit, experiment).reason == "held out"}

    assert held(0.1, "one") == held(0.1, "two")
    assert held(0.05, "one") < held(0.1, "one")
    assert len(held(0.1, "one")) / len(UNITS) == pytest.approx(0.1, abs=0.02)


def test_only_units_of_the_segments_take_part():
    experiment = Experiment("x", slots({"a": 1}), segments={"country": ("DE", "FR"), "app": ("ios",)})
    assert assign("u", experiment, attributes={"country": "DE", "app": "ios"}).arm == "a"
    for attributes in ({"country": "US", "app": "ios"}, {"country": "DE"}, None):
        assert assign("u", experiment, attributes=attributes).reason == "not targeted"


def test_a_unit_keeps_the_arm_that_it_got_while_there_is_one():
    experiment = Experiment("x", slots({"a": 0.5, "b": 0.5}))
    for unit in UNITS[:50]:
        kept = assign(unit, experiment, before="b")
        assert (kept.arm, kept.reason) == ("b", "as before")
        assert assign(unit, experiment, before="gone").arm == assign(unit, experiment).arm


@pytest.mark.parametrize("shares", [{}, {"a": 0}, {"a": -0.1, "b": 1.1}, {"a": 0.7, "b": 0.7}])
def test_shares_that_are_none_are_refused(shares):
    with pytest.raises(BadDefinition, match="add up"):
        slots(shares)
