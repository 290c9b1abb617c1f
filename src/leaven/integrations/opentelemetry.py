"""How do the gateway's requests show up in a tracing system?

Each request is a server span after OpenTelemetry's conventions for HTTP, a child of the caller's span where it sends a
`traceparent`. A prediction carries its id, version and arm; that a unit got an arm is the event
`feature_flag.evaluation` of the conventions for feature flags, and what came back about a prediction the event
`gen_ai.evaluation.result` of those for generative AI. Where spans go, and how many, is said by the SDK's own variables
(`OTEL_EXPORTER_OTLP_ENDPOINT`, `OTEL_TRACES_SAMPLER`, ...).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Literal
from urllib.parse import unquote

from leaven.errors import BadDefinition
from leaven.events.records import FeedbackReceived

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

REPORTS = "leaven.reports"  # where a request's scope holds the feedback that it acknowledged
_MOST_EVENTS = 32  # of one span
_METHODS = frozenset({"GET", "POST", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH"})


class Traced:
    """An ASGI application whose requests are spans."""

    def __init__(self, app: App, *, exporter: Literal["otlp", "console"], version: str, instance: str) -> None:
        """Trace `app`.

        Args:
            app: What answers.
            exporter: Where spans go.
            version: Of Leaven.
            instance: Name of this process.
        Raises:
            BadDefinition: OpenTelemetry is not installed.
        """
        try:
            from opentelemetry import propagate, trace
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.trace import TracerProvider
        except ImportError as error:
            raise BadDefinition("LEAVEN_TRACES", f"OpenTelemetry cannot be imported ({error})",
                                'Install it: pip install "leaven[traces]".') from error  # fmt: skip
        resource = Resource.create({"service.version": version, "service.instance.id": instance})
        if str(resource.attributes.get("service.name")).startswith("unknown_service"):
            resource = resource.merge(Resource({"service.name": "leaven-gateway"}))
        self._provider = TracerProvider(resource=resource)
        self._provider.add_span_processor(_processor(exporter))
        self._tracer = self._provider.get_tracer("leaven.gateway", version)
        self._app, self._extract, self._trace = app, propagate.extract, trace

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request within a span."""
        trace = self._trace
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        route, loop = route_of(scope["path"])
        method = scope["method"] if scope["method"] in _METHODS else "_OTHER"
        with self._tracer.start_as_current_span(
            f"{method} {route}",
            context=self._extract(headers),
            kind=trace.SpanKind.SERVER,
            attributes=_asked(scope, headers, method, route, loop),
        ) as span:
            said: dict[str, str] = {}

            async def sent(message: dict[str, Any]) -> None:
                if message["type"] == "http.response.start":
                    span.set_attribute("http.response.status_code", message["status"])
                    if message["status"] >= 500:
                        span.set_attribute("error.type", str(message["status"]))
                        span.set_status(trace.StatusCode.ERROR)
                    said.update((name.decode(), unquote(value.decode())) for name, value in message["headers"])
                await send(message)

            await self._app(scope, receive, sent)
            for name, attributes in _events(loop, headers, said, scope.get(REPORTS, ())):
                span.add_event(name, attributes)
            span.set_attributes({f"leaven.{name.removeprefix('leaven-').replace('-', '_')}": value
                                 for name, value in said.items() if name.startswith("leaven-")})  # fmt: skip

    def close(self) -> None:
        """Send what has gathered."""
        self._provider.shutdown()


def _processor(exporter: Literal["otlp", "console"]) -> Any:
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter

    if exporter == "console":
        return BatchSpanProcessor(ConsoleSpanExporter())
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    return BatchSpanProcessor(OTLPSpanExporter())


def route_of(path: str) -> tuple[str, str | None]:
    """Return a path with its names replaced by what they are, and the loop that it names.

    What is asked at paths that are none is one route, so that a scan does not make as many span names.
    """
    parts = path.split("/")
    if parts[1:3] in (["v2", "models"], ["v1", "models"]) and len(parts) > 3:
        rest = ["versions", "{version}", *parts[6:]] if parts[4:5] == ["versions"] else parts[4:]
        verb = "/".join(rest)
        if verb.removeprefix("versions/{version}").strip("/") in ("", "ready", "infer", "predict", "stats", "rank"):
            return "/".join(["", parts[1], "models", "{loop}", *rest]), parts[3]
    known = path.rstrip("/") in {"/v2", "/v2/health/live", "/v2/health/ready", "/v1/feedback", "/v1/assign",
                                 "/v1/status", "/metrics", "/v2/repository/index"}  # fmt: skip
    return (path if known else "{other}"), None


def _asked(scope: Scope, headers: Mapping[str, str], method: str, route: str, loop: str | None) -> dict[str, Any]:
    attributes: dict[str, Any] = {
        "http.request.method": method,
        "http.route": route,
        "url.path": scope["path"],
        "url.scheme": scope.get("scheme", "http"),
        "network.protocol.version": scope.get("http_version", "1.1"),
    }
    optional = {
        "server.address": (scope.get("server") or (None,))[0],
        "server.port": (scope.get("server") or (None, None))[1],
        "client.address": (scope.get("client") or (None,))[0],
        "user_agent.original": headers.get("user-agent"),
        "leaven.loop": loop,
    }
    return attributes | {name: value for name, value in optional.items() if value is not None}


def _events(
    loop: str | None, asked: Mapping[str, str], said: Mapping[str, str], reports: Iterable[FeedbackReceived]
) -> Iterable[tuple[str, dict[str, Any]]]:
    """The events of a request, by the conventions that fit them."""
    if loop is not None and "leaven-arm" in said:
        unit = {"feature_flag.context.id": asked["leaven-unit"]} if "leaven-unit" in asked else {}
        yield (
            "feature_flag.evaluation",
            {
                "feature_flag.key": loop,
                "feature_flag.result.variant": said["leaven-arm"],
                "feature_flag.result.reason": "static" if said["leaven-arm"] == "pinned" else "split",
                "feature_flag.version": said.get("leaven-version", ""),
                "feature_flag.provider.name": "leaven",
                **unit,
            },
        )
    for report, _ in zip(reports, range(_MOST_EVENTS), strict=False):
        facts = {"gen_ai.response.id": report.prediction, "gen_ai.evaluation.score.value": report.value}
        yield (
            "gen_ai.evaluation.result",
            {
                "gen_ai.evaluation.name": report.name,
                "leaven.loop": report.loop,
                **{name: value for name, value in facts.items() if value is not None},
            },
        )
