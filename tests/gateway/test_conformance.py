"""The wire tables of the Open Inference Protocol v2 over REST, row by row, against a real gateway."""

from __future__ import annotations

import gzip
import json
import time
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pytest
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

from leaven.events.records import PredictionServed
from leaven.learners.artifact import ModelArtifact
from leaven.loop import FeatureRule, Schema
from tests.gateway.installations import (
    Installation,
    Reply,
    RunningGateway,
    a_flight,
    gateway_on,
    good_artifact,
    installation_in,
)

TYPES = Schema(
    (("c", "category", False), ("i", "int", False), ("f", "float", False), ("b", "bool", False)), "who", "regression"
)
RULED = Schema(
    (("colour", "category", False), ("size", "int", False), ("weight", "float", True)), "who", "regression",
    {"colour": FeatureRule(default="none", values=("red", "blue", "none"), invalid="default"),
     "size": FeatureRule(default=3, values=(), invalid="refuse")},
)  # fmt: skip


class Served:
    def __init__(self, gateway: RunningGateway, installation: Installation) -> None:
        self.gateway, self.installation = gateway, installation

    def logged(self, prediction_id: str) -> PredictionServed:
        """The record of a prediction, once it is on the disk."""
        end = time.monotonic() + 60
        while True:
            for event in self.installation.events():
                if isinstance(event, PredictionServed) and event.id == prediction_id:
                    return event
            assert time.monotonic() < end, "it is not in the log"
            time.sleep(0.02)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, artifacts_made: Mapping[str, ModelArtifact]) -> Iterator[Served]:
    artifacts = dict(artifacts_made) | {"types-1": good_artifact(TYPES), "ruled-1": good_artifact(RULED)}
    with installation_in(tmp_path_factory.mktemp("conformance"), artifacts) as installation:
        installation.publish(champion="1", canary="2", share=0.5)
        installation.publish(loop="types", champion="types-1", schema=TYPES)
        installation.publish(loop="ruled", champion="ruled-1", schema=RULED)
        with gateway_on(installation.settings) as gateway:
            gateway.until(lambda status: len(status["tables"]) == 3)
            yield Served(gateway, installation)


@pytest.fixture
def gateway(served: Served) -> RunningGateway:
    return served.gateway


@pytest.fixture
def client(gateway: RunningGateway) -> Iterator[Any]:
    with triton.InferenceServerClient(gateway.address, network_timeout=60) as made:
        yield made


def tensor(name: str, datatype: str, data: Any, **parameters: Any) -> dict[str, Any]:
    made = {"name": name, "shape": [len(data)], "datatype": datatype, "data": data}
    return made | ({"parameters": parameters} if parameters else {})


def prediction_of(reply: Reply) -> str:
    assert reply.status == 200, reply.body
    said: str = reply.json["parameters"]["prediction_id"]
    return said


# --- calls and their success bodies ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v2/health/live", {"live": True}),
        ("/v2/health/ready", {"ready": True}),
        ("/v2/models/flights/ready", {"name": "flights", "ready": True}),
        ("/v2/models/flights/versions/2/ready", {"name": "flights", "ready": True}),
    ],
)
def test_health(gateway: RunningGateway, path: str, body: Any):
    reply = gateway.ask("GET", path)
    assert (reply.status, reply.json) == (200, body)


@pytest.mark.parametrize("path", ["/v2", "/v2/", "/v2/models/flights", "/v2/models/flights/versions/1"])
def test_head_says_what_get_says_without_the_body(gateway: RunningGateway, path: str):
    get, head = gateway.ask("GET", path), gateway.ask("HEAD", path)
    assert (head.status, head.body) == (200, b"")
    assert head.headers["content-length"] == get.headers["content-length"] == str(len(get.body))


def test_server_metadata_has_its_three_members(gateway: RunningGateway):
    said = gateway.ask("GET", "/v2").json
    assert set(said) == {"name", "version", "extensions"}
    assert {"binary_tensor_data", "model_repository", "statistics"} <= set(said["extensions"])


