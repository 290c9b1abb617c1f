"""A real gateway answers stock clients and other projects' payloads, and refuses hostile bodies with a sentence."""

from __future__ import annotations

import gzip
import json
import socket
import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

from leaven.events.records import FeedbackReceived, PredictionServed
from leaven.learners.artifact import ModelArtifact, load_artifact
from leaven.loop import Schema
from tests.gateway.installations import (
    FLIGHTS,
    IRIS,
    Installation,
    RunningGateway,
    a_flight,
    gateway_on,
    good_artifact,
    installation_in,
)

PAYLOADS = Path(__file__).parent / "oip"
KINDS = {"BYTES": "category", "INT64": "int", "INT32": "int", "FP32": "float", "FP64": "float"}


def payload(name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((PAYLOADS / name).read_text())
    return content


def columns_of(name: str) -> Schema:
    """The schema that a payload with one tensor per column is for."""
    return Schema(
        tuple((each["name"], KINDS[each["datatype"]], False) for each in payload(name)["inputs"]), "-", "regression"
    )


def numbers(count: int) -> Schema:
    return Schema(tuple((f"x{index}", "float", False) for index in range(count)), "-", "regression")


LOOPS = {
    "iris": IRIS,
    "one": Schema((("x", "float", False),), "-", "regression"),
    "word": Schema((("w", "category", False),), "-", "regression"),
    "three": numbers(3),
    "ten": numbers(10),
    "wine": columns_of("kserve/mlflow_input_v2.json"),
    "houses": columns_of("kserve/sklearn_mixed_v2.json"),
    "titanic": columns_of("kserve/autogluon_titanic_input_v2.json"),
}


@dataclass
class Served:
    gateway: RunningGateway
    installation: Installation


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, artifacts_made: Mapping[str, ModelArtifact]) -> Iterator[Served]:
    artifacts = dict(artifacts_made) | {f"{name}-1": good_artifact(schema, rounds=2) for name, schema in LOOPS.items()}
    with installation_in(tmp_path_factory.mktemp("wire"), artifacts) as installation:
        installation.publish(champion="1", canary="2", share=0.5, standby=["nan"])
        for name, schema in LOOPS.items():
            installation.publish(loop=name, champion=f"{name}-1", schema=schema)
        with gateway_on(installation.settings) as gateway:
            gateway.until(lambda status: len(status["tables"]) == len(LOOPS) + 1)
            yield Served(gateway, installation)


@pytest.fixture
def gateway(served: Served) -> RunningGateway:
    return served.gateway


@pytest.fixture
def client(gateway: RunningGateway) -> Iterator[Any]:
    with triton.InferenceServerClient(gateway.address) as made:
        yield made


def flight_inputs(*, binary: bool, rows: int = 1) -> list[Any]:
    columns = {
        "carrier": np.array([b"AA", b"UA", b"ZZ"][:rows], dtype=object),
        "dep_hour": np.array([8, 9, 10][:rows]),
        "dep_delay": np.array([3.5, -1.0, 20.0][:rows]),
        "weekend": np.array([False, True, False][:rows]),
    }
    names = {"O": "BYTES", "i": "INT64", "f": "FP64", "b": "BOOL"}
    inputs = []
    for name, column in columns.items():
        inputs.append(triton.InferInput(name, [rows], names[column.dtype.kind]))
        inputs[-1].set_data_from_numpy(column, binary_data=binary)
    return inputs


# --- stock clients -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("compression", [None, "gzip", "deflate"])
@pytest.mark.parametrize("binary_in", [True, False])
def test_the_stock_client_predicts_what_the_model_says(client, served, binary_in, compression):
    result = client.infer("flights", flight_inputs(binary=binary_in, rows=3), request_compression_algorithm=compression)
    versions = [text.decode() for text in result.as_numpy("version").tolist()]
    columns = {
        "carrier": np.array(["AA", "UA", "ZZ"], dtype=object),
        "dep_hour": np.array([8, 9, 10]),
        "dep_delay": np.array([3.5, -1.0, 20.0]),
        "weekend": np.array([False, True, False]),
    }
    from leaven.registry.artifacts import ArtifactStore

    store = ArtifactStore(served.installation.settings.artifacts)
    for row, version in enumerate(versions):
        model = load_artifact(store.get(served.installation.digests[version]))
        assert result.as_numpy("answer")[row] == pytest.approx(model.answer(columns)[row], rel=1e-6)


