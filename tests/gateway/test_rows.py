"""Requests of either form become the same rows; what does not fit the schema is refused by name."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from leaven.errors import LeavenError
from leaven.gateway.features import columns_of
from leaven.gateway.protocol import parse_infer
from leaven.gateway.rows import MAX_ROWS, Rows, read_rows
from leaven.loop import FeatureRule, Schema
from leaven.training.encoding import BadFeature

NUMBERS = Schema((("a", "float", False), ("b", "int", False), ("c", "bool", False)), "user", "binary")
MIXED = Schema((("carrier", "category", True), ("delay", "float", False)), "carrier", "binary")


def tensor(name: str, datatype: str, data: list[Any], shape: list[int] | None = None) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": shape or [len(data)], "data": data}


def read(*inputs: dict[str, Any], schema: Schema = NUMBERS, unit: str | None = None) -> Rows:
    body = msgspec.json.encode({"inputs": inputs})
    return read_rows(parse_infer(body, None), schema, unit=unit)


@given(st.lists(st.tuples(st.floats(-1e9, 1e9), st.integers(-(2**31), 2**31), st.booleans()), min_size=1, max_size=5))
def test_one_matrix_and_one_tensor_per_feature_are_the_same_rows(rows: list[tuple[float, int, bool]]):
    flat = [float(value) for row in rows for value in row]
    whole = read(tensor("input-0", "FP64", flat, [len(rows), 3]))
    named = read(
        tensor("c", "BOOL", [row[2] for row in rows]),
        tensor("a", "FP64", [row[0] for row in rows], [len(rows), 1]),
        tensor("b", "INT64", [row[1] for row in rows]),
    )
    assert [whole.features(row) for row in range(whole.count)] == [named.features(row) for row in range(named.count)]
    assert named.features(0) == dict(zip("abc", rows[0], strict=True))
    for name in "abc":
        np.testing.assert_array_equal(whole.columns[name], named.columns[name])


def test_a_flat_tensor_of_the_features_number_is_one_row():
    assert read(tensor("foo", "FP64", [1, 2, 1])).features(0) == {"a": 1.0, "b": 2, "c": True}


def test_null_and_nan_are_missing_to_the_model_and_null_in_the_log():
    rows = read(tensor("a", "FP64", [None, 2.0]), tensor("b", "INT32", [1, None]))
    assert np.isnan(rows.columns["a"][0])
    assert rows.features(0) == {"a": None, "b": 1}


def test_categories_that_are_numbers_count_as_their_text():
    rows = read(tensor("carrier", "INT32", [7]), tensor("delay", "FP32", [1]), schema=MIXED)
    assert rows.features(0) == {"carrier": "7", "delay": 1.0}


def test_a_tensor_that_is_no_feature_is_left_alone():
    assert read(tensor("a", "FP64", [1.0]), tensor("elsewhere", "BYTES", ["x"])).features(0) == {"a": 1.0}


@pytest.mark.parametrize(
    ("rows", "units"),
    [
        (read(tensor("a", "FP64", [1, 2]), tensor("user", "BYTES", ["u", "v"])), ["u", "v"]),
        (read(tensor("input-0", "FP64", [1, 2, 0], [1, 3]), tensor("user", "INT64", [7])), ["7"]),
        (read(tensor("a", "FP64", [1, 2]), tensor("user", "BYTES", ["u", ""])), ["u", None]),
        (read(tensor("a", "FP64", [1]), tensor("user", "BYTES", ["u"]), unit="header"), ["header"]),
        (read(tensor("a", "FP64", [1])), [None]),
        (read(tensor("carrier", "BYTES", ["AA"]), schema=MIXED), ["AA"]),
    ],
)  # fmt: skip
def test_the_unit_is_the_one_that_is_said(rows: Rows, units: list[str | None]):
    assert list(rows.units) == units


def test_the_request_says_its_unit_louder_than_a_header():
    body = b'{"inputs": [{"name": "a", "datatype": "FP64", "shape": [1], "data": [1]}], "parameters": {"unit": "said"}}'
    assert list(read_rows(parse_infer(body, None), NUMBERS, unit="header").units) == ["said"]


@pytest.mark.parametrize(
    ("inputs", "schema", "says"),
    [
        ([], NUMBERS, "there are none"),
        ([tensor("z", "FP64", [1, 2])], NUMBERS, "not rows of 3"),
        ([tensor("z", "BYTES", ["x"])], NUMBERS, "none of 'z' is a feature"),
        ([tensor("a", "FP64", [])], NUMBERS, "there are no rows"),
        ([tensor("a", "FP64", [0.0] * (MAX_ROWS + 1))], NUMBERS, "more than"),
        ([tensor("a", "FP64", [1, 2]), tensor("b", "INT32", [1])], NUMBERS, "1 rows, others have 2"),
        ([tensor("a", "FP64", [1, 2, 3, 4], [2, 2]), tensor("b", "INT32", [1])], NUMBERS, "not one value per row"),
        ([tensor("a", "BYTES", ["1"])], NUMBERS, "takes a float, not '1'"),
        ([tensor("b", "FP64", [1.5])], NUMBERS, "takes an int, not 1.5"),
        ([tensor("b", "FP64", [1e300])], NUMBERS, "takes an int"),
        ([tensor("b", "UINT64", [2**63])], NUMBERS, "takes an int"),
        ([tensor("a", "FP64", [10**400])], NUMBERS, "takes a float"),
        ([tensor("c", "INT32", [2])], NUMBERS, "takes a bool"),
        ([tensor("delay", "FP64", [1])], MIXED, "'carrier' is required and is missing"),
        ([tensor("carrier", "BYTES", [None])], MIXED, "'carrier' is required and is missing"),
    ],
)
def test_rows_that_do_not_fit_are_refused_with_the_reason(inputs: list[dict[str, Any]], schema: Schema, says: str):
    with pytest.raises(LeavenError) as refused:
        read(*inputs, schema=schema)
    assert says in str(refused.value)


def test_infinity_is_no_feature_value():
    body = msgspec.json.encode(
        {"inputs": [{"name": "a", "datatype": "FP64", "shape": [1], "parameters": {"binary_data_size": 8}}]}
    )
    request = parse_infer(body + np.array([np.inf]).tobytes(), str(len(body)))
    with pytest.raises(BadFeature):
        read_rows(request, NUMBERS, unit=None)


def test_an_empty_text_is_a_missing_category_where_the_categories_are_named():
    schema = Schema((("c", "category", False),), "u", "binary", {"c": FeatureRule(values=("red",))})
    columns, values = columns_of({"c": ("text", ["red", "", None])}, schema, 3)
    assert values["c"] == ["red", None, None]
    assert columns["c"].tolist() == ["red", None, None]
    named = Schema((("c", "category", False),), "u", "binary", {"c": FeatureRule(values=("red", ""))})
    assert columns_of({"c": ("text", [""])}, named, 1)[1]["c"] == [""]