def test_model_metadata_names_inputs_and_outputs_with_datatype_and_shape(gateway: RunningGateway):
    said = gateway.ask("GET", "/v2/models/types").json
    assert (said["name"], said["platform"], said["versions"]) == ("types", "leaven", ["types-1"])
    assert said["inputs"] == [
        {"name": name, "datatype": datatype, "shape": [-1]}
        for name, datatype in (("c", "BYTES"), ("i", "INT64"), ("f", "FP64"), ("b", "BOOL"))
    ]
    assert {output["name"] for output in said["outputs"]} == {"answer", "prediction_id", "version", "arm"}


def test_an_inference_response_has_the_members_of_the_table(gateway: RunningGateway):
    reply = gateway.infer(a_flight() | {"id": "7", "outputs": [{"name": "answer"}, {"name": "arm"}]}).json
    assert set(reply) == {"model_name", "model_version", "id", "parameters", "outputs"}
    assert [set(output) for output in reply["outputs"]] == [{"name", "shape", "datatype", "data"}] * 2
    assert "id" not in gateway.infer(a_flight()).json  # echoed only if it was given


@pytest.mark.parametrize("id", ["1", "żółw", "日本\n", "👩‍👩‍👧", " ", "\u0000", "a" * 1024, "é\u0301"])
def test_an_id_of_any_text_comes_back_as_it_was(gateway: RunningGateway, id: str):
    reply = gateway.infer(a_flight() | {"id": id})
    assert (reply.status, reply.json["id"]) == (200, id)


@pytest.mark.parametrize("headers", [{}, {"Content_Type": "text/plain"}, {"Content_Type": "application/json"}])
def test_the_content_type_does_not_matter(gateway: RunningGateway, headers: dict[str, str]):
    assert gateway.infer(a_flight(), **headers).status == 200


def test_members_that_are_not_in_the_table_are_left_alone(gateway: RunningGateway):
    sent = a_flight() | {"extra": {"a": [1]}, "model_name": "x", "raw_request": None}
    sent["inputs"][0] |= {"axes": ["n"], "parameters": {"content_type": "str", "nested": {"a": [None]}}}
    assert gateway.infer(sent).status == 200


def test_mlservers_conventions_are_tolerated(gateway: RunningGateway):
    """`content_type: pd`, and parameters whose `headers` is an object, as mlserver.types sends them."""
    sent = a_flight() | {
        "id": None,
        "outputs": None,
        "parameters": {"content_type": "pd", "headers": {"Ce-Id": "1"}, "unit": "N1"},
    }
    reply = gateway.infer(sent)
    assert reply.status == 200
    for output in reply.json["outputs"]:  # what mlserver.types.InferenceResponse requires of an output
        assert isinstance(output["shape"], list)
        assert isinstance(output["data"], list)


@pytest.mark.parametrize("data", [[["AA"]], ["AA"], "AA"])
def test_data_may_be_nested_flat_or_a_single_value(gateway: RunningGateway, data: Any):
    sent = {"inputs": [{"name": "carrier", "shape": [1], "datatype": "BYTES", "data": data}]}
    assert gateway.infer(sent).status == 200


def test_a_batch_has_the_shape_of_the_whole_batch(gateway: RunningGateway):
    reply = gateway.infer({"inputs": [tensor("f", "FP64", [1.0, 2.0, 3.0])]}, model="types").json
    assert [output["shape"] for output in reply["outputs"]] == [[3]] * 4
    assert [len(output["data"]) for output in reply["outputs"]] == [3] * 4


# --- datatypes -----------------------------------------------------------------------------------------------------

EXACT = {
    "INT8": [-128, 127], "INT16": [-(2**15), 2**15 - 1], "INT32": [-(2**31), 2**31 - 1],
    "INT64": [-(2**63), 2**63 - 1, 2**53 + 1, -(2**53) - 1],
    "UINT8": [0, 255], "UINT16": [0, 2**16 - 1], "UINT32": [0, 2**32 - 1], "UINT64": [0, 2**53 + 1, 2**63 - 1],
}  # fmt: skip


