"""How are rows put to a server of the Open Inference Protocol v2, and what does its reply answer?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any
from urllib.parse import quote

import msgspec
import numpy as np
from numpy.typing import NDArray

from leaven.endpoints.failures import EndpointFailed
from leaven.endpoints.numbers import DTYPES, numbers, per_row
from leaven.errors import BadDefinition
from leaven.training.encoding import Encoder, as_category

Parameters = dict[str, Any]
Body = tuple[bytes, int | None]  # and the length of the JSON in front of raw tensors, if there are any

_encode = msgspec.json.Encoder().encode
_MIXED = "Set a value for it: `missing`."


class Column(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One feature as one input tensor; `missing` stands where a row has no value."""

    feature: str
    name: str
    datatype: str
    missing: float | bool | str | None = None
    parameters: Parameters = {}

    def __post_init__(self) -> None:
        if self.datatype != "BYTES" and self.datatype not in DTYPES:
            raise BadDefinition(f"input {self.name!r}", f"no values can be sent as {self.datatype!r}",
                                f"Use one of BYTES, {', '.join(DTYPES)}.")  # fmt: skip


class Matrix(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """All features as one input tensor [rows, features], in this order; categories as their place in their list."""

    features: tuple[str, ...]
    name: str = "input-0"
    datatype: str = "FP64"
    categories: dict[str, tuple[str, ...]] = {}
    parameters: Parameters = {}

    def __post_init__(self) -> None:
        if self.datatype not in ("FP16", "FP32", "FP64"):
            raise BadDefinition(f"input {self.name!r}", f"a matrix of {self.datatype!r} cannot say what is missing",
                                "Use FP64, FP32 or FP16.")  # fmt: skip

    @property
    def encoder(self) -> Encoder:
        """What makes the matrix of named columns."""
        kinds = [(name, "category" if name in self.categories else "float", False) for name in self.features]
        return Encoder(tuple(kinds), self.categories)  # type: ignore[arg-type]


class OipMapping(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="protocol", tag="oip"):
    """Rows as tensors, and the answer as a column of an output tensor.

    Args:
        model: Its name at the server.
        version: Its version there; the server's choice by default.
        columns: One input per feature; or
        matrix: one input for all of them.
        wide: Whether a feature's tensor has shape [rows, 1] instead of [rows].
        output: Name of the output; by default the one that the server sends first.
        answer: Which of an output's numbers per row is the answer, from 0; needed where there are several.
        binary: Whether tensors go and come as raw bytes, which the server must know (extension binary_tensor_data).
        parameters: Of every request.
    """

    model: str
    version: str | None = None
    columns: tuple[Column, ...] = ()
    matrix: Matrix | None = None
    wide: bool = False
    output: str | None = None
    answer: int | None = None
    binary: bool = False
    parameters: Parameters = {}

    single = False  # no request is for one row only

    def __post_init__(self) -> None:
        if not self.model:
            raise BadDefinition("endpoint", "no model is named", "Give the model's name at the server: --model.")
        if self.columns and self.matrix is not None:
            raise BadDefinition("endpoint", "inputs are described in two ways", "Give either columns or matrix.")
        if not self.binary and any(column.datatype == "FP16" for column in self.columns):
            raise BadDefinition("endpoint", "FP16 has no JSON form", "Set binary, or use FP32.")

    @property
    def is_open(self) -> bool:
        """Whether it is yet to be found out what the inputs are."""
        return not self.columns and self.matrix is None

    @property
    def features(self) -> tuple[str, ...]:
        """Names of the features that are sent."""
        return self.matrix.features if self.matrix is not None else tuple(column.feature for column in self.columns)

    @property
    def below(self) -> str:
        """The model's path."""
        version = "" if self.version is None else f"/versions/{quote(self.version, safe='')}"
        return f"/v2/models/{quote(self.model, safe='')}{version}"

    @property
    def target(self) -> str:
        """Path of a prediction."""
        return f"{self.below}/infer"

    def body(self, columns: Mapping[str, NDArray[Any]], rows: int) -> Body:
        """Return the request for `rows` rows.

        Raises:
            EndpointFailed: a value has no form there.
        """
        inputs: list[dict[str, Any]] = []
        blobs: list[bytes] = []
        for name, datatype, shape, values, parameters in self._tensors(columns, rows):
            tensor: dict[str, Any] = {"name": name, "shape": shape, "datatype": datatype}
            said = dict(parameters)
            if self.binary:
                blobs.append(_raw(values))
                said["binary_data_size"] = len(blobs[-1])
            else:
                tensor["data"] = _plain(values)
            inputs.append(tensor | ({"parameters": said} if said else {}))
        head = _encode(self._head(inputs))
        return (b"".join((head, *blobs)), len(head)) if self.binary else (head, None)

    def _head(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        head: dict[str, Any] = {"inputs": inputs}
        if self.output is not None:
            named: dict[str, Any] = {"name": self.output}
            head["outputs"] = [named | {"parameters": {"binary_data": True}} if self.binary else named]
        parameters = self.parameters | ({"binary_data_output": True} if self.binary and self.output is None else {})
        return head | ({"parameters": parameters} if parameters else {})

    def _tensors(
        self, columns: Mapping[str, NDArray[Any]], rows: int
    ) -> list[tuple[str, str, list[int], NDArray[Any], Parameters]]:
        """Name, datatype, shape, values and parameters of each input."""
        if (matrix := self.matrix) is not None:
            given = {name: columns[name] for name in matrix.features if name in columns} or {"": np.zeros(rows)}
            values = matrix.encoder.encode(given).astype(DTYPES[matrix.datatype]).ravel()
            return [(matrix.name, matrix.datatype, [rows, len(matrix.features)], values, matrix.parameters)]
        shape = [rows, 1] if self.wide else [rows]
        sent = [(column, _sent(column, columns.get(column.feature), rows)) for column in self.columns]
        return [
            (column.name, column.datatype, shape, values, column.parameters)
            for column, values in sent
            if values is not None
        ]

    def answers(self, body: bytes, json_length: str | None, rows: int) -> NDArray[np.float64]:
        """Return what a reply answers to `rows` rows.

        Raises:
            EndpointFailed: it is no such reply.
        """
        end = _json_end(body, json_length)
        try:
            reply = _reply(memoryview(body)[:end])
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise EndpointFailed("no answer", f"answered what is no reply of the protocol: {error}"[:300]) from None
        raw = memoryview(body)[end:]
        for output in reply.outputs:
            size = (output.parameters or {}).get("binary_data_size")
            if type(size) is int and not 0 <= size <= len(raw):
                raise EndpointFailed("no answer", f"answered {len(raw)} raw bytes where it says {size}")
            own, raw = (raw[:size], raw[size:]) if type(size) is int else (None, raw)
            if self.output in (None, output.name):
                return per_row(_values(output, own, rows), rows, self.answer, what=f"output {output.name[:60]!r}")
        there = ", ".join(output.name[:60] for output in reply.outputs[:8]) or "none"
        raise EndpointFailed("no answer", f"answered no output {self.output!r}, but {there}")


class _Output(msgspec.Struct):
    name: str
    shape: list[int]
    datatype: str
    data: Any = msgspec.UNSET
    parameters: Parameters | None = None


class _Reply(msgspec.Struct):
    outputs: list[_Output]


_reply = msgspec.json.Decoder(_Reply).decode


def _json_end(body: bytes, said: str | None) -> int:
    """Where the JSON of a reply ends and raw tensors begin."""
    if said is None:
        return len(body)
    if not said.isdigit() or int(said[:20]) > len(body):
        raise EndpointFailed("no answer", f"says {said[:20]!r} bytes of its {len(body)} are JSON")
    return int(said)


def _values(output: _Output, raw: memoryview | None, rows: int) -> NDArray[np.float64]:
    """The numbers of an output, which has a row for each of `rows`."""
    what = f"output {output.name[:60]!r}"
    dtype = DTYPES.get(output.datatype)
    if dtype is None:
        raise EndpointFailed("no answer", f"answered {output.datatype[:20]}, which are no numbers, in {what}")
    if not output.shape or output.shape[0] != rows or min(output.shape) < 0:
        raise EndpointFailed("no answer", f"answered shape {repr(output.shape)[:60]} to {rows} rows in {what}")
    if raw is None:
        if output.data is msgspec.UNSET:
            raise EndpointFailed("no answer", f"answered no data in {what}")
        values = numbers(output.data, what=what)
    elif len(raw) % dtype.itemsize:
        raise EndpointFailed("no answer", f"answered {len(raw)} bytes of {output.datatype} in {what}")
    else:
        values = np.frombuffer(raw, dtype=dtype).astype(np.float64)
    if len(values) != prod(output.shape):
        raise EndpointFailed("no answer", f"answered {len(values)} numbers in shape {output.shape} in {what}")
    return values


def _sent(column: Column, values: NDArray[Any] | None, rows: int) -> NDArray[Any] | None:
    """A feature's values as its tensor's datatype; an object array of texts for BYTES.

    None where no row has a value and none can be said: the tensor is left out, and the server has the word.
    """
    given: Sequence[Any] = [None] * rows if values is None else values.tolist()
    if column.datatype == "BYTES":
        stands_in = "" if column.missing is None else str(column.missing)
        texts = np.empty(rows, dtype=object)
        texts[:] = [stands_in if (text := as_category(value)) is None else text for value in given]
        return texts
    dtype = DTYPES[column.datatype]
    if column.missing is not None:
        given = [column.missing if value is None or value != value else value for value in given]
    try:
        numbers_given = np.array(given, dtype=np.float64)
    except (TypeError, ValueError):
        raise EndpointFailed("not asked", f"is sent {column.feature!r} as {column.datatype}, and a row holds text "
                             "there") from None  # fmt: skip
    if dtype.kind == "f":
        return numbers_given.astype(dtype)
    if np.isnan(numbers_given).all():
        return None
    if np.isnan(numbers_given).any():
        raise EndpointFailed("not asked", f"is sent {column.feature!r} as {column.datatype}, which has no form for a "
                             f"missing value. {_MIXED}")  # fmt: skip
    with np.errstate(invalid="ignore"):
        whole = numbers_given.astype(dtype)
    if (whole != numbers_given).any():
        raise EndpointFailed("not asked", f"is sent {column.feature!r} as {column.datatype}, which does not hold a "
                             "row's value")  # fmt: skip
    return whole


def _plain(values: NDArray[Any]) -> list[Any]:
    """Values as JSON has them; what is no number is null."""
    listed: list[Any] = values.tolist()
    return [None if value != value else value for value in listed] if values.dtype.kind == "f" else listed


def _raw(values: NDArray[Any]) -> bytes:
    if values.dtype != object:
        return values.tobytes()
    parts: list[bytes] = []
    for text in values.tolist():
        encoded = text.encode("utf-8", "replace")
        parts += (len(encoded).to_bytes(4, "little"), encoded)
    return b"".join(parts)
