"""What does a gRPC inference request say, and what does a reply look like?

Tensors come typed, in `contents`, or raw, in `raw_input_contents`; all of a request come in one way, and the reply's go
out in the same, unless the parameter `binary_data_output` says otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from leaven.gateway.grpc.messages import InferResponse
from leaven.gateway.protocol import (
    InferReply,
    InferRequest,
    Parameters,
    datatype_of,
    outputs_of,
    parameters_of,
    refuse_twice,
    shape_of,
    version_of,
)
from leaven.gateway.refusals import BadRequest, shown
from leaven.gateway.tensors import Tensor, datatype, from_json, from_raw, to_raw

# Where a datatype's typed values stand; half floats have no such place.
_FIELD = {
    "BOOL": "bool_contents",
    **dict.fromkeys(("INT8", "INT16", "INT32"), "int_contents"),
    "INT64": "int64_contents",
    **dict.fromkeys(("UINT8", "UINT16", "UINT32"), "uint_contents"),
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}


def infer_request(sent: Any) -> InferRequest:
    """Return the request in a ModelInferRequest.

    Raises:
        BadRequest: it is none; the text says where.
    """
    raw: Sequence[bytes] = sent.raw_input_contents
    if raw and len(raw) != len(sent.inputs):
        raise BadRequest("raw_input_contents", f"there are {len(raw)} for {len(sent.inputs)} inputs",
                         "Send one per input, in order.")  # fmt: skip
    tensors = tuple(_tensor(given, raw[place] if raw else None) for place, given in enumerate(sent.inputs))
    refuse_twice([tensor.name for tensor in tensors], "input")
    refuse_twice([output.name for output in sent.outputs], "output")
    parameters = _parameters(sent.parameters)
    said = parameters.get("binary_data_output")
    binary = said if isinstance(said, bool) else bool(raw)
    return InferRequest(
        tensors, sent.id or None, parameters, tuple((output.name, binary) for output in sent.outputs), binary
    )


def _tensor(given: Any, raw: bytes | None) -> Tensor:
    where, shape = f"input {shown(given.name)}", list(given.shape)
    datatype(given.datatype, where=where)
    filled = [field.name for field, _ in given.contents.ListFields()]
    if raw is not None:
        if filled:
            raise BadRequest(where, "it has `contents` beside raw_input_contents", "Send all inputs in one way.")
        return from_raw(given.name, given.datatype, shape, raw)
    field = _FIELD.get(given.datatype)
    if field is None:
        raise BadRequest(where, f"{given.datatype} has no typed form", "Send raw_input_contents, or FP32.")
    if any(other != field for other in filled):
        raise BadRequest(where, f"{given.datatype} data is in {', '.join(filled)}", f"Put it into {field}.")
    values = list(getattr(given.contents, field))
    return from_json(given.name, given.datatype, shape, _texts(values, where) if field == "bytes_contents" else values)


def _texts(values: list[bytes], where: str) -> list[str]:
    try:
        return [value.decode() for value in values]
    except UnicodeDecodeError:
        raise BadRequest(where, "a text is not UTF-8", "Send texts as UTF-8.") from None


def _parameters(sent: Any) -> Parameters:
    """Parameters of every kind; one that says nothing is left out."""
    chosen = ((name, value, value.WhichOneof("parameter_choice")) for name, value in sent.items())
    return {name: getattr(value, kind) for name, value, kind in chosen if kind is not None}


def infer_response(reply: InferReply, request: InferRequest) -> Any:
    """Return the ModelInferResponse of a reply.

    Raises:
        BadRequest: the request names an output that there is not.
    """
    said = InferResponse(model_name=reply.model, model_version=version_of(reply), id=reply.id or "")
    for name, value in parameters_of(reply).items():
        if isinstance(value, float):
            said.parameters[name].double_param = value
        else:
            said.parameters[name].string_param = value
    for name, values, binary in outputs_of(reply, request):
        output = said.outputs.add(name=name, datatype=datatype_of(values), shape=shape_of(values))
        if binary:
            said.raw_output_contents.append(to_raw(values))
        elif isinstance(values, np.ndarray):
            output.contents.fp64_contents.extend(values.ravel().tolist())
        else:
            output.contents.bytes_contents.extend([text.encode() for text in values])
    return said