def binary_body(name: str, datatype: str, raw: bytes, count: int, **more: Any) -> tuple[bytes, dict[str, str]]:
    given = {"name": name, "shape": [count], "datatype": datatype, "parameters": {"binary_data_size": len(raw)}}
    head = json.dumps({"inputs": [given]} | more).encode()
    return head + raw, {"Inference_Header_Content_Length": str(len(head))}


@pytest.mark.parametrize("binary", [False, True])
@pytest.mark.parametrize("datatype", EXACT)
def test_integers_are_logged_exactly(served: Served, datatype: str, binary: bool):
    for number in EXACT[datatype]:
        if binary:
            raw = np.array([number], dtype=datatype.lower()).tobytes()
            body, headers = binary_body("i", datatype, raw, 1)
            reply = served.gateway.ask("POST", "/v2/models/types/infer", body, **headers)
        else:
            reply = served.gateway.infer({"inputs": [tensor("i", datatype, [number])]}, model="types")
        assert served.logged(prediction_of(reply)).features["i"] == number


@pytest.mark.parametrize("binary", [False, True])
def test_an_unsigned_integer_beyond_64_signed_bits_is_a_category_or_a_unit_exactly(served: Served, binary: bool):
    number = 2**64 - 1
    sent = [tensor("c", "UINT64", [number]), tensor("who", "UINT64", [number - 1])]
    if binary:
        raw = b"".join(np.array(each.pop("data"), dtype="uint64").tobytes() for each in sent)
        for each in sent:
            each["parameters"] = {"binary_data_size": 8}
        head = json.dumps({"inputs": sent}).encode()
        path = "/v2/models/types/infer"
        reply = served.gateway.ask("POST", path, head + raw, Inference_Header_Content_Length=str(len(head)))
    else:
        reply = served.gateway.infer({"inputs": sent}, model="types")
    record = served.logged(prediction_of(reply))
    assert (record.features["c"], record.unit) == (str(number), str(number - 1))


def test_an_unsigned_integer_that_no_int_feature_can_hold_is_refused_by_name(gateway: RunningGateway):
    reply = gateway.infer({"inputs": [tensor("i", "UINT64", [2**63])]}, model="types")
    assert (reply.status, "'i'" in reply.json["error"]) == (400, True)


@pytest.mark.parametrize("datatype", [*EXACT])
def test_an_integer_that_its_datatype_cannot_hold_is_refused(gateway: RunningGateway, datatype: str):
    for number in (EXACT[datatype][0] - 1, 2**64):
        reply = gateway.infer({"inputs": [tensor("i", datatype, [number])]}, model="types")
        assert (reply.status, set(reply.json)) == (400, {"error"})


@pytest.mark.parametrize(
    ("datatype", "raw", "value"),
    [
        ("FP16", np.array([1.5], dtype="<f2").tobytes(), 1.5),
        ("BF16", (np.array([-2.5], dtype="<f4").view("<u4") >> 16).astype("<u2").tobytes(), -2.5),
        ("FP32", np.array([0.1], dtype="<f4").tobytes(), float(np.float32(0.1))),
        ("FP64", np.array([0.1], dtype="<f8").tobytes(), 0.1),
        ("FP64", np.array([np.nan], dtype="<f8").tobytes(), None),
    ],
)
def test_floats_of_every_width_come_in_as_raw_bytes(served: Served, datatype: str, raw: bytes, value: float | None):
    body, headers = binary_body("f", datatype, raw, 1)
    reply = served.gateway.ask("POST", "/v2/models/types/infer", body, **headers)
    assert served.logged(prediction_of(reply)).features["f"] == value


@pytest.mark.parametrize("datatype", ["FP16", "BF16"])
def test_half_floats_have_no_json_form(gateway: RunningGateway, datatype: str):
    reply = gateway.infer({"inputs": [tensor("f", datatype, [1.0])]}, model="types")
    assert (reply.status, datatype in reply.json["error"]) == (400, True)


