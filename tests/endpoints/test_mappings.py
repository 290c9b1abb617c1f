"""Rows go to a server as its tensors, and what has no form there is not sent."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leaven.endpoints.description import Endpoint, Header, decoded, encoded, from_facts
from leaven.endpoints.failures import EndpointFailed
from leaven.endpoints.oip import Column, Matrix, OipMapping
from leaven.endpoints.plain_json import JsonMapping
from leaven.errors import BadDefinition
from leaven.gateway.protocol import parse_infer
from tests.endpoints.servers import an_endpoint, outputs, x_mapping

NAN = float("nan")


def sent(columns: dict[str, Any], *inputs: Column, binary: bool = False, **more: Any) -> list[Any]:
    """The values of each input, as the gateway's own reader of requests takes them."""
    rows = len(next(iter(columns.values())))
    arrays = {
        name: np.array(values, object if isinstance(values[0], str | None) else float)
        for name, values in columns.items()
    }
    body, length = OipMapping("m", columns=inputs, binary=binary, **more).body(arrays, rows)
    request = parse_infer(body, None if length is None else str(length))
    return [list(tensor.values) for tensor in request.tensors]


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize(
    ("column", "values", "expected"),
    [
        (Column("f", "f", "FP64"), [1.5, -2.0], [1.5, -2.0]),
        (Column("f", "f", "FP32"), [0.5, 3.0], [0.5, 3.0]),
        (Column("f", "f", "INT64"), [1.0, -7.0], [1, -7]),
        (Column("f", "f", "UINT8"), [0.0, 255.0], [0, 255]),
        (Column("f", "f", "BOOL"), [0.0, 1.0], [False, True]),
        (Column("f", "f", "BYTES"), ["a", "ü €"], ["a", "ü €"]),
        (Column("f", "f", "BYTES"), [2.0, 2.5], ["2", "2.5"]),
        (Column("f", "f", "BYTES"), ["a", None], ["a", ""]),
        (Column("f", "f", "BYTES", missing="none"), ["a", None], ["a", "none"]),
        (Column("f", "f", "INT32", missing=-1), [5.0, NAN], [5, -1]),
        (Column("f", "f", "FP64", missing=0.0), [5.0, NAN], [5.0, 0.0]),
    ],
)
def test_values_arrive_as_their_datatype(column: Column, values: list[Any], expected: list[Any], binary: bool):
    assert sent({"f": values}, column, binary=binary) == [expected]


def test_what_is_missing_is_nan_where_there_is_one():
    (raw,) = sent({"f": [1.0, NAN]}, Column("f", "f", "FP64"), binary=True)
    assert (raw[0], np.isnan(raw[1])) == (1.0, True)
    assert sent({"f": [1.0, NAN]}, Column("f", "f", "FP64")) == [[1.0, None]]


def test_a_whole_number_that_no_row_has_is_left_to_the_server():
    inputs = Column("x", "x", "FP64"), Column("n", "n", "INT64")
    assert sent({"x": [1.0, 2.0]}, *inputs) == [[1.0, 2.0]]
    assert sent({"x": [1.0, 2.0], "n": [NAN, NAN]}, *inputs) == [[1.0, 2.0]]


@pytest.mark.parametrize(
    ("column", "values", "text"),
    [
        (Column("f", "f", "INT64"), [1.0, NAN], "no form for a missing value"),
        (Column("f", "f", "BOOL"), [1.0, NAN], "no form for a missing value"),
        (Column("f", "f", "UINT8"), [1.0, 256.0], "does not hold a row's value"),
        (Column("f", "f", "UINT8"), [1.0, -1.0], "does not hold a row's value"),
        (Column("f", "f", "INT64"), [1.0, 1.5], "does not hold a row's value"),
        (Column("f", "f", "FP64"), ["a", "b"], "a row holds text there"),
    ],
)
def test_what_has_no_form_there_is_not_sent(column: Column, values: list[Any], text: str):
    with pytest.raises(EndpointFailed, match=text) as refused:
        sent({"f": values}, column)
    assert (refused.value.reason, refused.value.outcome) == ("not asked", "void")


