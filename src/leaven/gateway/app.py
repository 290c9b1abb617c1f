"""What does the gateway answer over HTTP?

One ASGI application, without a framework in between: what it does for a prediction is read the body, predict, answer,
and hand the records on, in this order, with nothing waited for.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import msgspec

from leaven.clock import Clock
from leaven.errors import LeavenError
from leaven.events.log import EventLog, LogUnavailable
from leaven.events.records import FeedbackReceived
from leaven.gateway import protocol
from leaven.gateway.counters import Counters
from leaven.gateway.feedback import read_feedback
from leaven.gateway.models import ModelHost
from leaven.gateway.refusals import (
    NotReady,
    Overloaded,
    TooLarge,
    UnknownModel,
    UnknownPath,
    UnknownVersion,
    WrongMethod,
    shown,
    status_of,
)
from leaven.gateway.rows import checked_text, read_rows
from leaven.gateway.serving import Chance, Prediction, Serving, predict
from leaven.gateway.shadow import Shadows

logger = logging.getLogger(__name__)

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

_JSON = (b"content-type", b"application/json")
_BINARY = (b"content-type", b"application/octet-stream")
_RETRY = (b"retry-after", b"1")
_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class Limits:
    """Where the gateway stops taking more, each bounding what a request can cost everybody else."""

    body: int = 64 * 2**20  # bytes of an inference request, packed and unpacked
    feedback_body: int = 8 * 2**20  # bytes
    under_way: int = 1024  # requests at once
    inline_rows: int = 128  # more are predicted on a thread, so that short requests do not wait behind them
    feedback_seconds: float = 10.0  # to become durable


@dataclass(frozen=True, slots=True)
class _Answer:
    """A reply, and what is to be done once it has been sent."""

    status: int
    body: bytes
    headers: Headers
    then: Callable[[], None] | None = None


class Disconnected(Exception):  # not a refusal: nobody is there to read one
    """The caller went away before the request was complete."""


class Gateway:
    """The ASGI application of one gateway process."""

    def __init__(
        self,
        host: ModelHost,
        log: EventLog,
        shadows: Shadows,
        *,
        clock: Clock,
        chance: Chance,
        counters: Counters,
        version: str,
        limits: Limits = Limits(),
    ) -> None:
        """Join the parts of a gateway of this Leaven `version`; it is not ready before `begin`."""
        self.ready = False
        self._host, self._log, self._shadows = host, log, shadows
        self._clock, self._chance, self._counters, self._limits = clock, chance, counters, limits
        self._version = version
        self._under_way = 0
        self._begun = self._draining = False
        self._threads = ThreadPoolExecutor(2, thread_name_prefix="large-requests")

    def begin(self) -> None:
        """Be ready: what is to be served is known."""
        self._begun = True
        self.ready = not self._draining

    def drain(self) -> None:
        """Be no longer ready, and close each connection with its next reply."""
        self.ready = False
        self._draining = True

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            raise RuntimeError(f"the gateway speaks HTTP, not {scope['type']}")
        self._under_way += 1
        try:
            answer = await self._answer(scope, receive)
        except Disconnected:
            self._counters.requests[499] += 1
            return
        finally:
            self._under_way -= 1
        self._counters.requests[answer.status] += 1
        headers = [*answer.headers, (b"content-length", b"%d" % len(answer.body))]
        if self._draining:
            headers.append((b"connection", b"close"))
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        await send({"type": "http.response.body", "body": answer.body})
        if answer.then is not None:
            answer.then()

    async def _answer(self, scope: Scope, receive: Receive) -> _Answer:
        try:
            return await self._route(scope, receive)
        except LeavenError as error:
            return _refusal(error)
        except Disconnected:
            raise
        except Exception as error:
            # The last line: a caller is told in the form that its client can read, we read the rest in our log.
            logger.exception("a request to %s failed", scope["path"])
            return _Answer(
                500, _encode({"error": f"unexpected {type(error).__name__}; see the gateway's log"}), [_JSON]
            )

    async def _route(self, scope: Scope, receive: Receive) -> _Answer:
        path: str = scope["path"]
        if path.startswith("/v2/models/"):
            parts = path[11:].split("/")
            version = parts[2] if len(parts) >= 3 and parts[1] == "versions" else None
            verb = "/".join(parts[1:] if version is None else parts[3:])
            if verb == "infer":
                _allow(scope, "POST")
                return await self._infer(parts[0], version, scope, receive)
            if verb not in ("", "ready"):
                raise UnknownPath(path)
            _allow(scope, "GET")
            return self._about_model(parts[0], version, verb)
        if path == "/v1/feedback":
            _allow(scope, "POST")
            return await self._feedback(scope, receive)
        return self._about_server(path, scope)

    async def _infer(self, model: str, version: str | None, scope: Scope, receive: Receive) -> _Answer:
        if self._under_way > self._limits.under_way:
            raise Overloaded(self._limits.under_way)
        headers = dict(scope["headers"])
        body = await _read_body(headers, receive, self._limits.body)
        # Taken after the body has arrived: whatever was published meanwhile counts.
        serving = self._serving(model)
        request = _parse(body, headers.get(b"inference-header-content-length"), serving)
        protocol.check_outputs(request)
        rows = read_rows(request, serving.table.schema, unit=_unit(headers))
        if request.id:
            checked_text(request.id, "id")

        def answer() -> Prediction:
            return predict(serving, rows, pinned=version, at=self._clock.micros(), chance=self._chance)

        if rows.count <= self._limits.inline_rows:
            prediction = answer()
        else:
            prediction = await asyncio.get_running_loop().run_in_executor(self._threads, answer)
        self._write_down(serving, prediction)
        if prediction.failure is not None:
            raise prediction.failure
        return self._reply(serving, request, prediction)

    def _write_down(self, serving: Serving, prediction: Prediction) -> None:
        counters = self._counters
        for record in prediction.records:
            counters.predictions[serving.table.loop, record.arm, record.version] += 1
            if record.error is not None:
                counters.failures[serving.table.loop, record.arm, record.version] += 1
            if not self._log.append(record):
                counters.dropped += 1

    def _reply(self, serving: Serving, request: protocol.InferRequest, prediction: Prediction) -> _Answer:
        reply = protocol.InferReply(
            serving.table.loop, request.id, prediction.answers, prediction.ids, prediction.versions, prediction.arms,
            prediction.propensities,
        )  # fmt: skip
        body, json_length = protocol.format_reply(reply, request)
        headers = (
            [_JSON] if json_length is None else [_BINARY, (b"inference-header-content-length", b"%d" % json_length)]
        )
        if len(prediction.ids) == 1:
            headers += (
                (b"leaven-prediction-id", _header(prediction.ids[0])),
                (b"leaven-version", _header(prediction.versions[0])),
                (b"leaven-arm", _header(prediction.arms[0])),
            )
        if not serving.table.shadows or not prediction.places:
            return _Answer(200, body, headers)
        return _Answer(200, body, headers, lambda: self._shadows.offer(serving, prediction))

    async def _feedback(self, scope: Scope, receive: Receive) -> _Answer:
        body = await _read_body(dict(scope["headers"]), receive, self._limits.feedback_body)
        if not self._begun and not self._host.serving:
            raise NotReady("the loops are not known")
        reports = read_feedback(
            body, loops=self._host.serving.keys(), now=self._clock.micros(), new_id=self._chance.new_id
        )
        await self._durable(reports)
        self._counters.feedback += len(reports)
        return _json(200, {"accepted": len(reports), "ids": [report.id for report in reports]})

    async def _durable(self, reports: Sequence[FeedbackReceived]) -> None:
        """Wait until the reports survive a power cut.

        Raises:
            LogUnavailable: they may not, or it takes too long to know.
        """
        durable = asyncio.wrap_future(self._log.append_durably(reports))
        # Not wait_for: that would cancel the future, which is the log's to resolve.
        done, _ = await asyncio.wait((durable,), timeout=self._limits.feedback_seconds)
        if not done:
            durable.add_done_callback(_note_late)
            raise LogUnavailable(f"the disk did not confirm within {self._limits.feedback_seconds:g} s")
        durable.result()

    def _about_model(self, model: str, version: str | None, verb: str) -> _Answer:
        serving = self._serving(model)
        if version is not None and version not in serving.models:
            raise UnknownVersion(model, version, list(serving.models))
        if verb == "ready":
            return _json(200 if self.ready else 503, {"name": model, "ready": self.ready})
        return _json(200, _metadata(serving))

    def _about_server(self, path: str, scope: Scope) -> _Answer:
        about = {
            "/v2": self._server_metadata,
            "/v2/": self._server_metadata,
            "/v2/health/live": lambda: _json(200, {"live": True}),
            "/v2/health/ready": lambda: _json(200 if self.ready else 503, {"ready": self.ready}),
            "/v1/status": lambda: _json(200, self.status()),
            "/metrics": self._metrics,
        }.get(path)
        if about is None:
            raise UnknownPath(path)
        _allow(scope, "GET")
        return about()

    def _server_metadata(self) -> _Answer:
        return _json(200, {"name": "leaven", "version": self._version, "extensions": protocol.EXTENSIONS})

    def _metrics(self) -> _Answer:
        text = self._counters.as_prometheus(self._shadows.counts)
        return _Answer(200, text.encode(), [(b"content-type", b"text/plain; version=0.0.4; charset=utf-8")])

    def status(self) -> dict[str, Any]:
        """Return what this process serves and has counted, as JSON-able values."""
        return {
            "ready": self.ready,
            "tables": [_table_facts(serving) for _, serving in sorted(self._host.serving.items())],
            "draining": self._host.draining(),
            "shadow_rows_pending": self._shadows.pending,
            **self._counters.as_facts(self._shadows.counts),
        }

    def _serving(self, model: str) -> Serving:
        serving = self._host.serving.get(model)
        if serving is None and not self._begun:
            raise NotReady(f"model {shown(model)} is not known")
        if serving is None:
            raise UnknownModel(model, self._host.serving.keys())
        return serving


def _note_late(durable: asyncio.Future[None]) -> None:
    if not durable.cancelled() and durable.exception() is not None:
        logger.warning("feedback that was refused as late was not kept: %s", durable.exception())


def _parse(body: bytes, json_length: bytes | None, serving: Serving) -> protocol.InferRequest:
    if json_length == b"0":
        return protocol.parse_raw(body, serving.table.schema.features)
    return protocol.parse_infer(body, None if json_length is None else json_length.decode("latin-1"))


async def _read_body(headers: Mapping[bytes, bytes], receive: Receive, limit: int) -> bytes:
    """The request's body, unpacked; it is never longer than `limit` in memory, packed or not."""
    said = headers.get(b"content-length", b"0")
    if said.isdigit() and int(said[:20]) > limit:
        raise TooLarge("the request body", limit)
    message = await receive()
    body: bytes = message.get("body", b"")
    if message.get("more_body"):
        parts, length = [body], len(body)
        while message.get("more_body"):
            message = await receive()
            parts.append(message.get("body", b""))
            length += len(parts[-1])
            if length > limit:
                raise TooLarge("the request body", limit)
        body = b"".join(parts)
    if message["type"] == "http.disconnect":
        raise Disconnected
    if len(body) > limit:
        raise TooLarge("the request body", limit)
    encoding = headers.get(b"content-encoding")
    if encoding is None or encoding == b"identity":
        return body
    return protocol.inflate(body, encoding.decode("latin-1").strip().lower(), limit=limit)