@pytest.mark.parametrize("binary", [False, True])
def test_bools_and_texts_arrive_as_they_are(served: Served, binary: bool):
    if binary:
        text = "żółw 🐢".encode()
        raw = b"\x01" + len(text).to_bytes(4, "little") + text
        sent = [
            {"name": "b", "shape": [1], "datatype": "BOOL", "parameters": {"binary_data_size": 1}},
            {"name": "c", "shape": [1], "datatype": "BYTES", "parameters": {"binary_data_size": len(raw) - 1}},
        ]
        head = json.dumps({"inputs": sent}).encode()
        path = "/v2/models/types/infer"
        reply = served.gateway.ask("POST", path, head + raw, Inference_Header_Content_Length=str(len(head)))
    else:
        sent = [tensor("b", "BOOL", [True]), tensor("c", "BYTES", ["żółw 🐢"])]
        reply = served.gateway.infer({"inputs": sent}, model="types")
    features = served.logged(prediction_of(reply)).features
    assert (features["b"], features["c"]) == (True, "żółw 🐢")


# --- the binary extension, out ----------------------------------------------------------------------------------


def outputs_of(reply: Reply) -> tuple[dict[str, dict[str, Any]], bytes]:
    head = int(reply.headers.get("inference-header-content-length", len(reply.body)))
    return {output["name"]: output for output in json.loads(reply.body[:head])["outputs"]}, reply.body[head:]


@pytest.mark.parametrize(
    ("whole", "answer", "arm", "as_bytes"),
    [
        (None, None, None, set()),
        (True, None, None, {"answer", "arm"}),
        (True, False, None, {"arm"}),
        (False, True, None, {"answer"}),
        (None, True, True, {"answer", "arm"}),
        (None, False, True, {"arm"}),
    ],
)
def test_binary_outputs_are_asked_for_as_a_whole_or_one_by_one(gateway, whole, answer, arm, as_bytes):
    asked = [
        {"name": name} | ({} if said is None else {"parameters": {"binary_data": said}})
        for name, said in (("answer", answer), ("arm", arm))
    ]
    parameters = {} if whole is None else {"binary_data_output": whole}
    outputs, rest = outputs_of(gateway.infer(a_flight() | {"outputs": asked, "parameters": parameters}))
    assert {name for name, output in outputs.items() if "data" not in output} == as_bytes
    sizes = [output["parameters"]["binary_data_size"] for output in outputs.values() if "data" not in output]
    assert sum(sizes) == len(rest)
    if "answer" in as_bytes:
        assert np.isfinite(np.frombuffer(rest[:8])).all()
    if "arm" in as_bytes:
        text = rest[8 if "answer" in as_bytes else 0 :]
        assert text[4:] in (b"champion", b"canary")
        assert int.from_bytes(text[:4], "little") == len(text) - 4


# --- encodings ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("packed", [gzip.compress, zlib.compress, lambda body: zlib.compress(body)[2:-4]])
def test_packed_bodies_are_unpacked(gateway: RunningGateway, packed: Any):
    body = packed(json.dumps(a_flight()).encode())
    encoding = "gzip" if body[:2] == b"\x1f\x8b" else "deflate"
    reply = gateway.ask("POST", "/v2/models/flights/infer", body, Content_Encoding=encoding)
    assert reply.status == 200, reply.body


@pytest.mark.parametrize(
    ("accepted", "rows", "coding"),
    [
        ("gzip", 1, "gzip"),  # asked for alone, as the stock client does when it is told to
        ("deflate", 1, "deflate"),
        ("gzip, deflate, br", 1, None),  # what HTTP libraries send with everything: only where it pays
        ("gzip, deflate, br", 300, "gzip"),
        ("deflate;q=1, gzip;q=0.5", 300, "deflate"),
        ("gzip;q=0", 300, None),
        ("br", 300, None),
        ("*", 300, "gzip"),
        ("identity", 300, None),
        (";;q=,,gzip;q=x", 300, None),
    ],
)
def test_replies_are_packed_where_asked_for(gateway: RunningGateway, accepted: str, rows: int, coding: str | None):
    sent = {"inputs": [tensor("f", "FP64", [float(row) for row in range(rows)])]}
    reply = gateway.infer(sent, model="types", Accept_Encoding=accepted)
    assert (reply.status, reply.headers.get("content-encoding")) == (200, coding)
    window = {"gzip": 31, "deflate": 15}.get(coding or "")
    plain = zlib.decompress(reply.body, window) if window else reply.body
    assert len(json.loads(plain)["outputs"][0]["data"]) == rows