def test_the_stock_client_gets_json_where_it_asks_for_it(client):
    outputs = [triton.InferRequestedOutput("answer", binary_data=False)]
    response = client.infer("flights", flight_inputs(binary=True), outputs=outputs, request_id="mine").get_response()
    assert response["id"] == "mine"
    assert response["parameters"]["prediction_id"] not in ("", "mine")  # clients reuse their ids, predictions must not
    assert isinstance(response["outputs"][0]["data"][0], float)


def test_the_stock_client_keeps_a_unit_on_its_arm(client):
    seen = {client.infer("flights", flight_inputs(binary=True), parameters={"unit": "N1"}).get_response()
            ["parameters"]["arm"] for _ in range(10)}  # fmt: skip
    by_header = client.infer("flights", flight_inputs(binary=True), headers={"leaven-unit": "N1"}).get_response()
    assert seen == {by_header["parameters"]["arm"]}


def test_the_stock_client_reads_health_and_metadata(client):
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("flights")
    assert client.is_model_ready("flights", "2")
    assert not client.is_model_ready("flights", "9")
    assert client.get_server_metadata()["extensions"] == ["binary_tensor_data", "model_repository", "statistics"]
    model = client.get_model_metadata("flights")
    assert (model["name"], model["platform"], model["versions"]) == ("flights", "leaven", ["1", "2", "nan"])
    assert model["inputs"][0] == {"name": "carrier", "datatype": "BYTES", "shape": [-1]}


def test_the_stock_client_reads_our_refusals(client):
    with pytest.raises(InferenceServerException, match="no model 'trains' is served") as refused:
        client.infer("trains", flight_inputs(binary=True))
    assert refused.value.status() == "404"


# --- payloads of other projects ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "loop", "rows"),
    [
        ("kserve/iris_input_v2.json", "iris", 2),
        ("kserve/iris_input_v2_binary.json", "iris", 2),
        ("kserve/iris_input_v2_all_binary.json", "iris", 2),
        ("kserve/pmml-input-v2.json", "iris", 1),
        ("kserve/mlflow_input_v2.json", "wine", 1),
        ("kserve/sklearn_mixed_v2.json", "houses", 1),
        ("kserve/autogluon_titanic_input_v2.json", "titanic", 2),
        ("kserve/autogluon_titanic_input_v2_binary.json", "titanic", 2),
        ("kserve/autogluon_titanic_input_v2_all_binary.json", "titanic", 2),
        ("mlserver/inference-request.json", "three", 1),
        ("mlserver/runtime-lightgbm-request.json", "three", 1),
        ("mlserver/runtime-xgboost-request.json", "three", 1),
        ("mlserver/runtime-sklearn-request.json", "three", 1),
        ("mlserver/runtime-mlflow-request.json", "three", 1),
        ("mlserver/runtime-catboost-request.json", "ten", 1),
    ],
)
def test_a_tabular_payload_of_another_project_is_served(gateway: RunningGateway, name: str, loop: str, rows: int):
    sent = payload(name)
    reply = gateway.infer(sent, model=loop)
    assert reply.status == 200, reply.body
    head = int(reply.headers.get("inference-header-content-length", len(reply.body)))
    outputs = json.loads(reply.body[:head])["outputs"]
    asked = [output["name"] for output in sent.get("outputs", [])]
    assert [output["name"] for output in outputs][: len(asked) or 1] == (asked or ["answer"])
    assert outputs[0]["shape"] == [rows]
    if "binary" in name:
        assert np.isfinite(np.frombuffer(reply.body[head : head + 8 * rows])).all()
    else:
        assert np.isfinite(outputs[0]["data"]).all()


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("mlserver/inference-request-invalid-datatype.json", "INT322"),
        ("mlserver/inference-request-with-output.json", "no output 'requested-output-0'"),
        ("mlserver/grpc-model-infer-request.json", "has no data"),
        ("kserve/iris_input_v2_grpc.json", "has no data"),
        ("kserve/bert_sequence_classification_v2.json", "input-0"),
    ],
)
def test_a_payload_that_is_no_table_is_refused_with_the_reason(gateway: RunningGateway, name: str, says: str):
    reply = gateway.infer(payload(name), model="three")
    assert reply.status == 400
    assert says in reply.json["error"]


# --- the wire in detail ------------------------------------------------------------------------------------------


