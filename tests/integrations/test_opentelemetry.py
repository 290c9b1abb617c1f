"""Spans of a real gateway, as a real collector of OTLP over HTTP receives them."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from leaven.integrations.opentelemetry import route_of
from tests.gateway.installations import FLIGHTS, a_flight, gateway_on, good_artifact, installation_in

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


class Collector:
    """Takes spans over OTLP and keeps them."""

    def __init__(self) -> None:
        self.spans: list[Any] = []
        self.resources: list[dict[str, Any]] = []
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                if self.headers.get("content-encoding") == "gzip":
                    import gzip

                    body = gzip.decompress(body)
                for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                    collector.resources.append(named(resource.resource.attributes))
                    collector.spans += [span for scope in resource.scope_spans for span in scope.spans]
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *arguments: Any) -> None:
                return

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever)
        self.thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"

    def close(self) -> None:
        self.server.shutdown()
        self.thread.join(60)
        self.server.server_close()

    def until(self, name: str) -> Any:
        end = time.monotonic() + 60
        while True:
            for span in self.spans:
                if span.name == name:
                    return span
            assert time.monotonic() < end, [span.name for span in self.spans]
            time.sleep(0.05)


def named(attributes: Any) -> dict[str, Any]:
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in attributes}


@pytest.fixture
def collector() -> Iterator[Collector]:
    made = Collector()
    yield made
    made.close()


def test_a_prediction_and_its_feedback_are_spans_with_what_the_conventions_ask_for(tmp_path, collector, monkeypatch):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")
    with installation_in(tmp_path, {"1": good_artifact(FLIGHTS)}, LEAVEN_TRACES="otlp") as installation:
        installation.publish(champion="1")
        with gateway_on(installation.settings) as gateway:
            gateway.until_revision(1)
            reply = gateway.infer(a_flight(), traceparent=f"00-{TRACE}-{SPAN}-01", leaven_unit="N123")
            prediction = reply.json["parameters"]["prediction_id"]
            report = {"loop": "flights", "prediction_id": prediction, "name": "delay", "value": 31}
            assert gateway.ask("POST", "/v1/feedback", json.dumps(report)).status == 200
            assert gateway.infer(a_flight(), model="nobody").status == 404
            predicted = collector.until("POST /v2/models/{loop}/infer")
            heard = collector.until("POST /v1/feedback")
    assert (predicted.trace_id.hex(), predicted.parent_span_id.hex()) == (TRACE, SPAN)
    said = named(predicted.attributes)
    assert (said["http.request.method"], said["http.response.status_code"]) == ("POST", 200)
    assert (said["http.route"], said["leaven.loop"]) == ("/v2/models/{loop}/infer", "flights")
    assert (said["leaven.prediction_id"], said["leaven.version"], said["leaven.arm"]) == (prediction, "1", "champion")
    (evaluation,) = predicted.events
    assert evaluation.name == "feature_flag.evaluation"
    assert named(evaluation.attributes)["feature_flag.context.id"] == "N123"
    (result,) = heard.events
    assert result.name == "gen_ai.evaluation.result"
    assert named(result.attributes) == {
        "gen_ai.evaluation.name": "delay", "gen_ai.evaluation.score.value": 31.0, "gen_ai.response.id": prediction,
        "leaven.loop": "flights",
    }  # fmt: skip
    refused = [span for span in collector.spans if named(span.attributes).get("http.response.status_code") == 404]
    assert [named(span.attributes)["leaven.loop"] for span in refused] == ["nobody"]
    assert collector.resources[0]["service.name"] == "leaven-gateway"


def test_a_gateway_whose_collector_is_away_answers_all_the_same(tmp_path, monkeypatch):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    with installation_in(tmp_path, {"1": good_artifact(FLIGHTS)}, LEAVEN_TRACES="otlp") as installation:
        installation.publish(champion="1")
        with gateway_on(installation.settings) as gateway:
            gateway.until_revision(1)
            assert {gateway.infer(a_flight()).status for _ in range(20)} == {200}


@given(st.text(max_size=40))
def test_paths_that_are_none_are_one_route(tail: str):
    assert route_of(f"/nowhere/{tail}") == ("{other}", None)
    assert route_of("/v2/models/a/versions/3/infer") == ("/v2/models/{loop}/versions/{version}/infer", "a")
    assert route_of("/v1/models/a/predict") == ("/v1/models/{loop}/predict", "a")
    assert route_of("/v2/models/a") == ("/v2/models/{loop}", "a")
