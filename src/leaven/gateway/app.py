"""What does the gateway answer over HTTP?

One ASGI application, without a framework in between: it finds out whose request it is, lets that part answer, and sends
the reply. What follows from a reply (shadows) comes after it has been sent.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from leaven.errors import LeavenError
from leaven.gateway import protocol
from leaven.gateway.access import Access, permit
from leaven.gateway.assigning import Assigning
from leaven.gateway.batching import Batcher
from leaven.gateway.counters import Counters
from leaven.gateway.endpoint import endpoint_facts
from leaven.gateway.feedback import read_feedback
from leaven.gateway.http import (
    JSON,
    Answer,
    Disconnected,
    Limits,
    Receive,
    Scope,
    Send,
    allow,
    json_answer,
    read_body,
    refusal,
)
from leaven.gateway.inference import Inference
from leaven.gateway.managing import Managing
from leaven.gateway.metrics import Facts, exposition
from leaven.gateway.models import ModelHost
from leaven.gateway.notes import Notes
from leaven.gateway.packing import packed
from leaven.gateway.predicting import Predicting
from leaven.gateway.refusals import NotOffered, NotReady, Overloaded, UnknownPath
from leaven.gateway.repository import Repository
from leaven.gateway.serving import Serving
from leaven.gateway.shadow import Shadows
from leaven.gateway.tabular import Tabular

logger = logging.getLogger(__name__)

_NOT_OFFERED = ("/v2/trace/", "/v2/logging", "/v2/systemsharedmemory", "/v2/cudasharedmemory")


class Gateway:
    """The ASGI application of one gateway process."""

    def __init__(
        self,
        host: ModelHost,
        predicting: Predicting,
        shadows: Shadows,
        *,
        counters: Counters,
        version: str,
        limits: Limits,
        access: Access,
        notes: Notes,
        others: Callable[[], Sequence[Facts]] = tuple,
        behind: Callable[[], Mapping[str, float]] = dict,
        repository: Repository | None = None,
    ) -> None:
        """Join the parts of a gateway of this Leaven `version`; it is not ready before `begin`.

        Args:
            host: What the loops are served with.
            predicting: What answers rows.
            shadows: Who answers beside.
            counters: Of this process.
            version: Of Leaven.
            limits: Where it stops taking more.
            access: Who may ask.
            notes: Of requests, for the log.
            others: Gives what the other workers of this home say of themselves.
            behind: Gives how far the lake is behind the log, as facts of the status.
            repository: Lists, loads and unloads models; without one there is nothing at its paths.
        """
        self.ready = False
        self._host, self._predicting, self._shadows = host, predicting, shadows
        self._counters, self._limits, self._version = counters, limits, version
        self._inference, self._tabular = Inference(predicting, limits), Tabular(predicting, limits)
        self._assigning = Assigning(predicting, limits, counters)
        self._access, self._notes = access, notes
        self._others, self._behind = others, behind
        self._managing = None if repository is None else Managing(repository, limits)
        self._under_way = 0
        self._draining = False

    def begin(self) -> None:
        """Be ready: what is to be served is known."""
        self._predicting.known = True
        self.ready = not self._draining

    def drain(self) -> None:
        """Be no longer ready, and close each connection with its next reply."""
        self.ready = False
        self._draining = True

    def note_refusal(self, status: int) -> None:
        """Count what was refused before it was a request."""
        self._counters.requests[status] += 1

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            raise RuntimeError(f"the gateway speaks HTTP, not {scope['type']}")
        began = self._notes.timer()
        self._under_way += 1
        try:
            answer = await self._answer(scope, receive)
        except Disconnected:
            self._counters.requests[499] += 1
            return
        finally:
            self._under_way -= 1
        self._counters.requests[answer.status] += 1
        body, headers = await packed(scope, answer)
        headers.append((b"content-length", b"%d" % len(body)))
        if self._draining:
            headers.append((b"connection", b"close"))
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        await send({"type": "http.response.body", "body": body})
        self._notes.told(scope, answer.status, self._notes.timer() - began, answer.records)
        if answer.then is not None:
            answer.then()

    async def _answer(self, scope: Scope, receive: Receive) -> Answer:
        try:
            self._access.check(scope)
            return await self._route(scope, receive)
        except LeavenError as error:
            return refusal(error)
        except Disconnected:
            raise
        except Exception as error:
            # The last line: a caller is told in the form that its client can read, we read the rest in our log.
            logger.exception("a request to %s failed", scope["path"])
            text = {"error": f"unexpected {type(error).__name__}; see the gateway's log"}
            return Answer(500, msgspec.json.encode(text), [JSON])

    async def _route(self, scope: Scope, receive: Receive) -> Answer:
        path: str = scope["path"]
        if path.startswith("/v2/models/"):
            self._check_room()
            return await self._inference.route(scope, receive, ready=self.ready)
        if path.startswith("/v2/repository/") and self._managing is not None:
            return await self._managing.route(scope, receive)
        if path.startswith(_NOT_OFFERED):
            raise NotOffered("settings for traces and logs, and shared memory,", "Read /v1/status and /metrics.")
        if path.startswith("/v1/models/") and path.endswith("/predict"):
            allow(scope, "POST")
            self._check_room()
            return await self._tabular.predict(path[11:-8], scope, receive)
        if path == "/v1/feedback":
            allow(scope, "POST")
            self._check_room()
            return await self._feedback(scope, receive)
        if path == "/v1/assign":
            allow(scope, "POST")
            self._check_room()
            return await self._assigning.assign(scope, receive)
        return self._about_server(path, scope)

    def _check_room(self) -> None:
        if self._under_way > self._limits.under_way:
            raise Overloaded(f"{self._limits.under_way} requests are under way")

    async def _feedback(self, scope: Scope, receive: Receive) -> Answer:
        limits = self._limits
        body = await read_body(
            dict(scope["headers"]), receive, limits.feedback_body, seconds=limits.body_seconds, room=limits.room
        )
        predicting = self._predicting
        if not predicting.known and not predicting.loops:
            raise NotReady("the loops are not known")
        reports = read_feedback(
            body,
            loops=predicting.loops,
            now=predicting.clock.micros(),
            new_id=predicting.chance.new_id,
            classes=predicting.classes,
        )
        for loop in {report.loop for report in reports}:
            permit(scope, loop)
        await predicting.durable(reports)
        self._counters.feedback += len(reports)
        scope["leaven.reports"] = reports  # for who traces requests
        return json_answer(200, {"accepted": len(reports), "ids": [report.id for report in reports]})

    def _about_server(self, path: str, scope: Scope) -> Answer:
        about = {
            "/v2": self._server_metadata,
            "/v2/": self._server_metadata,
            "/v2/health/live": lambda: json_answer(200, {"live": True}),
            "/v2/health/ready": lambda: json_answer(200 if self.ready else 503, {"ready": self.ready}),
            "/v1/status": lambda: json_answer(200, self.status()),
            "/metrics": self._metrics,
        }.get(path)
        if about is None:
            raise UnknownPath(path)
        allow(scope, "GET")
        return about()

    def _server_metadata(self) -> Answer:
        return json_answer(200, {"name": "leaven", "version": self._version, "extensions": protocol.EXTENSIONS})

    def _metrics(self) -> Answer:
        text = exposition([self.status(), *self._others()])
        return Answer(200, text.encode(), [(b"content-type", b"text/plain; version=0.0.4; charset=utf-8")])

    def status(self) -> dict[str, Any]:
        """Return what this process serves and has counted, as JSON-able values."""
        return {
            "ready": self.ready,
            "tables": [_table_facts(serving) for _, serving in sorted(self._host.serving.items())],
            "draining": self._host.draining(),
            "model_stats": [
                facts
                for _, serving in sorted(self._host.serving.items())
                for facts in self._predicting.statistics.own(serving, serving.models)
            ],
            "models": _model_facts(self._host),
            "endpoints": endpoint_facts(self._host.serving),
            "requests_under_way": self._under_way,
            "shadow_rows_pending": self._shadows.pending,
            **self._counters.as_facts(self._shadows.counts),
            **self._behind(),
        }


def _model_facts(host: ModelHost) -> list[dict[str, Any]]:
    """What was asked of the models that share calls."""
    return [
        {"loop": loop, "version": version, "waiting": model.waiting,
         **{name: model.counts[name] for name in ("calls", "rows", "shared")}}
        for loop, serving in sorted(host.serving.items())
        for version, model in serving.models.items()
        if isinstance(model, Batcher)
    ]  # fmt: skip


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