# --- paths, versions, errors --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path", "status", "says"),
    [
        ("GET", "/v2/models/team/flights", 404, "'team/flights'"),
        ("POST", "/v2/models/team/flights/infer", 404, "'team/flights'"),
        ("POST", "/v2/models/team/flights/versions/1/infer", 404, "'team/flights'"),
        ("POST", "/v2/models/team%2Fflights/infer", 404, "'team/flights'"),
        ("POST", "/v2/models/flights/versions/9/infer", 404, "version '9'"),
        ("GET", "/v2/models/flights/versions/9/ready", 404, "version '9'"),
        ("GET", "/v2/models/flights/versions/9/stats", 404, "version '9'"),
        ("GET", "/v2/models/nope/stats", 404, "'nope'"),
        ("GET", "/v2/models/flights/config", 501, "configurations"),
        ("POST", "/v2/models/flights/generate", 405, "GET"),
        ("GET", "/v2/systemsharedmemory/status", 501, "shared memory"),
        ("POST", "/v2/repository/models/nope/unload", 404, "'nope'"),
        ("POST", "/v2/repository/models/nope/load", 404, "'nope'"),
        ("GET", "/v2/repository/index", 405, "POST"),
        ("POST", "/v2/repository/nothing", 404, "nothing at"),
        ("DELETE", "/v2/models/flights", 405, "GET"),
        ("POST", "/v2/models//infer", 404, "nothing at"),
    ],
)
def test_every_error_is_a_sentence_under_error(gateway: RunningGateway, method: str, path: str, status: int, says: str):
    reply = gateway.ask(method, path, json.dumps(a_flight()) if method == "POST" else None)
    assert (reply.status, set(reply.json)) == (status, {"error"}), reply.body
    assert says in reply.json["error"]
    assert reply.headers["content-type"] == "application/json"
    assert status != 405 or reply.headers["allow"] in ("GET", "POST")


def test_a_version_in_the_path_is_the_one_that_answers(gateway: RunningGateway):
    for version in ("1", "2"):
        assert gateway.infer(a_flight(), version=version).json["model_version"] == version


# --- the stock client, method by method ---------------------------------------------------------------------------


def flight_inputs(rows: int = 1) -> list[Any]:
    given = triton.InferInput("carrier", [rows], "BYTES")
    return [given.set_data_from_numpy(np.array([b"AA"] * rows, dtype=object))]


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
@pytest.mark.parametrize("binary", [True, False])
def test_the_stock_client_reads_packed_replies(client: Any, coding: str, binary: bool):
    outputs = [triton.InferRequestedOutput(name, binary_data=binary) for name in ("answer", "arm")]
    result = client.infer("flights", flight_inputs(50), outputs=outputs, response_compression_algorithm=coding,
                          request_compression_algorithm=coding)  # fmt: skip
    assert np.isfinite(result.as_numpy("answer")).all()
    assert result.as_numpy("arm").shape == (50,)


def test_the_stock_client_infers_without_waiting(client: Any):
    asked = [client.async_infer("flights", flight_inputs()) for _ in range(3)]
    assert all(np.isfinite(each.get_result().as_numpy("answer")).all() for each in asked)


