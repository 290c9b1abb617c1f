"""What does the gateway answer to the Open Inference Protocol v2 about models?"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from leaven.gateway import protocol
from leaven.gateway.http import (
    BINARY,
    JSON,
    Answer,
    Headers,
    Limits,
    Receive,
    Scope,
    allow,
    as_header,
    header_text,
    json_answer,
    read_body,
)
from leaven.gateway.parameters import parameters_of
from leaven.gateway.predicting import Predicting
from leaven.gateway.refusals import NotOffered, UnknownPath, UnknownVersion
from leaven.gateway.rows import Rows, checked_text, read_rows
from leaven.gateway.serving import Prediction, Serving


class Inference:
    """The routes below `/v2/models/`."""

    def __init__(self, predicting: Predicting, limits: Limits) -> None:
        self._predicting, self._limits = predicting, limits

    async def route(self, scope: Scope, receive: Receive, *, ready: bool) -> Answer:
        """Answer a request below `/v2/models/`; `ready` is whether this gateway is."""
        model, version, verb = read_path(scope["path"])
        if verb == "infer":
            allow(scope, "POST")
            return await self._infer(model, version, scope, receive)
        allow(scope, "GET")
        if verb == "stats":
            return json_answer(200, {"model_stats": statistics(self._predicting, model, version)})
        if verb in _NOT_OFFERED:
            raise NotOffered(_NOT_OFFERED[verb], f"GET /v2/models/{model} describes its inputs and outputs.")
        return self._about(model, version, verb, ready)

    async def _infer(self, model: str, version: str | None, scope: Scope, receive: Receive) -> Answer:
        headers = dict(scope["headers"])
        body = await read_body(
            headers, receive, self._limits.body, seconds=self._limits.body_seconds, room=self._limits.room
        )
        # Taken after the body has arrived: whatever was published meanwhile counts.
        serving = self._predicting.model(model)
        request, rows = _read(body, headers, serving)
        del body  # it may be large, and waiting may be long
        prediction = await self._predicting.answer(serving, rows, version=version, key=said_key(headers))
        return self._reply(serving, request, prediction)

    def _reply(self, serving: Serving, request: protocol.InferRequest, prediction: Prediction) -> Answer:
        reply = reply_to(serving, request.id, prediction)
        body, json_length = protocol.format_reply(reply, request)
        headers = [JSON] if json_length is None else [BINARY, (b"inference-header-content-length", b"%d" % json_length)]
        headers += prediction_headers(prediction)
        return Answer(200, body, headers, self._predicting.afterwards(serving, prediction), prediction.records)

    def _about(self, model: str, version: str | None, verb: str, ready: bool) -> Answer:
        serving = self._predicting.serving(model)
        if version is not None and version not in serving.models:
            raise UnknownVersion(model, version, list(serving.models))
        if verb == "ready":
            return json_answer(200 if ready else 503, {"name": model, "ready": ready})
        return json_answer(200, metadata(serving))


def prediction_headers(prediction: Prediction) -> Headers:
    """Return what a reply to one row says of it in its headers; several rows say it in the body alone."""
    if len(prediction.ids) != 1:
        return []
    return [
        (b"leaven-prediction-id", as_header(prediction.ids[0])),
        (b"leaven-version", as_header(prediction.versions[0])),
        (b"leaven-arm", as_header(prediction.arms[0])),
    ]


def read_path(path: str) -> tuple[str, str | None, str]:
    """Return model, version and verb of a path below `/v2/models/`; the verb of `/v2/models/MODEL` is empty.

    Read from its end, since models of other servers have names with slashes.

    Raises:
        UnknownPath: there is no model in it.
    """
    rest, version, verb = path[11:], None, ""
    for known in _VERBS:
        if rest.endswith(known):
            rest, verb = rest[: -len(known)], known[1:]
            break
    if path == "/v2/models/stats":
        return "", None, "stats"
    before, found, after = rest.rpartition("/versions/")
    if found and after and "/" not in after:
        rest, version = before, after
    if not rest:
        raise UnknownPath(path)
    return rest, version, verb


_VERBS = ("/infer", "/ready", "/stats", "/config", "/trace/setting", "/generate", "/generate_stream")
_NOT_OFFERED = {
    "config": "configurations of models",
    "trace/setting": "settings for traces",
    "generate": "generated texts",
    "generate_stream": "generated texts",
}


def statistics(predicting: Predicting, model: str, version: str | None) -> list[dict[str, Any]]:
    """Return the statistics of a model's version, of all its versions, or, where `model` is empty, of all models.

    Raises:
        NotReady, OutOfService, UnknownModel, UnknownVersion: there is nothing to tell of.
    """
    if not model:
        return [facts for loop in sorted(predicting.served) for facts in statistics(predicting, loop, None)]
    serving = predicting.serving(model)
    if version is not None and version not in serving.models:
        raise UnknownVersion(model, version, list(serving.models))
    return predicting.statistics.about(serving, [version] if version is not None else in_order(serving.models))


def reply_to(serving: Serving, request_id: str | None, prediction: Prediction) -> protocol.InferReply:
    """Return what a request is answered with, in whatever form it goes out."""
    return protocol.InferReply(
        serving.table.loop, request_id, prediction.answers, prediction.ids, prediction.versions, prediction.arms,
        prediction.propensities, serving.table.schema.classes,
    )  # fmt: skip


def in_order(versions: Iterable[str]) -> list[str]:
    """Return versions in the order in which they were made: 2 before 10."""
    return sorted(versions, key=lambda version: (len(version), version))


def said_unit(headers: dict[bytes, bytes]) -> str | None:
    """Return the unit that the header names, if there is one."""
    raw = headers.get(b"leaven-unit")
    return None if raw is None else checked_text(header_text(raw), "header leaven-unit")


def said_key(headers: dict[bytes, bytes]) -> str | None:
    """Return the name by which a repetition of the request is recognised, if it has one."""
    raw = headers.get(b"idempotency-key")
    return None if not raw else checked_text(header_text(raw), "header idempotency-key")


def metadata(serving: Serving) -> dict[str, Any]:
    """Return what the protocol tells of a model; of parameters, which nobody can ask, that there are no outputs."""
    classes = serving.table.schema.classes
    without_model = parameters_of(serving, serving.table.champion.version) is not None
    return {
        "name": serving.table.loop,
        "versions": in_order(serving.models),
        "platform": "leaven",
        "inputs": [
            {"name": name, "datatype": protocol.DATATYPE_OF[kind], "shape": [-1]}
            for name, kind, _ in serving.table.schema.features
        ],
        "outputs": []
        if without_model
        else [
            {"name": protocol.ANSWER, "datatype": "BYTES" if classes else "FP64", "shape": [-1]},
            *([{"name": protocol.PROBABILITIES, "datatype": "FP64", "shape": [-1, len(classes)]}] if classes else []),
            *({"name": name, "datatype": "BYTES", "shape": [-1]} for name in protocol.ROW_OUTPUTS),
        ],
    }


def _read(body: bytes, headers: dict[bytes, bytes], serving: Serving) -> tuple[protocol.InferRequest, Rows]:
    """What is asked; the request without its tensors, which are rows now."""
    request = _parse(body, headers.get(b"inference-header-content-length"), serving)
    protocol.check_outputs(request, serving.table.schema.classes)
    rows = read_rows(request, serving.table.schema, unit=said_unit(headers))
    if request.id:
        checked_text(request.id, "id")
    return msgspec.structs.replace(request, tensors=()), rows


def _parse(body: bytes, json_length: bytes | None, serving: Serving) -> protocol.InferRequest:
    if json_length == b"0":
        return protocol.parse_raw(body, serving.table.schema.features)
    return protocol.parse_infer(body, None if json_length is None else json_length.decode("latin-1"))
