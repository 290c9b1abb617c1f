"""Rows go to the arm of their unit; where an arm fails the champion answers, and the arm bears the failure."""

from __future__ import annotations

import asyncio
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leaven.experiments.assignment import POSITIONS, position
from leaven.gateway.refusals import UnknownVersion
from leaven.gateway.serving import Prediction, Serving, predict
from tests.gateway.fakes import Says, a_chance, a_serving, some_rows


def raises(_: float) -> float:
    raise ValueError("no such colour")


def ask(
    serving: Serving, xs: list[float], units: list[str | None], *, pinned: str | None = None, key: str | None = None
) -> Prediction:
    return asyncio.run(predict(serving, some_rows(xs, units), pinned=pinned, at=5, chance=a_chance(), key=key))


@given(st.lists(st.tuples(st.text(min_size=1), st.floats(-1e6, 1e6)), min_size=1, max_size=20))
def test_each_row_is_answered_and_logged_by_the_arm_of_its_own_unit(rows: list[tuple[str, float]]):
    serving = a_serving({"1": Says(lambda x: x + 0.25), "2": Says(lambda x: x - 0.25)}, canary="2", share=0.5)
    given_units = [unit for unit, _ in rows]
    prediction = ask(serving, [x for _, x in rows], list(given_units))
    for row, (unit, x) in enumerate(rows):
        in_canary = position(unit, salt="salt") < POSITIONS // 2
        record = prediction.records[row]
        assert prediction.answers[row] == (x - 0.25 if in_canary else x + 0.25)
        assert (record.arm, record.version) == (("canary", "2") if in_canary else ("champion", "1"))
        assert (record.unit, record.answer, record.features) == (unit, prediction.answers[row], {"x": x})
        assert (record.propensity, record.table, record.at, record.error) == (0.5, 3, 5, None)


def test_one_row_has_a_new_id_and_many_have_numbers_behind_it():
    serving = a_serving({"1": Says(float)})
    (alone,) = ask(serving, [1.0], ["u"]).ids
    assert "-" not in alone.removeprefix("id-")
    first, second = ask(serving, [1.0, 2.0], ["u", "v"]).ids
    assert first.removesuffix("-0") == second.removesuffix("-1")
    assert len({first, second, first.removesuffix("-0")}) == 3


def test_a_request_without_a_unit_gets_a_fresh_one():
    records = ask(a_serving({"1": Says(float)}), [1.0, 2.0], [None, None]).records
    assert len({record.unit for record in records}) == 2


@pytest.mark.parametrize(
    ("broken", "error"),
    [
        (Says(raises), "ValueError: no such colour"),
        (Says(lambda x: math.nan), "answered nan"),
        (Says(lambda x: math.inf), "answered inf"),
    ],
)
def test_where_the_canary_fails_the_champion_answers_and_the_canary_is_charged(broken: Says, error: str):
    serving = a_serving({"1": Says(lambda x: 2 * x), "2": broken}, canary="2", share=1.0)
    prediction = ask(serving, [1.0, 2.0], ["u", "v"])
    assert prediction.failure is None
    assert prediction.answers.tolist() == [2.0, 4.0]
    assert (prediction.versions, prediction.arms) == (["1", "1"], ["canary", "canary"])
    assert [(r.arm, r.version, r.answer, r.error) for r in prediction.records] == [("canary", "2", None, error)] * 2


def test_only_the_rows_that_failed_fall_back():
    partly = Says(lambda x: math.nan if x > 1 else -x)
    prediction = ask(a_serving({"1": Says(float), "2": partly}, canary="2", share=1.0), [1.0, 2.0], ["u", "v"])
    assert prediction.answers.tolist() == [-1.0, 2.0]
    assert prediction.versions == ["2", "1"]


def test_a_model_that_answers_the_wrong_number_of_rows_has_failed():
    class Short(Says):
        def answer(self, columns):
            return super().answer(columns)[:-1]

    prediction = ask(a_serving({"1": Says(float), "2": Short(float)}, canary="2", share=1.0), [1.0, 2.0], ["u", "v"])
    assert prediction.versions == ["1", "1"]
    assert "shape [1] for 2 rows" in str(prediction.records[0].error)


@pytest.mark.parametrize("pinned", [None, "1"])
def test_where_the_champion_fails_there_is_no_answer_but_a_record(pinned: str | None):
    prediction = ask(a_serving({"1": Says(raises)}), [1.0], ["u"], pinned=pinned)
    assert "no such colour" in str(prediction.failure)
    assert [(r.version, r.answer) for r in prediction.records] == [("1", None)]


def test_a_named_version_bypasses_assignment():
    serving = a_serving({"1": Says(float), "2": Says(lambda x: -x)}, canary="2", share=1.0)
    prediction = ask(serving, [1.0], ["u"], pinned="1")
    assert (prediction.arms, prediction.propensities, prediction.answers.tolist()) == (["pinned"], [1.0], [1.0])
    assert prediction.places == []  # and no shadow


def test_a_version_that_is_not_loaded_is_refused_naming_those_that_are():
    with pytest.raises(UnknownVersion, match=r"Loaded: 1;"):
        ask(a_serving({"1": Says(float)}), [1.0], ["u"], pinned="9")


def test_a_request_repeated_under_its_key_is_the_same_predictions():
    serving = a_serving({"1": Says(float)})
    first, again, other = (ask(serving, [1.0, 2.0], ["u", "v"], key=key).ids for key in ("k", "k", "l"))
    assert first == again
    assert not set(first) & set(other)
    assert [len(name) for name in first] == [34, 34]


def test_a_failure_does_not_take_the_id_of_what_is_answered_later_under_the_same_key():
    failed = ask(a_serving({"1": Says(raises)}), [1.0], ["u"], key="k")
    answered = ask(a_serving({"1": Says(float)}), [1.0], ["u"], key="k")
    assert failed.records[0].id != answered.ids[0]