def test_the_stock_client_lists_unloads_and_loads(client: Any, gateway: RunningGateway):
    assert {"name": "types", "version": "types-1", "state": "READY", "reason": ""} in (
        client.get_model_repository_index()
    )
    client.unload_model("types")
    (listed,) = [row for row in client.get_model_repository_index() if row["name"] == "types"]
    assert (listed["state"], "unloaded on request" in listed["reason"]) == ("UNAVAILABLE", True)
    assert not client.is_model_ready("types")
    refused = gateway.infer({"inputs": [tensor("f", "FP64", [1.0])]}, model="types")
    assert (refused.status, "/v2/repository/models/types/load" in refused.json["error"]) == (503, True)
    report = {"loop": "types", "name": "y", "unit": "u", "value": 1.0}
    assert gateway.ask("POST", "/v1/feedback", json.dumps(report)).status == 200  # what was served is still judged
    client.load_model("types")
    assert client.is_model_ready("types")
    assert gateway.infer({"inputs": [tensor("f", "FP64", [1.0])]}, model="types").status == 200


def test_the_index_may_be_asked_for_what_is_ready_alone(gateway: RunningGateway):
    assert gateway.ask("POST", "/v2/repository/models/ruled/unload").status == 200
    try:
        every, ready = (
            {row["name"] for row in gateway.ask("POST", "/v2/repository/index", body).json}
            for body in (None, '{"ready": true}')
        )
        assert every - ready == {"ruled"}
    finally:
        assert gateway.ask("POST", "/v2/repository/models/ruled/load", "{}").status == 200


def test_models_are_not_loaded_from_a_request(client: Any):
    with pytest.raises(InferenceServerException, match="models are not taken from a request"):
        client.load_model("flights", config="{}")


def test_the_stock_client_reads_statistics_of_what_was_done(client: Any, gateway: RunningGateway):
    def stats() -> dict[str, Any]:
        (of_version,) = client.get_inference_statistics("ruled", "ruled-1")["model_stats"]
        return of_version

    before = stats()
    weights = [1.0, 2.0, 3.0]
    assert gateway.infer({"inputs": [tensor("weight", "FP64", weights)]}, model="ruled").status == 200
    after = stats()
    assert after["inference_count"] - before["inference_count"] == 3
    assert after["execution_count"] - before["execution_count"] == 1
    for name in ("success", "queue", "compute_infer"):
        assert after["inference_stats"][name]["count"] - before["inference_stats"][name]["count"] == 1
        assert after["inference_stats"][name]["ns"] > before["inference_stats"][name]["ns"]
    (batch,) = [each for each in after["batch_stats"] if each["batch_size"] == 3]
    assert batch["compute_infer"]["count"] >= 1
    assert after["last_inference"] > 1.6e12
    everything = client.get_inference_statistics()["model_stats"]
    assert {(each["name"], each["version"]) for each in everything} >= {("flights", "1"), ("ruled", "ruled-1")}


@pytest.mark.parametrize("method", ["get_model_config", "get_trace_settings", "get_system_shared_memory_status",
                                    "get_cuda_shared_memory_status", "get_log_settings"])  # fmt: skip
def test_what_is_not_offered_is_refused_as_such(client: Any, method: str):
    arguments = ["flights"] if method == "get_model_config" else []
    with pytest.raises(InferenceServerException, match="not offered here") as refused:
        getattr(client, method)(*arguments)
    assert refused.value.status() == "501"


# --- rows as objects, and what becomes of values that do not fit -----------------------------------------------------


def predict(gateway: RunningGateway, rows: Any, *, model: str = "ruled", **more: Any) -> Reply:
    headers = more.pop("headers", {})
    return gateway.ask("POST", f"/v1/models/{model}/predict", json.dumps({"rows": rows} | more), **headers)


def test_rows_are_answered_one_by_one_with_what_feedback_needs(served: Served):
    reply = predict(served.gateway, [{"weight": 1.5, "colour": "red", "who": "u1"}, {"weight": 2, "size": 7}])
    assert (reply.status, reply.json["model"]) == (200, "ruled")
    said = reply.json["predictions"]
    assert [set(each) for each in said] == [{"prediction_id", "answer", "version", "arm", "propensity"}] * 2
    first, second = (served.logged(each["prediction_id"]) for each in said)
    assert (first.features, first.unit) == ({"colour": "red", "size": 3, "weight": 1.5}, "u1")
    assert second.features == {"colour": "none", "size": 7, "weight": 2.0}


