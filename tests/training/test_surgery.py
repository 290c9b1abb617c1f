"""Does the proof pass what left the answers alone, and nothing else?"""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from leaven.loop import Schema
from leaven.training.encoding import Encoder
from leaven.training.learner import CannotLearn
from leaven.training.surgery import (
    AddFeatures,
    NotProven,
    Proof,
    ReorderFeatures,
    change,
    digest,
    places,
    probe_rows,
    prove,
    proven,
    same_order,
)
from leaven.values import from_written

PROBE = np.arange(12.0).reshape(4, 3)
BEFORE = np.array([0.1, 0.4, 0.2, 0.9])


def a_proof(after=BEFORE, *, before=BEFORE, probe=PROBE, **other) -> Proof:
    return prove(AddFeatures(["w"]), way="its text", probe=[probe], answers={"float64": (before, after)}, **other)


def an_encoder(*features: tuple[str, str], **categories: tuple[str, ...]) -> Encoder:
    schema = Schema(tuple((name, kind, False) for name, kind in features), "user", "binary")
    return Encoder(schema.features, categories)


def test_equal_answers_are_proven_and_the_proof_says_so_on_one_line():
    proof = a_proof()
    assert proof.passed
    assert proof.differences[0].relative == 0
    text = str(proof)
    assert text.startswith('AddFeatures(["w"]) by its text: proven on 4 rows')
    assert "\n" not in text


@given(at=st.integers(0, 3), by=st.floats(2e-6, 1e3), sign=st.sampled_from([-1, 1]))
def test_any_answer_that_moves_by_more_than_the_tolerance_is_not_proven(at, by, sign):
    after = BEFORE.copy()
    after[at] += sign * by * max(after[at], BEFORE.mean())
    assert not a_proof(after).passed


@given(by=st.floats(0, 9e-7))
def test_rounding_within_the_tolerance_is_proven(by):
    assert a_proof(BEFORE * (1 + by)).passed


@pytest.mark.parametrize("after", [np.array([0.1, 0.4, np.nan, 0.9]), BEFORE[:3], np.full(4, np.inf)])
def test_answers_that_are_missing_or_no_numbers_are_not_proven(after):
    assert not a_proof(after).passed


def test_what_is_lost_in_the_models_own_rounding_passes_and_no_more():
    answers = {"float32": (BEFORE, BEFORE * (1 + 3e-6))}
    given = {"way": "hand", "probe": [PROBE], "answers": answers}
    assert not prove(ReorderFeatures(), **given).passed
    assert prove(ReorderFeatures(), **given, rounding={"float32": 1e-6}).passed
    assert not prove(ReorderFeatures(), **given, rounding={"float32": 5e-7}).passed
    assert not prove(ReorderFeatures(), **given, rounding={"float64": 1e-6}).passed


def test_nothing_is_proven_by_no_rows():
    assert not a_proof(np.empty(0), before=np.empty(0), probe=PROBE[:0]).passed


def test_a_single_precision_that_fails_fails_the_proof():
    answers = {"float64": (BEFORE, BEFORE), "float32": (BEFORE, BEFORE + 1)}
    assert not prove(ReorderFeatures(), way="hand", probe=[PROBE], answers=answers).passed


def test_new_parameters_without_a_gradient_fail_the_proof():
    moved, dead = np.array([0.0, -0.2]), np.zeros(3)
    assert a_proof(gradients=[moved]).passed
    assert not a_proof(gradients=[moved, dead]).passed
    assert not a_proof(gradients=[]).passed


def test_the_order_of_rows_and_the_choice_of_classes_are_compared_but_for_ties():
    assert same_order(BEFORE, BEFORE * 3)
    assert not same_order(BEFORE, BEFORE[::-1])
    assert same_order(np.array([0.5, 0.5, 0.6]), np.array([0.5, 0.5 - 1e-9, 0.6]))
    classes = np.array([[0.1, 0.9], [0.8, 0.2]])
    assert same_order(classes, classes + 1)
    assert not same_order(classes, classes[:, ::-1])
    assert same_order(np.array([[0.5, 0.5]]), np.array([[0.5 - 1e-9, 0.5]]))


def test_a_failed_proof_is_an_error_that_tells_what_differed():
    with pytest.raises(NotProven, match=r"NOT PROVEN on 4 rows .* ANOTHER ORDER.* fit a version from scratch"):
        proven(a_proof(BEFORE[::-1]))


def test_a_proof_comes_back_from_json_as_it_was():
    proof = a_proof(gradients=[np.ones(2)])
    assert msgspec.json.decode(msgspec.json.encode(proof), type=Proof) == proof
    assert from_written(proof.operation, {"AddFeatures": AddFeatures}) == AddFeatures(("w",))


def test_the_digest_tells_probes_apart_and_not_one_gap_from_another():
    gap = PROBE.copy()
    gap[1, 1] = np.nan
    other = gap.copy()
    other[1, 1] = -np.nan
    assert digest([gap]) == digest([other])
    assert len({digest([PROBE]), digest([gap]), digest([PROBE.T]), digest([PROBE, PROBE])}) == 4


def test_the_probe_is_the_newest_rows_and_some_of_the_older_with_and_without_what_is_new():
    matrix = np.arange(30.0).reshape(10, 3)
    probe = probe_rows(matrix, new=[1], rows=3)
    np.testing.assert_array_equal(probe[:6], matrix[[0, 3, 6, 7, 8, 9]])
    assert np.isnan(probe[6:, 1]).all()
    np.testing.assert_array_equal(probe[6:, [0, 2]], probe[:6, [0, 2]])
    assert not np.isnan(matrix).any()
    assert len(probe_rows(matrix, new=[1], rows=10)) == 20  # where there are no older ones, the newest are all
    assert len(probe_rows(matrix, new=[1], rows=8)) == 20


def test_old_features_are_found_wherever_they_stand_now():
    old = an_encoder(("x", "float"), ("place", "category"), place=("here",))
    new = an_encoder(("place", "category"), ("w", "float"), ("x", "float"), place=("here", "there"))
    assert places("XGBoost", old, new) == (2, 0)
    assert change(old, new) == AddFeatures(("w",))
    assert change(new, an_encoder(("x", "float"), ("w", "float"), ("place", "category"))) == ReorderFeatures()


@pytest.mark.parametrize(
    ("new", "told"),
    [
        (an_encoder(("x", "float")), "'place' .* is gone"),
        (an_encoder(("x", "float"), ("place", "int")), "'place' .* has another type"),
        (an_encoder(("x", "float"), ("place", "category"), place=("there", "here")), "do not begin with the parent's"),
    ],
)
def test_what_is_gone_or_changed_cannot_be_grown(new, told):
    old = an_encoder(("x", "float"), ("place", "category"), place=("here",))
    with pytest.raises(CannotLearn, match=told):
        places("XGBoost", old, new)
