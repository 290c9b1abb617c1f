"""Which rows does a request ask about, and whom are they for?

Features come as one named tensor each (shape [n] or [n, 1]), or, where all of them are numbers, as one tensor [n, k] in
feature order (shape [k] is one row).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from leaven.events.records import FeatureValue
from leaven.gateway.answering import Columns
from leaven.gateway.features import Sent, columns_of
from leaven.gateway.protocol import InferRequest
from leaven.gateway.refusals import BadRequest, shown
from leaven.gateway.tensors import Tensor
from leaven.loop import Schema
from leaven.training.encoding import as_category

MAX_ROWS = 10_000  # each row is a prediction of its own, with an id and a record
MAX_TEXT = 1024  # characters of a unit or an id


@dataclass(frozen=True, slots=True)
class Rows:
    """The rows of one request; every sequence is of the same length."""

    count: int
    columns: Columns  # by feature; categories as objects, numbers as float64
    values: Mapping[str, Sequence[FeatureValue]]  # the same by feature, as they are logged
    units: Sequence[str | None]  # None: the request does not say

    def features(self, row: int) -> dict[str, FeatureValue]:
        """Return one row's features as they are logged."""
        return {name: column[row] for name, column in self.values.items()}


def read_rows(request: InferRequest, schema: Schema, *, unit: str | None) -> Rows:
    """Return the rows that `request` asks about; `unit` is the one that a header names, for all of them.

    Raises:
        BadRequest: the tensors are not rows of this schema.
        BadFeature: a required feature is missing, or a value does not fit its feature.
    """
    if not request.tensors:
        raise BadRequest("inputs", "there are none", f"Send a tensor for each of {', '.join(schema.names)}.")
    named = {tensor.name: tensor for tensor in request.tensors}
    matrix = _matrix(named, schema)
    count, columns, values = _from_matrix(matrix, schema) if matrix is not None else _from_named(named, schema)
    said = _said_unit(request) or unit
    return Rows(count, columns, values, [said] * count if said else _units(named.get(schema.unit), count))


def _from_named(named: Mapping[str, Tensor], schema: Schema) -> tuple[int, Columns, dict[str, Sequence[FeatureValue]]]:
    """Rows of one tensor per feature. Tensors that are no feature may be there; they are left alone."""
    count = -1
    sent: dict[str, Sent] = {}
    for name, _, _ in schema.features:
        tensor = named.get(name)
        if tensor is None:
            continue
        rows = _row_count(tensor)
        if count not in (-1, rows):
            raise BadRequest(f"input {name!r}", f"it has {rows} rows, others have {count}", "Send as many for each.")
        count = rows
        sent[name] = (tensor.kind, tensor.values)
    if count == -1:
        raise BadRequest("inputs", f"none of {', '.join(map(shown, list(named)[:8]))} is a feature of this model",
                         f"Its features are {', '.join(schema.names)}.")  # fmt: skip
    return count, *columns_of(sent, schema, count)


def _row_count(tensor: Tensor) -> int:
    """Rows of a tensor that holds one feature."""
    shape = tensor.shape
    if len(shape) > 2 or (len(shape) == 2 and shape[1] != 1):
        raise BadRequest(f"input {shown(tensor.name)}", f"shape {shown(list(shape))} is not one value per row",
                         "Send shape [rows] or [rows, 1].")  # fmt: skip
    return _checked_count(shape[0] if shape else 1)


def _checked_count(count: int) -> int:
    if count == 0:
        raise BadRequest("inputs", "there are no rows", "Send at least one.")
    if count > MAX_ROWS:
        raise BadRequest("inputs", f"{count} rows are more than {MAX_ROWS}", "Send them in several requests.")
    return count


def _matrix(named: Mapping[str, Tensor], schema: Schema) -> Tensor | None:
    """The one tensor that holds all features, where the request is of that form."""
    others = [tensor for name, tensor in named.items() if name != schema.unit or name in schema.names]
    if len(others) != 1:
        return None
    tensor, width = others[0], len(schema.features)
    by_name = tensor.name in schema.names and (len(tensor.shape) < 2 or tensor.shape[1:] == [1])
    if by_name or tensor.kind == "text" or any(kind == "category" for _, kind, _ in schema.features):
        return None
    if len(tensor.shape) not in (1, 2) or tensor.shape[-1] != width:
        raise BadRequest(f"input {shown(tensor.name)}", f"shape {shown(list(tensor.shape))} is not rows of {width}",
                         f"Send [rows, {width}]: {', '.join(schema.names)}; or one tensor per feature.")  # fmt: skip
    return tensor


def _from_matrix(tensor: Tensor, schema: Schema) -> tuple[int, Columns, dict[str, Sequence[FeatureValue]]]:
    width = len(schema.features)
    count = _checked_count(tensor.shape[0] if len(tensor.shape) == 2 else 1)
    sent = {name: (tensor.kind, tensor.values[index::width]) for index, name in enumerate(schema.names)}
    return count, *columns_of(sent, schema, count)


def _said_unit(request: InferRequest) -> str | None:
    """The unit of the request's parameters; an empty one says nothing."""
    said = request.parameters.get("unit")
    if said is None:
        return None
    if isinstance(said, bool) or not isinstance(said, (str, int)):
        raise BadRequest("parameters.unit", f"{shown(said)} is no text", "Send the unit's name as a string.")
    return checked_text(str(said), "parameters.unit")


def checked_text(text: str, where: str) -> str:
    """Return `text`, a name that a caller gave.

    Raises:
        BadRequest: it is too long to be one.
    """
    if len(text) > MAX_TEXT:
        raise BadRequest(where, f"it has {len(text)} characters", f"Send at most {MAX_TEXT}.")
    return text


def _units(tensor: Tensor | None, count: int) -> Sequence[str | None]:
    """The unit of each row, from the tensor that has the unit's name."""
    if tensor is None:
        return [None] * count
    if _row_count(tensor) != count:
        raise BadRequest(f"input {shown(tensor.name)}", f"it does not name {count} units", "Send one per row.")
    given = tensor.values.tolist() if isinstance(tensor.values, np.ndarray) else tensor.values
    where = f"input {shown(tensor.name)}"
    texts = [as_category(unit) for unit in given]
    return [checked_text(text, where) if text else None for text in texts]
