"""What does an inference request of the Open Inference Protocol v2 say, and what does a reply look like on the wire?

REST with the binary tensor extension: a body is JSON, optionally followed by the raw bytes of the tensors that say
`binary_data_size`, in order; the header `Inference-Header-Content-Length` then tells where the JSON ends.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from leaven.gateway.refusals import BadRequest, TooLarge, shown
from leaven.gateway.tensors import Tensor, from_json, from_raw, to_raw
from leaven.stats.answers import decided

EXTENSIONS = ("binary_tensor_data", "model_repository", "statistics")
MAX_JSON = 16 * 2**20  # bytes; reading JSON holds up everybody, so a large request is to be sent as binary data
ANSWER = "answer"
# Names under which clients of other servers ask for the one output that a tabular model has.
ANSWER_ALIASES = (ANSWER, "predict", "predict_proba", "predictions", "output-0")
ROW_OUTPUTS = ("prediction_id", "version", "arm")
PROBABILITIES = "probabilities"  # of each class, shape [rows, classes]; an output of loops whose label has classes
PROBABILITIES_ALIASES = (PROBABILITIES, "predict_proba")
Parameters = dict[str, Any]


class _InputWritten(msgspec.Struct):
    name: str
    shape: list[int]
    datatype: str
    parameters: Parameters | None = None
    data: Any = msgspec.UNSET


class _OutputWritten(msgspec.Struct):
    name: str
    parameters: Parameters | None = None


class _RequestWritten(msgspec.Struct):
    inputs: list[_InputWritten]
    id: str | None = None
    parameters: Parameters | None = None
    outputs: list[_OutputWritten] | None = None


class InferRequest(msgspec.Struct, frozen=True):
    """One inference request, read."""

    tensors: tuple[Tensor, ...]
    id: str | None
    parameters: Parameters
    outputs: tuple[tuple[str, bool], ...]  # name and whether it is wanted as raw bytes; empty: all
    binary: bool  # whether outputs that are not named are wanted as raw bytes


class InferReply(msgspec.Struct, frozen=True):
    """What one inference request is answered with; the sequences hold one item per row."""

    model: str
    id: str | None
    answers: NDArray[np.float64]
    prediction_ids: Sequence[str]
    versions: Sequence[str]
    arms: Sequence[str]
    propensities: Sequence[float]
    classes: Sequence[str] = ()  # where the answers are the probabilities of these


_request_decoder = msgspec.json.Decoder(_RequestWritten)
_encode = msgspec.json.Encoder().encode


def decode_json(decode: Callable[[Any], Any], body: bytes | memoryview) -> Any:
    """Return what `decode` (of a msgspec decoder) makes of `body`.

    Raises:
        BadRequest: the body is no JSON, or JSON of another form.
        TooLarge: it is longer than is read as JSON.
    """
    if len(body) > MAX_JSON:
        raise TooLarge("the request's JSON", MAX_JSON)
    try:
        return decode(body)
    except RecursionError:
        raise BadRequest("the request body", "its JSON is nested too deep", "Send it flat.") from None
    except (msgspec.MsgspecError, ValueError) as error:
        raise BadRequest(
            "the request body", f"it cannot be read: {error}", "Send JSON of the form documented."
        ) from None


def inflate(body: bytes, encoding: str, *, limit: int) -> bytes:
    """Return the body that was sent with this Content-Encoding; `limit` bounds its length, in bytes.

    Raises:
        BadRequest: the encoding is unknown or the body is damaged.
        TooLarge: the body is longer than `limit` once unpacked.
    """
    # 47 takes gzip and zlib headers alike; "deflate" means zlib's, but some clients send it bare.
    windows = {"gzip": (47,), "x-gzip": (47,), "deflate": (47, -15)}.get(encoding)
    if windows is None:
        raise BadRequest("Content-Encoding", f"{shown(encoding)} is unknown here", "Use gzip, deflate or identity.")
    for window in windows:
        unpack = zlib.decompressobj(window)
        try:
            plain = unpack.decompress(body, limit + 1)
        except zlib.error:
            continue
        if len(plain) > limit:
            raise TooLarge("the unpacked request body", limit)
        if unpack.eof:
            return plain
    raise BadRequest("the request body", f"it is not valid {encoding}", "Send the whole packed body.")


def parse_infer(body: bytes, json_length: str | None) -> InferRequest:
    """Return the request in `body`; `json_length` is the header `Inference-Header-Content-Length`, if sent.

    A length of 0 (the body is one raw tensor) is for `parse_raw`.

    Raises:
        BadRequest: it is no such request; the text says where.
    """
    end = _json_end(body, json_length)
    written: _RequestWritten = decode_json(
        _request_decoder.decode, body if end == len(body) else memoryview(body)[:end]
    )
    tensors = _tensors(written.inputs, memoryview(body)[end:])
    parameters = written.parameters or {}
    binary = parameters.get("binary_data_output") is True
    outputs = tuple((output.name, _wants_binary(output, binary)) for output in written.outputs or ())
    refuse_twice([tensor.name for tensor in tensors], "input")
    refuse_twice([name for name, _ in outputs], "output")
    return InferRequest(tensors, written.id, parameters, outputs, binary)


def parse_raw(body: bytes, features: Sequence[tuple[str, str, bool]]) -> InferRequest:
    """Return the request for one row of a model with one feature, whose body is that feature's value, raw.

    Raises:
        BadRequest: the model has more features, or the body is no such value.
    """
    if len(features) != 1:
        raise BadRequest("Inference-Header-Content-Length", f"0 is for models of one input; this has {len(features)}",
                         "Send JSON in front of the tensors and its length here.")  # fmt: skip
    name, kind, _ = features[0]
    if kind in ("category", "text"):
        body = len(body).to_bytes(4, "little") + body
    return InferRequest((from_raw(name, DATATYPE_OF[kind], [1], body),), None, {}, (), True)


DATATYPE_OF = {"category": "BYTES", "text": "BYTES", "float": "FP64", "int": "INT64", "bool": "BOOL"}


def format_reply(reply: InferReply, request: InferRequest) -> tuple[bytes, int | None]:
    """Return the reply's body and, where it carries raw tensors, the length of the JSON in front of them.

    Raises:
        BadRequest: the request names an output that there is not.
    """
    outputs: list[dict[str, Any]] = []
    blobs: list[bytes] = []
    for name, values, binary in outputs_of(reply, request):
        output: dict[str, Any] = {"name": name, "shape": shape_of(values), "datatype": datatype_of(values)}
        if binary:
            blobs.append(to_raw(values))
            output["parameters"] = {"binary_data_size": len(blobs[-1])}
        else:
            output["data"] = values.ravel().tolist() if isinstance(values, np.ndarray) else values
        outputs.append(output)
    head = _encode(_head(reply, outputs))
    return (head, None) if not blobs else (b"".join((head, *blobs)), len(head))


def outputs_of(reply: InferReply, request: InferRequest) -> list[tuple[str, NDArray[np.float64] | Sequence[str], bool]]:
    """Return the outputs that the request asks for: name, values, and whether as raw bytes.

    Raises:
        BadRequest: the request names an output that there is not.
    """
    wanted = request.outputs or _all_outputs(reply, request.binary)
    return [(name, _output(reply, name), binary) for name, binary in wanted]


def shape_of(values: NDArray[np.float64] | Sequence[str]) -> list[int]:
    """Return the shape of an output."""
    return list(values.shape) if isinstance(values, np.ndarray) else [len(values)]


def datatype_of(values: NDArray[np.float64] | Sequence[str]) -> str:
    """Return the datatype of an output."""
    return "FP64" if isinstance(values, np.ndarray) else "BYTES"


def version_of(reply: InferReply) -> str:
    """Return the version that answered; `mixed` where rows were answered by several."""
    first = reply.versions[0]
    return first if all(version == first for version in reply.versions) else "mixed"


def parameters_of(reply: InferReply) -> Parameters:
    """Return what feedback needs, and who answered."""
    if len(reply.prediction_ids) == 1:
        return {
            "prediction_id": reply.prediction_ids[0],
            "version": reply.versions[0],
            "arm": reply.arms[0],
            "propensity": reply.propensities[0],
        }
    # Row n's own id is this with "-n" behind it, so feedback can be given whatever outputs were asked for.
    return {"prediction_id": reply.prediction_ids[0].removesuffix("-0")}


def _head(reply: InferReply, outputs: list[dict[str, Any]]) -> dict[str, Any]:
    head: dict[str, Any] = {"model_name": reply.model, "model_version": version_of(reply)}
    if reply.id is not None:
        head["id"] = reply.id
    head["parameters"] = parameters_of(reply)
    head["outputs"] = outputs
    return head


def _all_outputs(reply: InferReply, binary: bool) -> tuple[tuple[str, bool], ...]:
    """The outputs of a request that names none; one row says the others in its `parameters`."""
    names = (ANSWER, PROBABILITIES) if reply.classes else (ANSWER,)
    names = names if len(reply.prediction_ids) == 1 else (*names, *ROW_OUTPUTS)
    return tuple((name, binary) for name in names)


def _output(reply: InferReply, name: str) -> NDArray[np.float64] | Sequence[str]:
    if reply.classes and name in PROBABILITIES_ALIASES:
        return reply.answers
    if name in ANSWER_ALIASES:
        return [reply.classes[place] for place in decided(reply.answers).tolist()] if reply.classes else reply.answers
    per_row = {"prediction_id": reply.prediction_ids, "version": reply.versions, "arm": reply.arms}.get(name)
    if per_row is None:
        raise unknown_output(name, reply.classes)
    return per_row


def unknown_output(name: str, classes: Sequence[str]) -> BadRequest:
    """Return the refusal of an output that the model does not have."""
    known = ", ".join((*ANSWER_ALIASES, *((PROBABILITIES,) if classes else ()), *ROW_OUTPUTS))
    return BadRequest("outputs", f"there is no output {shown(name)}", f"Ask for {known}, or leave `outputs` out.")


def check_outputs(request: InferRequest, classes: Sequence[str] = ()) -> None:
    """Refuse a request for an output that there is not, before anything is predicted or logged.

    Args:
        request: What is asked.
        classes: Of the loop's label.

    Raises:
        BadRequest: naming the output.
    """
    for name, _ in request.outputs:
        known = name in ANSWER_ALIASES or name in ROW_OUTPUTS or (classes and name == PROBABILITIES)
        if not known:
            raise unknown_output(name, classes)


def _json_end(body: bytes, json_length: str | None) -> int:
    if json_length is None:
        return len(body)
    # ASCII digits only: int() would take "1_0", " 7" and other alphabets' digits too.
    end = int(json_length) if json_length.isascii() and json_length.isdigit() and len(json_length) < 19 else -1
    if not 0 <= end <= len(body):
        raise BadRequest("Inference-Header-Content-Length", f"{shown(json_length)} is no length within the body",
                         f"Send the length of the JSON in bytes; the body has {len(body)}.")  # fmt: skip
    return end


def _tensors(inputs: Sequence[_InputWritten], rest: memoryview) -> tuple[Tensor, ...]:
    """The tensors of a request; those that say a size take their bytes from `rest`, in order."""
    tensors: list[Tensor] = []
    offset = 0
    for written in inputs:
        size = (written.parameters or {}).get("binary_data_size")
        where = f"input {shown(written.name)}"
        if size is None:
            if written.data is msgspec.UNSET:
                raise BadRequest(where, "it has no data", "Send `data`, or `binary_data_size` and the bytes.")
            tensors.append(from_json(written.name, written.datatype, written.shape, written.data))
            continue
        if written.data is not msgspec.UNSET:
            raise BadRequest(where, "it has both `data` and `binary_data_size`", "Send one of them.")
        if type(size) is not int or not 0 <= size <= len(rest) - offset:
            raise BadRequest(
                where, f"binary_data_size {shown(size)} is not within the body", "Send its length in bytes."
            )
        tensors.append(from_raw(written.name, written.datatype, written.shape, rest[offset : offset + size]))
        offset += size
    if offset != len(rest):
        raise BadRequest("the request body", f"{len(rest) - offset} bytes belong to no input",
                         "Say each binary input's `binary_data_size`.")  # fmt: skip
    return tuple(tensors)


def _wants_binary(output: _OutputWritten, default: bool) -> bool:
    said = (output.parameters or {}).get("binary_data")
    return said if isinstance(said, bool) else default


def refuse_twice(names: Sequence[str], what: str) -> None:
    """Refuse names of inputs or outputs of which one is there twice.

    Raises:
        BadRequest: naming it.
    """
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise BadRequest(f"{what}s", f"{what} {shown(name)} is there twice", f"Name each {what} once.")
        seen.add(name)
