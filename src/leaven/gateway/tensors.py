"""How do the tensors of the Open Inference Protocol become values, and values tensors?

A tensor arrives as JSON (`data`, nested or flat, row-major) or as raw little-endian bytes; either way it leaves here as
one flat run of values whose number fits its shape.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from leaven.gateway.refusals import BadRequest, shown

MAX_NESTING = 8


class Datatype(NamedTuple):
    """What one of the protocol's datatypes can hold."""

    kind: str  # "bool", "int", "float" or "text"
    dtype: Any  # NumPy dtype of the raw form, little-endian; None for text
    low: int = 0
    high: int = 0


def _integer(dtype: str) -> Datatype:
    info = np.iinfo(dtype)
    return Datatype("int", np.dtype(dtype), int(info.min), int(info.max))


DATATYPES: dict[str, Datatype] = {
    "BOOL": Datatype("bool", np.dtype("u1")),
    **{f"INT{bits}": _integer(f"<i{bits // 8}") for bits in (8, 16, 32, 64)},
    **{f"UINT{bits}": _integer(f"<u{bits // 8}") for bits in (8, 16, 32, 64)},
    "FP16": Datatype("float", np.dtype("<f2")),
    "BF16": Datatype("float", np.dtype("<u2")),  # the upper half of a float32
    "FP32": Datatype("float", np.dtype("<f4")),
    "FP64": Datatype("float", np.dtype("<f8")),
    "BYTES": Datatype("text", None),
}
_NO_JSON_FORM = ("FP16", "BF16")
_TYPES = {
    "bool": frozenset({bool, type(None)}),
    "int": frozenset({int, type(None)}),
    "float": frozenset({int, float, type(None)}),
    "text": frozenset({str, type(None)}),
}


@dataclass(frozen=True, slots=True)
class Tensor:
    """A named tensor: its values in row-major order, as many as the shape says.

    `values` is a list of bool, int, float or str (None where JSON said null), or a NumPy array of numbers.
    """

    name: str
    kind: str  # "bool", "int", "float" or "text"
    shape: Sequence[int]
    values: list[Any] | NDArray[Any]


def datatype(name: str, *, where: str) -> Datatype:
    """Return what `name` can hold.

    Raises:
        BadRequest: the protocol has no such datatype.
    """
    known = DATATYPES.get(name)
    if known is None:
        raise BadRequest(where, f"there is no datatype {shown(name)}", f"Use one of {', '.join(DATATYPES)}.")
    return known


def from_json(name: str, type_name: str, shape: Sequence[int], data: Any) -> Tensor:
    """Return the tensor that JSON wrote as `data`, nested or flat.

    Raises:
        BadRequest: the data is no such tensor; the text says where.
    """
    where = f"input {shown(name)}"
    known = datatype(type_name, where=where)
    if type_name in _NO_JSON_FORM:
        raise BadRequest(where, f"{type_name} has no JSON form", "Send it as binary data, or as FP32.")
    values = _flat(data, where)
    _check_count(len(values), shape, where)
    if not _TYPES[known.kind].issuperset(map(type, values)):
        wrong = next(value for value in values if type(value) not in _TYPES[known.kind])
        raise BadRequest(where, f"{type_name} data holds {shown(wrong)}", f"Send {_SENT_AS[known.kind]} or null.")
    if known.kind == "int":
        given = values if None not in values else [value for value in values if value is not None]
        for value in (min(given), max(given)) if given else ():
            if not known.low <= value <= known.high:
                raise BadRequest(where, f"{shown(value)} does not fit {type_name}", "Use a wider datatype.")
    return Tensor(name, known.kind, shape, values)


_SENT_AS = {"bool": "true, false", "int": "whole numbers", "float": "numbers", "text": "strings"}


def from_raw(name: str, type_name: str, shape: Sequence[int], raw: bytes | memoryview) -> Tensor:
    """Return the tensor that the binary extension wrote as `raw`.

    Raises:
        BadRequest: the bytes are not such a tensor.
    """
    where = f"input {shown(name)}"
    known = datatype(type_name, where=where)
    if known.dtype is None:
        texts = _texts(raw, where)
        _check_count(len(texts), shape, where)
        return Tensor(name, "text", shape, texts)
    expected = _count(shape, where) * known.dtype.itemsize
    if len(raw) != expected:
        raise BadRequest(where, f"{len(raw)} bytes do not fill shape {list(shape)} of {type_name}",
                         f"Send {expected} bytes.")  # fmt: skip
    values = np.frombuffer(raw, dtype=known.dtype)
    if type_name == "BF16":
        values = (values.astype("<u4") << 16).view("<f4")
    elif type_name == "BOOL":
        if values.max(initial=0) > 1:
            raise BadRequest(where, "a BOOL byte is neither 0 nor 1", "Send one byte, 0 or 1, per value.")
        values = values.view(np.bool_)
    return Tensor(name, known.kind, shape, values)


def to_raw(values: Sequence[str] | NDArray[np.float64]) -> bytes:
    """Return FP64 values, or texts as BYTES, in the binary extension's form."""
    if isinstance(values, np.ndarray):
        return values.astype("<f8", copy=False).tobytes()
    parts: list[bytes] = []
    for text in values:
        encoded = text.encode()
        parts += (len(encoded).to_bytes(4, "little"), encoded)
    return b"".join(parts)


def _flat(data: Any, where: str) -> list[Any]:
    """The values of nested lists, each level of one length."""
    if not isinstance(data, list):
        data = [data]
    values: list[Any] = data
    for _ in range(MAX_NESTING):
        if not values or not isinstance(values[0], list):
            return values
        if not all(isinstance(part, list) and len(part) == len(values[0]) for part in values):
            raise BadRequest(where, "the nested lists of its data differ in length", "Send a flat list, or full rows.")
        values = [value for part in values for value in part]
    raise BadRequest(where, f"its data is nested deeper than {MAX_NESTING}", "Send a flat list.")


def _count(shape: Sequence[int], where: str) -> int:
    if len(shape) > MAX_NESTING:
        raise BadRequest(where, f"its shape has {len(shape)} dimensions", f"Send at most {MAX_NESTING}.")
    if any(length < 0 for length in shape):
        raise BadRequest(where, f"shape {shown(list(shape))} holds a negative length", "Send the lengths as they are.")
    return prod(shape)


def _check_count(given: int, shape: Sequence[int], where: str) -> None:
    expected = _count(shape, where)
    if given != expected:
        raise BadRequest(where, f"{given} values do not fill shape {shown(list(shape))}", "Send as many as it says.")


def _texts(raw: bytes | memoryview, where: str) -> list[Any]:
    """The texts of a raw BYTES tensor: four bytes of length, then the text, each."""
    texts: list[Any] = []
    offset = 0
    while offset < len(raw):
        start = offset + 4
        end = start + int.from_bytes(raw[offset:start], "little")
        if start > len(raw) or end > len(raw):
            raise BadRequest(
                where, "a length in its BYTES data points past the end", "Write uint32 length, then bytes."
            )
        try:
            texts.append(str(raw[start:end], "utf-8"))
        except UnicodeDecodeError:
            raise BadRequest(where, f"text {len(texts)} is not UTF-8", "Send texts as UTF-8.") from None
        offset = end
    return texts