def test_a_reply_names_prediction_version_and_arm_in_body_and_headers(gateway: RunningGateway):
    reply = gateway.infer(a_flight(tail_number="N1"))
    said = reply.json["parameters"]
    assert set(said) == {"prediction_id", "version", "arm", "propensity"}
    assert said["propensity"] == 0.5
    assert [reply.headers[f"leaven-{name}"] for name in ("prediction-id", "version", "arm")] == [
        said["prediction_id"], said["version"], said["arm"],
    ]  # fmt: skip
    assert reply.json["model_version"] == said["version"]


def test_a_path_with_a_version_bypasses_assignment(gateway: RunningGateway):
    for version in ("1", "2"):
        said = gateway.infer(a_flight(tail_number="N1"), version=version).json["parameters"]
        assert (said["version"], said["arm"], said["propensity"]) == (version, "pinned", 1.0)
    missing = gateway.infer(a_flight(), version="9")
    assert missing.status == 404
    assert "Loaded: 1, 2, nan" in missing.json["error"]


def test_rows_of_several_arms_say_so_per_row(gateway: RunningGateway):
    count = 40
    units = [f"N{row}" for row in range(count)]
    reply = gateway.infer(
        {"inputs": [
            {"name": "carrier", "shape": [count], "datatype": "BYTES", "data": ["AA"] * count},
            {"name": "tail_number", "shape": [count], "datatype": "BYTES", "data": units},
        ], "id": "batch"}
    ).json  # fmt: skip
    outputs = {output["name"]: output["data"] for output in reply["outputs"]}
    assert reply["model_version"] == "mixed"
    assert set(outputs["arm"]) == {"champion", "canary"}
    base = outputs["prediction_id"][0].removesuffix("-0")
    assert outputs["prediction_id"] == [f"{base}-{row}" for row in range(count)]
    assert base != reply["id"] == "batch"
    alone = [gateway.infer(a_flight(tail_number=unit)).json["parameters"]["arm"] for unit in units[:10]]
    assert alone == outputs["arm"][:10]


def test_a_large_request_is_answered_and_logged_row_by_row(gateway: RunningGateway, served: Served):
    count = 3000
    matrix = np.random.default_rng(0).normal(size=(count, 4))
    head = json.dumps(
        {"id": "large", "inputs": [{"name": "m", "shape": [count, 4], "datatype": "FP64",
                     "parameters": {"binary_data_size": matrix.nbytes}}], "outputs": [{"name": "answer"}]}
    ).encode()  # fmt: skip
    reply = gateway.ask(
        "POST", "/v2/models/iris/infer", head + matrix.tobytes(), Inference_Header_Content_Length=str(len(head))
    )
    assert len(reply.json["outputs"][0]["data"]) == count
    base = reply.json["parameters"]["prediction_id"]
    status = gateway.until(lambda s: s["log"]["queued"] == 0)
    assert status["predictions_dropped"] == 0
    logged = [
        e for e in served.installation.events() if isinstance(e, PredictionServed) and e.id.startswith(f"{base}-")
    ]
    assert [event.features["sl"] for event in logged] == matrix[:, 0].tolist()


def test_a_body_that_is_one_raw_value_is_one_row(gateway: RunningGateway):
    path = "/v2/models/{}/infer"
    header = {"Inference_Header_Content_Length": "0"}
    for model, body in (("one", struct.pack("<d", 2.5)), ("word", b"AA")):
        reply = gateway.ask("POST", path.format(model), body, **header)
        assert reply.status == 200, reply.body
        head = int(reply.headers["inference-header-content-length"])
        assert np.isfinite(np.frombuffer(reply.body[head:])).all()
    assert gateway.ask("POST", path.format("iris"), b"12345678", **header).status == 400


def test_everything_served_is_in_the_log_with_its_features(gateway: RunningGateway, served: Served):
    ids = [gateway.infer(a_flight(dep_delay=float(n))).json["parameters"]["prediction_id"] for n in range(20)]
    gateway.until(lambda s: s["log"]["queued"] == 0)
    logged = {e.id: e for e in served.installation.events() if isinstance(e, PredictionServed)}
    assert [logged[id].features["dep_delay"] for id in ids] == [float(n) for n in range(20)]


def test_feedback_is_in_the_log_once_it_is_acknowledged(gateway: RunningGateway, served: Served):
    reports = [{"loop": "flights", "name": "delay", "prediction_id": f"p{n}", "value": n} for n in range(5)]
    one = gateway.ask("POST", "/v1/feedback", json.dumps(reports[0]))
    many = gateway.ask("POST", "/v1/feedback", gzip.compress(json.dumps({"feedback": reports[1:]}).encode()),
                       Content_Encoding="gzip")  # fmt: skip
    assert (one.status, many.status) == (200, 200)
    assert (one.json["accepted"], many.json["accepted"]) == (1, 4)
    kept = {e.id: e.value for e in served.installation.events() if isinstance(e, FeedbackReceived)}
    assert [kept[id] for id in one.json["ids"] + many.json["ids"]] == [0.0, 1.0, 2.0, 3.0, 4.0]