def _unit(headers: Mapping[bytes, bytes]) -> str | None:
    raw = headers.get(b"leaven-unit")
    if raw is None:
        return None
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        text = raw.decode("latin-1")  # what HTTP itself takes header bytes for
    return checked_text(text, "header leaven-unit")


def _allow(scope: Scope, method: str) -> None:
    if scope["method"] != method:
        raise WrongMethod(scope["method"], method)


def _header(text: str) -> bytes:
    """A text as a header can carry it: printable ASCII as it is, the rest percent-encoded."""
    return text.encode() if text.isascii() and text.isprintable() else quote(text).encode()


def _json(status: int, facts: object) -> _Answer:
    return _Answer(status, _encode(facts), [_JSON])


def _refusal(error: LeavenError) -> _Answer:
    status = status_of(error)
    headers: Headers = [_JSON]
    if status == 503:
        headers.append(_RETRY)
    if isinstance(error, WrongMethod):
        headers.append((b"allow", error.allowed.encode()))
    return _Answer(status, _encode({"error": str(error)}), headers)


def _metadata(serving: Serving) -> dict[str, Any]:
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


def _table_facts(serving: Serving) -> dict[str, Any]:
    table = serving.table
    return {
        "loop": table.loop,
        "revision": table.revision,
        "at": table.at,
        "arms": [{"arm": arm.arm, "version": arm.version, "share": arm.propensity} for arm in table.arms],
        "shadows": [shadow.version for shadow in table.shadows],
        "standby": [standby.version for standby in table.standby],
    }