def test_a_matrix_holds_the_features_in_its_order_and_categories_by_place():
    matrix = Matrix(("colour", "x"), "rows", "FP32", {"colour": ("red", "green")})
    columns = {"x": np.array([1.5, NAN]), "colour": np.array(["green", "mauve"], object)}
    request = parse_infer(OipMapping("m", matrix=matrix).body(columns, 2)[0], None)
    (tensor,) = request.tensors
    assert (tensor.name, list(tensor.shape), list(tensor.values)) == ("rows", [2, 2], [1.0, 1.5, None, None])


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=20), st.booleans())
def test_numbers_survive_the_way_there_and_back(values: list[float], binary: bool):
    mapping = x_mapping(binary=binary, output="x")
    body, length = mapping.body({"x": np.array(values)}, len(values))
    request = parse_infer(body, None if length is None else str(length))
    reply = outputs([float(value) for value in request.tensors[0].values], name="x")
    assert mapping.answers(reply.encode(), None, len(values)).tolist() == values


def assert_answers_or_fails(mapping: Any, body: bytes, length: str | None, rows: int) -> None:
    reason, shape = "no answer", (rows,)
    try:
        shape = mapping.answers(body, length, rows).shape
    except EndpointFailed as failed:
        reason = failed.reason
    assert (reason, shape) == ("no answer", (rows,))


@given(st.binary(max_size=300), st.one_of(st.none(), st.text("0123456789-", max_size=6)), st.integers(1, 4))
def test_any_bytes_are_an_answer_or_a_failure(body: bytes, length: str | None, rows: int):
    for mapping in (
        x_mapping(binary=True),
        JsonMapping({"$rows": "lists"}, "/a/*/b", (("x", "float"),)),
        JsonMapping({"$row": "list"}, "", (("x", "float"),)),
    ):
        assert_answers_or_fails(mapping, body, length, rows)


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["outputs", "shape", "data"]), inner),
    max_leaves=12,
)  # fmt: skip


@settings(max_examples=40)
@given(data=JSON_VALUES, shape=JSON_VALUES, datatype=st.sampled_from(["FP64", "INT8", "BYTES", "BOOL", "x"]),
       rows=st.integers(1, 4))  # fmt: skip
def test_any_output_is_an_answer_or_a_failure(data: Any, shape: Any, datatype: str, rows: int):
    reply = {"outputs": [{"name": "y", "shape": shape, "datatype": datatype, "data": data}]}
    assert_answers_or_fails(x_mapping(), json.dumps(reply).encode(), None, rows)


def test_a_description_is_the_same_after_it_was_kept():
    endpoint = an_endpoint(
        "https://models.example/a/", ca="/ca.pem", headers=(Header("Authorization", env="TOKEN", before="Bearer "),),
        mapping=OipMapping("m", "3", matrix=Matrix(("x",), categories={}), parameters={"content_type": "np"}),
    )  # fmt: skip
    assert decoded(encoded(endpoint)) == endpoint
    assert encoded(decoded(encoded(endpoint))) == encoded(endpoint)
    plain = Endpoint("http://h:1/x?y=1", JsonMapping({"$rows": "lists"}, "", (("x", "float"),)))
    assert decoded(encoded(plain)) == plain
    assert endpoint.path(endpoint.mapping.target) == "/a/v2/models/m/versions/3/infer"
    assert (plain.path(plain.mapping.target), plain.port, endpoint.port) == ("/x?y=1", 1, 443)


@pytest.mark.parametrize(
    "url",
    ["", "models", "ftp://h", "http://", "http://h:0", "http://h:99999", "http://h/#x", "http://h/a b", "http://h\r\nx:"],
)  # fmt: skip
def test_an_address_that_is_none_is_refused(url: str):
    with pytest.raises(BadDefinition):
        an_endpoint(url)


@pytest.mark.parametrize(
    "wrong",
    [
        {"timeout": 5.1}, {"timeout": 0.0}, {"connect": 9.0}, {"rows": 0}, {"at_once": 5000},
        {"mapping": {"protocol": "x"}},
        {"headers": [{"name": "X"}]}, {"headers": [{"name": "X", "file": "relative"}]}, {"secret": "x"},
        {"headers": [{"name": "X\r\nY", "env": "A"}]}, {"mapping": {"protocol": "oip", "model": ""}},
    ],
)  # fmt: skip
def test_a_description_that_cannot_be_used_is_refused(wrong: dict[str, Any]):
    facts = {"url": "http://h", "mapping": {"protocol": "oip", "model": "m"}} | wrong
    with pytest.raises(BadDefinition):
        from_facts(facts, where="here")