def test_status_and_metrics_speak_of_the_same_counts(gateway: RunningGateway):
    gateway.infer(a_flight(), version="1")
    status, text = gateway.status(), gateway.ask("GET", "/metrics").body.decode()
    (rows,) = [
        p["rows"] for p in status["predictions"] if (p["loop"], p["arm"], p["version"]) == ("flights", "pinned", "1")
    ]
    assert f'loop="flights",arm="pinned",version="1"}} {rows}\n' in text


# --- hostile ------------------------------------------------------------------------------------------------------

GOOD = json.dumps(a_flight()).encode()
TOO_DEEP = (
    b'{"inputs": [{"name": "x", "shape": [1], "datatype": "FP64", "data": ' + b"[" * 50_000 + b"]" * 50_000 + b"}]}"
)


def binary(size: Any, raw: bytes = b"\0" * 8, *, datatype: str = "FP64", shape: Any = (1,), head_plus: int = 0):
    delay = {"name": "dep_delay", "shape": shape, "datatype": datatype, "parameters": {"binary_data_size": size}}
    head = json.dumps({"inputs": [delay, *a_flight(dep_delay=None)["inputs"]]}).encode()
    return head + raw, {"Inference_Header_Content_Length": str(len(head) + head_plus)}


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (b"", {}),
        (b"null", {}),
        (b"[]", {}),
        (b'"text"', {}),
        (b"{", {}),
        (b"\xff\xfe", {}),
        (b"{}", {}),
        (b'{"inputs": {}}', {}),
        (b'{"inputs": []}', {}),
        (b'{"inputs": [null]}', {}),
        (b'{"inputs": [{"name": "carrier"}]}', {}),
        (b'{"inputs": [{"name": 3, "shape": [1], "datatype": "BYTES", "data": ["AA"]}]}', {}),
        (b'{"inputs": [{"name": "carrier", "shape": "1", "datatype": "BYTES", "data": ["AA"]}]}', {}),
        (b'{"inputs": [{"name": "carrier", "shape": [1.5], "datatype": "BYTES", "data": ["AA"]}]}', {}),
        (b'{"inputs": [{"name": "carrier", "shape": [1e99], "datatype": "BYTES", "data": ["AA"]}]}', {}),
        (b'{"inputs": [{"name": "carrier", "shape": [-1], "datatype": "BYTES", "data": ["AA"]}]}', {}),
        (b'{"inputs": [{"name": "carrier", "shape": [9223372036854775807, 9], "datatype": "BOOL", "data": 1}]}', {}),
        (b'{"inputs": [{"name": "carrier", "shape": [1], "datatype": "BYTES", "data": ["\\ud800"]}]}', {}),
        (b'{"inputs": [{"name": "carrier", "shape": [1], "datatype": "BYTES", "data": null}]}', {}),
        (b'{"inputs": [{"name": "dep_delay", "shape": [1], "datatype": "FP64", "data": [' + b"9" * 9000 + b"]}]}", {}),
        (b'{"inputs": [{"name": "dep_delay", "shape": [1], "datatype": "FP64", "data": [1e999]}]}', {}),
        (b'{"inputs": [{"name": "dep_delay", "shape": [1], "datatype": "FP64", "data": [NaN]}]}', {}),
        (json.dumps({"inputs": a_flight()["inputs"] * 2}).encode(), {}),
        (json.dumps(a_flight() | {"outputs": [{"name": "answer"}, {"name": "answer"}]}).encode(), {}),
        (json.dumps(a_flight() | {"outputs": [{"name": "logits"}]}).encode(), {}),
        (json.dumps(a_flight() | {"id": 7}).encode(), {}),
        (json.dumps(a_flight() | {"id": "x" * 5000}).encode(), {}),
        (json.dumps(a_flight() | {"parameters": {"unit": ["N1"]}}).encode(), {}),
        (json.dumps(a_flight() | {"parameters": {"unit": "N" * 5000}}).encode(), {}),
        (TOO_DEEP, {}),
        (GOOD, {"Inference_Header_Content_Length": "-1"}),
        (GOOD, {"Inference_Header_Content_Length": "1_0"}),
        (GOOD, {"Inference_Header_Content_Length": "99999999999999999999999"}),
        (GOOD, {"Inference_Header_Content_Length": str(len(GOOD) + 1)}),
        (GOOD, {"Inference_Header_Content_Length": str(len(GOOD) - 1)}),
        (GOOD + b"more", {"Inference_Header_Content_Length": str(len(GOOD))}),
        binary(8, b"\0" * 7),
        binary(8, b"\0" * 9),
        binary(-8),
        binary("8"),
        binary(True),
        binary(2**63),
        binary(8, shape=[2]),
        binary(8, struct.pack("<d", float("inf"))),
        binary(4, b"\xff\xff\xff\xff", datatype="BYTES"),
        binary(5, b"\x01\0\0\0\xff", datatype="BYTES"),
        (GOOD, {"Content_Encoding": "br"}),
        (GOOD, {"Content_Encoding": "gzip"}),
        (gzip.compress(GOOD)[:-9], {"Content_Encoding": "gzip"}),
        (zlib.compress(GOOD)[:-3], {"Content_Encoding": "deflate"}),
    ],
)  # fmt: skip
def test_a_hostile_body_is_refused_with_a_sentence(gateway: RunningGateway, body: bytes, headers: dict[str, str]):
    reply = gateway.ask("POST", "/v2/models/flights/infer", body, **headers)
    assert reply.status == 400, reply.body
    assert set(reply.json) == {"error"}
    assert len(reply.json["error"]) > 20


