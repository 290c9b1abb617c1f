"""Tensors of the protocol become values whose number fits the shape, or a sentence that says what is wrong."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tritonclient.utils import serialize_byte_tensor

from leaven.gateway.refusals import BadRequest
from leaven.gateway.tensors import DATATYPES, from_json, from_raw, to_raw

NUMPY = {
    "BOOL": np.bool_, "FP16": np.float16, "FP32": np.float32, "FP64": np.float64,
    **{f"INT{bits}": np.dtype(f"i{bits // 8}") for bits in (8, 16, 32, 64)},
    **{f"UINT{bits}": np.dtype(f"u{bits // 8}") for bits in (8, 16, 32, 64)},
}  # fmt: skip


@pytest.mark.parametrize("name", NUMPY)
def test_raw_numbers_are_read_as_numpy_wrote_them(name: str):
    sent = np.array([[0, 1], [1, 0], [1, 1]], dtype=NUMPY[name])
    read = from_raw("x", name, [3, 2], sent.tobytes())
    assert list(read.values) == sent.ravel().tolist()


def test_raw_bf16_is_the_upper_half_of_a_float():
    sent = np.array([1.0, -2.5, 0.15625], dtype="<f4")  # exact in eight bits
    halves = b"".join(sent.tobytes()[at + 2 : at + 4] for at in (0, 4, 8))
    assert list(from_raw("x", "BF16", [3], halves).values) == sent.tolist()


@given(st.lists(st.text()))
def test_raw_texts_are_read_as_the_stock_client_wrote_them(texts: list[str]):
    sent = serialize_byte_tensor(np.array([text.encode() for text in texts], dtype=object))
    raw = sent.item() if sent.size else b""
    assert from_raw("x", "BYTES", [len(texts)], raw).values == texts
    assert to_raw(texts) == raw


@given(st.lists(st.floats(allow_nan=False)))
def test_answers_are_written_little_endian(answers: list[float]):
    assert np.frombuffer(to_raw(np.array(answers)), dtype="<f8").tolist() == answers


@pytest.mark.parametrize("data", [[1, 2, 3, 4], [[1, 2], [3, 4]], [[[1, 2, 3, 4]]]])
def test_json_may_be_nested_or_flat(data: list[object]):
    assert from_json("x", "INT32", [2, 2], data).values == [1, 2, 3, 4]


@given(st.binary(max_size=40), st.sampled_from(sorted(DATATYPES)), st.lists(st.integers(-2, 2**64), max_size=3))
def test_any_bytes_are_a_tensor_or_refused(raw: bytes, name: str, shape: list[int]):
    try:
        tensor = from_raw("x", name, shape, raw)
    except BadRequest:
        return
    assert len(tensor.values) == np.prod(shape)


@pytest.mark.parametrize(
    ("name", "shape", "data", "says"),
    [
        ("INT322", [1], [1], "no datatype 'INT322'"),
        ("INT32", [3], [1], "1 values do not fill"),
        ("INT32", [-1], [1], "negative"),
        ("INT32", [2**62, 2**62], [1], "do not fill"),
        ("INT32", [1] * 9, [1], "9 dimensions"),
        ("INT32", [1], [2**31], "does not fit INT32"),
        ("UINT8", [1], [-1], "does not fit UINT8"),
        ("INT32", [1], [1.5], "holds 1.5"),
        ("INT32", [1], [True], "holds True"),
        ("FP32", [1], ["1"], "holds '1'"),
        ("FP16", [1], [1.0], "no JSON form"),
        ("BYTES", [1], [1], "holds 1"),
        ("BOOL", [1], [1], "holds 1"),
        ("FP32", [4], [[1, 2, 3], [4]], "differ in length"),
        ("FP32", [1], [[[[[[[[[[1]]]]]]]]]], "nested deeper"),
        ("FP32", [1], {"a": 1}, "holds {'a': 1}"),
    ],
)
def test_what_is_no_tensor_is_refused_with_the_reason(name: str, shape: list[int], data: object, says: str):
    with pytest.raises(BadRequest, match="input 'x'") as refused:
        from_json("x", name, shape, data)
    assert says in str(refused.value)
