"""What does the gateway answer over gRPC?

The same as over HTTP: the same core, the same refusals with the same sentences, under gRPC's names for them.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import msgspec
from google.protobuf.json_format import ParseDict
from google.protobuf.message import DecodeError

from leaven.errors import LeavenError
from leaven.gateway import protocol
from leaven.gateway.counters import Counters
from leaven.gateway.grpc.conversion import infer_request, infer_response
from leaven.gateway.grpc.messages import SERVICE, methods
from leaven.gateway.inference import metadata, reply_to, statistics
from leaven.gateway.managing import check_parameters
from leaven.gateway.predicting import Predicting
from leaven.gateway.refusals import (
    BadRequest,
    NotReady,
    OutOfService,
    UnknownModel,
    UnknownVersion,
    status_of,
)
from leaven.gateway.repository import Repository
from leaven.gateway.rows import checked_text, read_rows

logger = logging.getLogger(__name__)

Admit = Callable[[dict[str, Any]], None]  # is told `path` and `headers` as a request over HTTP has them; may refuse

_CODES = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.NOT_FOUND,
    408: grpc.StatusCode.DEADLINE_EXCEEDED,
    413: grpc.StatusCode.RESOURCE_EXHAUSTED,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    501: grpc.StatusCode.UNIMPLEMENTED,
    503: grpc.StatusCode.UNAVAILABLE,
}


def code_of(error: LeavenError) -> grpc.StatusCode:
    """Return gRPC's name for what the one table of refusals says in HTTP's."""
    return _CODES.get(status_of(error), grpc.StatusCode.INTERNAL)


class Service:
    """The methods of `inference.GRPCInferenceService`."""

    def __init__(
        self,
        predicting: Predicting,
        repository: Repository,
        *,
        counters: Counters,
        version: str,
        ready: Callable[[], bool],
        admit: Admit,
    ) -> None:
        """Join the parts.

        Args:
            predicting: What answers rows.
            repository: Lists, loads and unloads models.
            counters: Of this process; calls are counted under the HTTP status that they would have had.
            version: Of Leaven.
            ready: Tells whether this gateway is.
            admit: Refuses callers who may not do this, by the path that it has over HTTP.
        """
        self._predicting, self._repository, self._counters = predicting, repository, counters
        self._version, self._ready, self._admit = version, ready, admit

    def handler(self) -> grpc.GenericRpcHandler:
        """Return what a server calls."""
        made = {name: self._method(name, asked, said) for name, (asked, said) in methods().items()}
        return grpc.method_handlers_generic_handler(SERVICE, made)

    def _method(self, name: str, asked: Any, said: Any) -> grpc.RpcMethodHandler:
        answer: Callable[[Any, Any, dict[str, str]], Awaitable[Any]] = getattr(self, f"_{name}")

        async def call(body: bytes, context: grpc.aio.ServicerContext) -> Any:
            try:
                headers = {key: value for key, value in context.invocation_metadata() if isinstance(value, str)}
                sent = _decoded(asked, body)
                token = headers.get("authorization", "").encode()
                self._admit({"path": path_of(name, sent), "headers": [(b"authorization", token)]})
                reply = await answer(sent, said, headers)
            except LeavenError as error:
                self._counters.requests[status_of(error)] += 1
                await context.abort(code_of(error), str(error))
            except Exception as error:  # the last line, as over HTTP
                logger.exception("a call of %s failed", name)
                self._counters.requests[500] += 1
                await context.abort(grpc.StatusCode.INTERNAL, f"unexpected {type(error).__name__}; see the log")
            self._counters.requests[200] += 1
            return reply

        # Bytes, and decoded by us: what is no message is the caller's fault, and gRPC would call it ours.
        return grpc.unary_unary_rpc_method_handler(call, response_serializer=said.SerializeToString)

    async def _ServerLive(self, sent: Any, said: Any, headers: dict[str, str]) -> Any:  # noqa: N802
        return said(live=True)

    async def _ServerReady(self, sent: Any, said: Any, headers: dict[str, str]) -> Any:  # noqa: N802
        return said(ready=self._ready())

    async def _ServerMetadata(self, sent: Any, said: Any, headers: dict[str, str]) -> Any:  # noqa: N802
        extensions = [name for name in protocol.EXTENSIONS if name != "binary_tensor_data"]  # which is HTTP's
        return said(name="leaven", version=self._version, extensions=extensions)

    async def _ModelReady(self, sent: Any, said: Any, headers: dict[str, str]) -> Any:  # noqa: N802
        try:
            serving = self._predicting.serving(sent.name)
        except (NotReady, OutOfService, UnknownModel):
            return said(ready=False)
        return said(ready=self._ready() and (not sent.version or sent.version in serving.models))

    async def _ModelMetadata(self, sent: Any, said: Any, headers: dict[str, str]) -> Any:  # noqa: N802
        serving = self._predicting.serving(sent.name)
        if sent.version and sent.version not in serving.models:
            raise UnknownVersion(sent.name, sent.version, list(serving.models))
        return ParseDict(metadata(serving), said())

    async def _ModelInfer(self, sent: Any, said: Any, headers: dict[str, str]) -> Any:  # noqa: N802
        serving = self._predicting.model(sent.model_name)
        request = infer_request(sent)
        protocol.check_outputs(request, serving.table.schema.classes)
        unit = headers.get("leaven-unit")
        rows = read_rows(request, serving.table.schema, unit=unit and checked_text(unit, "metadata leaven-unit"))
        checked_text(request.id or "", "id")
        key = headers.get("idempotency-key")
        request = msgspec.structs.replace(request, tensors=())  # they are rows now, and waiting may be long
        prediction = await self._predicting.answer(
            serving,
            rows,
            version=sent.model_version or None,
            key=checked_text(key, "metadata idempotency-key") if key else None,
        )
        reply = infer_response(reply_to(serving, request.id, prediction), request)
        if (then := self._predicting.afterwards(serving, prediction)) is not None:
            then()  # it only queues
        return reply

    async def _ModelStatistics(self, sent: Any, said: Any, headers: dict[str, str]) -> Any:  # noqa: N802
        facts = statistics(self._predicting, sent.name, sent.version or None)
        return ParseDict({"model_stats": facts}, said(), ignore_unknown_fields=True)

    async def _RepositoryIndex(self, sent: Any, said: Any, headers: dict[str, str]) -> Any:  # noqa: N802
        listed = self._repository.index(ready_only=sent.ready)
        return ParseDict({"models": [msgspec.structs.asdict(row) for row in listed]}, said())

    async def _RepositoryModelLoad(self, sent: Any, said: Any, headers: dict[str, str]) -> Any:  # noqa: N802
        check_parameters(dict(sent.parameters))
        await self._repository.load(sent.model_name)
        return said()

    async def _RepositoryModelUnload(self, sent: Any, said: Any, headers: dict[str, str]) -> Any:  # noqa: N802
        await self._repository.unload(sent.model_name)
        return said()


def path_of(method: str, sent: Any) -> str:
    """Return the path under which HTTP has what a method does; what one needs to call it follows from that."""
    if method.startswith("RepositoryModel"):
        return f"/v2/repository/models/{sent.model_name}/{method.removeprefix('RepositoryModel').lower()}"
    if method == "ModelInfer":
        return f"/v2/models/{sent.model_name}/infer"
    if method.startswith("Model"):
        return f"/v2/models/{sent.name}" if sent.name else "/v2/models/stats"
    return {"ServerLive": "/v2/health/live", "ServerReady": "/v2/health/ready", "ServerMetadata": "/v2",
            "RepositoryIndex": "/v2/repository/index"}[method]  # fmt: skip


def _decoded(asked: Any, body: bytes) -> Any:
    try:
        return asked.FromString(body)
    except DecodeError as error:
        raise BadRequest("the call", f"its message cannot be read: {error}", "Check the protocol's version.") from None
