"""What does the gateway answer to the Open Inference Protocol v2 about models?"""

from __future__ import annotations

from typing import Any

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
from leaven.gateway.predicting import Predicting
from leaven.gateway.refusals import UnknownPath, UnknownVersion
from leaven.gateway.rows import checked_text, read_rows
from leaven.gateway.serving import Prediction, Serving


class Inference:
    """The routes below `/v2/models/`."""

    def __init__(self, predicting: Predicting, limits: Limits) -> None:
        self._predicting, self._limits = predicting, limits

    async def route(self, scope: Scope, receive: Receive, *, ready: bool) -> Answer:
        """Answer a request below `/v2/models/`; `ready` is whether this gateway is."""
        parts = scope["path"][11:].split("/")
        version = parts[2] if len(parts) >= 3 and parts[1] == "versions" else None
        verb = "/".join(parts[1:] if version is None else parts[3:])
        if verb == "infer":
            allow(scope, "POST")
            return await self._infer(parts[0], version, scope, receive)
        if verb not in ("", "ready"):
            raise UnknownPath(scope["path"])
        allow(scope, "GET")
        return self._about(parts[0], version, verb, ready)

    async def _infer(self, model: str, version: str | None, scope: Scope, receive: Receive) -> Answer:
        headers = dict(scope["headers"])
        body = await read_body(headers, receive, self._limits.body, seconds=self._limits.body_seconds)
        # Taken after the body has arrived: whatever was published meanwhile counts.
        serving = self._predicting.serving(model)
        request = _parse(body, headers.get(b"inference-header-content-length"), serving)
        protocol.check_outputs(request)
        rows = read_rows(request, serving.table.schema, unit=said_unit(headers))
        if request.id:
            checked_text(request.id, "id")
        prediction = await self._predicting.answer(serving, rows, version=version, key=said_key(headers))
        return self._reply(serving, request, prediction)

    def _reply(self, serving: Serving, request: protocol.InferRequest, prediction: Prediction) -> Answer:
        reply = protocol.InferReply(
            serving.table.loop, request.id, prediction.answers, prediction.ids, prediction.versions, prediction.arms,
            prediction.propensities,
        )  # fmt: skip
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


def said_unit(headers: dict[bytes, bytes]) -> str | None:
    """Return the unit that the header names, if there is one."""
    raw = headers.get(b"leaven-unit")
    return None if raw is None else checked_text(header_text(raw), "header leaven-unit")


def said_key(headers: dict[bytes, bytes]) -> str | None:
    """Return the name by which a repetition of the request is recognised, if it has one."""
    raw = headers.get(b"idempotency-key")
    return None if not raw else checked_text(header_text(raw), "header idempotency-key")


def metadata(serving: Serving) -> dict[str, Any]:
    """Return what the protocol tells of a model."""
    return {
        "name": serving.table.loop,
        "versions": sorted(serving.models, key=lambda version: (len(version), version)),
        "platform": "leaven",
        "inputs": [
            {"name": name, "datatype": protocol.DATATYPE_OF[kind], "shape": [-1]}
            for name, kind, _ in serving.table.schema.features
        ],
        "outputs": [
            {"name": protocol.ANSWER, "datatype": "FP64", "shape": [-1]},
            *({"name": name, "datatype": "BYTES", "shape": [-1]} for name in protocol.ROW_OUTPUTS),
        ],
    }


def _parse(body: bytes, json_length: bytes | None, serving: Serving) -> protocol.InferRequest:
    if json_length == b"0":
        return protocol.parse_raw(body, serving.table.schema.features)
    return protocol.parse_infer(body, None if json_length is None else json_length.decode("latin-1"))