def test_a_body_that_unpacks_to_too_much_is_refused(gateway: RunningGateway):
    packed = zlib.compress(b" " * (65 * 2**20))
    reply = gateway.ask("POST", "/v2/models/flights/infer", packed, Content_Encoding="deflate")
    assert (reply.status, set(reply.json)) == (413, {"error"})


@pytest.mark.parametrize(("path", "limit"), [("/v2/models/flights/infer", 64), ("/v1/feedback", 8)])
def test_a_body_that_says_it_is_too_large_is_not_read(gateway: RunningGateway, path: str, limit: int):
    host, port = gateway.address.split(":")
    with socket.create_connection((host, int(port)), timeout=60) as caller:
        caller.sendall(f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {limit * 2**20 + 1}\r\n\r\n".encode())
        assert b" 413 " in caller.recv(65536)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 404),
        ("GET", "/v2/models/flights/stats", 200),
        ("GET", "/v2/models/", 404),
        ("GET", "/v2/models/trains", 404),
        ("GET", "/v2/models/flights/versions/9", 404),
        ("POST", "/v2/models/fl/ights/infer", 404),
        ("GET", "/v2/models/flights/infer", 405),
        ("POST", "/v2/health/live", 405),
        ("DELETE", "/v1/feedback", 405),
        ("GET", "/v2", 200),
        ("GET", "/v2/", 200),
        ("GET", "/v2/models/flights/versions/1", 200),
        ("GET", "/v2/models/flights/versions/1/ready", 200),
    ],
)
def test_paths_and_methods(gateway: RunningGateway, method: str, path: str, status: int):
    reply = gateway.ask(method, path)
    assert reply.status == status
    assert status == 200 or set(reply.json) == {"error"}


def test_an_id_that_no_header_can_carry_comes_back_in_the_body(gateway: RunningGateway):
    reply = gateway.infer(a_flight() | {"id": "żółw\n"})
    assert reply.status == 200
    assert reply.json["id"] == "żółw\n"
    assert reply.headers["leaven-prediction-id"] == reply.json["parameters"]["prediction_id"]


def test_one_bad_report_keeps_none_of_the_batch(gateway: RunningGateway, served: Served):
    reports = [{"loop": "flights", "name": "delay", "unit": "bad-batch"}, {"loop": "flights"}]
    reply = gateway.ask("POST", "/v1/feedback", json.dumps({"feedback": reports}))
    assert reply.status == 400
    assert "feedback[1]" in reply.json["error"]
    kept = [e for e in served.installation.events() if isinstance(e, FeedbackReceived)]
    assert not any(event.unit == "bad-batch" for event in kept)


def test_no_request_of_this_file_ended_in_an_error_of_ours(gateway: RunningGateway):
    assert "500" not in gateway.status()["requests"]


def test_flights_is_the_schema_that_requests_here_are_for():
    assert FLIGHTS.names == ("carrier", "dep_hour", "dep_delay", "weekend")