def test_an_unfitting_value_is_replaced_where_the_loop_file_says_so(served: Served):
    said = predict(served.gateway, [{"weight": 1.0, "colour": "pink"}]).json["predictions"]
    assert served.logged(said[0]["prediction_id"]).features["colour"] == "none"


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"colour": "red"}, "'weight' is required"),
        ({"weight": None}, "'weight' is required"),
        ({"weight": "heavy"}, "'weight' takes a float, not 'heavy'"),
        ({"weight": 1.0, "size": "L"}, "'size' takes an int, not 'L'"),
        ({"weight": 1.0, "size": 2.5}, "'size' takes an int, not 2.5"),
        ({"weight": 1.0, "size": 2**63}, "'size' takes an int"),
        ({"weight": [1.0]}, "'weight'"),
        ({"height": 1.0}, "none of 'height' is a feature"),
        ({}, "is a feature"),
    ],
)
def test_a_value_that_does_not_fit_is_refused_by_the_name_of_its_feature(gateway, row: Any, says: str):
    for reply in (predict(gateway, [row]), predict(gateway, [{"weight": 1.0}, row]) if "weight" in row else None):
        assert reply is None or (reply.status == 400 and says in reply.json["error"]), reply.body


def test_null_says_that_a_value_is_not_known(served: Served):
    row = {"c": None, "i": None, "f": None, "b": None}
    (said,) = predict(served.gateway, [row], model="types").json["predictions"]
    assert served.logged(said["prediction_id"]).features == row


def test_names_that_mean_nothing_are_told(gateway: RunningGateway):
    assert predict(gateway, [{"weight": 1.0, "wieght": 2.0}]).json["ignored"] == ["wieght"]


def test_the_same_rules_hold_for_tensors(served: Served):
    sent = {"inputs": [tensor("weight", "FP64", [1.0]), tensor("colour", "BYTES", ["pink"])]}
    record = served.logged(prediction_of(served.gateway.infer(sent, model="ruled")))
    assert (record.features["colour"], record.features["size"]) == ("none", 3)
    refused = served.gateway.infer({"inputs": [tensor("size", "INT64", [1])]}, model="ruled")
    assert (refused.status, "'weight' is required" in refused.json["error"]) == (400, True)


@pytest.mark.parametrize(
    ("more", "says"),
    [({"units": ["a", "b"]}, "do not fit 1 rows"), ({"unit": "x" * 2000}, "2000 characters"), ({"version": "9"}, "9")],
)
def test_what_stands_beside_the_rows_is_checked_too(gateway: RunningGateway, more: Any, says: str):
    reply = predict(gateway, [{"weight": 1.0}], **more)
    assert reply.status == (404 if "version" in more else 400)
    assert says in reply.json["error"]


def test_a_request_sent_again_under_its_key_is_one_prediction(gateway: RunningGateway):
    first, again = (predict(gateway, [{"weight": 1.0}], headers={"Idempotency_Key": "order-7"}) for _ in range(2))
    assert first.json["predictions"][0]["prediction_id"] == again.json["predictions"][0]["prediction_id"]
    by_tensor = [gateway.infer(a_flight(), Idempotency_Key="k") for _ in range(2)]
    assert len({prediction_of(reply) for reply in by_tensor}) == 1


def test_assignment_can_be_asked_for_alone(gateway: RunningGateway):
    said = gateway.ask("POST", "/v1/assign", '{"loop": "flights", "unit": "N1"}').json
    served = gateway.infer(a_flight(tail_number="N1")).json["parameters"]
    assert (said["arm"], said["version"], said["propensity"]) == (served["arm"], served["version"], 0.5)


def test_no_request_of_this_file_ended_in_an_error_of_ours(gateway: RunningGateway):
    assert "500" not in gateway.status()["requests"]
