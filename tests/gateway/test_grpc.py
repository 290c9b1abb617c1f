"""The protocol over gRPC: stock clients and plain messages, against real workers that share a port."""

from __future__ import annotations

import base64
import json
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
import trustme
from google.protobuf.json_format import ParseDict
from tritonclient.grpc import service_pb2 as theirs
from tritonclient.utils import InferenceServerException

from leaven.events.records import PredictionServed
from leaven.gateway.grpc.messages import SERVICE, message, methods
from leaven.learners.artifact import ModelArtifact
from leaven.loop import Schema
from tests.gateway.installations import (
    IRIS,
    Installation,
    RunningGateway,
    a_flight,
    gateway_on,
    good_artifact,
    installation_in,
)
from tests.gateway.test_access import given

PAYLOADS = Path(__file__).parent / "oip"
TYPES = Schema(
    (("c", "category", False), ("i", "int", False), ("f", "float", False), ("b", "bool", False)), "who", "regression"
)


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
    artifacts = dict(artifacts_made) | {"types-1": good_artifact(TYPES)}
    with installation_in(tmp_path_factory.mktemp("grpc"), artifacts) as installation:
        installation.publish(champion="1", standby=["2"])
        installation.publish(loop="types", champion="types-1", schema=TYPES)
        installation.publish(loop="iris", champion="iris", schema=IRIS)
        with gateway_on(installation.settings, workers=2, grpc=True) as gateway:
            for _ in range(10):  # whichever worker is asked
                gateway.until(lambda status: len(status["tables"]) == 3)
            with triton.InferenceServerClient(gateway.grpc) as client:
                until(lambda: ready(client))
            yield Served(gateway, installation)


def ready(client: Any) -> bool:
    try:
        return bool(client.is_server_ready() and client.is_model_ready("iris"))
    except InferenceServerException:
        return False


def until(holds: Any, *, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.fixture
def client(served: Served) -> Iterator[Any]:
    with triton.InferenceServerClient(served.gateway.grpc) as made:
        yield made


@pytest.fixture
def call(served: Served) -> Iterator[Any]:
    """Calls a method with a message of our own, or with bytes."""
    with grpc.insecure_channel(served.gateway.grpc) as channel:

        def made(name: str, sent: Any, **more: Any) -> Any:
            _, said = methods()[name]
            body = sent if isinstance(sent, bytes) else sent.SerializeToString()
            return channel.unary_unary(f"/{SERVICE}/{name}", response_deserializer=said.FromString)(
                body, timeout=60, **more
            )

        yield made


def an_input(name: str, datatype: str, values: Any) -> Any:
    given = triton.InferInput(name, [len(values)], datatype)
    return given.set_data_from_numpy(np.array(values, dtype=object if datatype == "BYTES" else None))


def refused(act: Any, code: grpc.StatusCode) -> str:
    with pytest.raises(grpc.RpcError) as said:
        act()
    assert said.value.code() == code, said.value.details()
    text: str = said.value.details()
    return text


# --- the messages ---


def fields(descriptor: Any) -> set[tuple[Any, ...]]:
    return {(field.name, field.number, field.type, field.is_repeated) for field in descriptor.fields}


def test_our_messages_are_those_of_the_stock_client():
    """Names, numbers and types; theirs may have fields that we leave out, and unknown fields are skipped."""

    def check(ours: Any, other: Any) -> None:
        assert fields(ours) <= fields(other), ours.full_name
        for nested in ours.nested_types:
            check(nested, other.nested_types_by_name[nested.name])

    service = theirs.DESCRIPTOR.services_by_name["GRPCInferenceService"]
    for name, (asked, said) in methods().items():
        for ours, other in ((asked, service.methods_by_name[name].input_type),
                            (said, service.methods_by_name[name].output_type)):  # fmt: skip
            assert ours.DESCRIPTOR.full_name == other.full_name
            check(ours.DESCRIPTOR, other)
    for name in ("InferParameter", "InferTensorContents", "ModelStatistics", "InferStatistics", "StatisticDuration"):
        check(message(name).DESCRIPTOR, theirs.DESCRIPTOR.message_types_by_name[name])


def test_the_descriptors_are_made_of_the_source():
    """Every message and field that the .proto names is in the compiled set, with its number."""
    source = (Path(sys.modules[message.__module__].__file__ or "").parent / "open_inference.proto").read_text()
    written = {line.split()[-3] for line in source.splitlines() if line.strip().endswith(";") and " = " in line
               and "syntax" not in line}  # fmt: skip
    compiled: set[str] = set()

    def collect(descriptor: Any) -> None:
        compiled.update(field.name for field in descriptor.fields if not descriptor.GetOptions().map_entry)
        for nested in descriptor.nested_types:
            collect(nested)

    for asked, said in methods().values():
        for kind in (asked, said):
            collect(kind.DESCRIPTOR)
    for name in ("InferParameter", "InferTensorContents", "ModelStatistics", "InferStatistics", "StatisticDuration",
                 "InferBatchStatistics", "ModelRepositoryParameter"):  # fmt: skip
        collect(message(name).DESCRIPTOR)
    assert written == compiled


# --- the stock client ---


def test_the_stock_client_predicts_what_http_predicts(client: Any, served: Served):
    inputs = [an_input("carrier", "BYTES", [b"AA"]), an_input("dep_hour", "INT64", [8]),
              an_input("dep_delay", "FP64", [3.5]), an_input("weekend", "BOOL", [False])]  # fmt: skip
    result = client.infer("flights", inputs, request_id="żółw", parameters={"unit": "N1"})
    by_http = served.gateway.infer(a_flight()).json["outputs"][0]["data"]
    assert result.as_numpy("answer").tolist() == by_http
    response = result.get_response()
    assert (response.model_name, response.model_version, response.id) == ("flights", "1", "żółw")
    said = {name: getattr(value, value.WhichOneof("parameter_choice")) for name, value in response.parameters.items()}
    assert (said["version"], said["arm"], said["propensity"]) == ("1", "champion", 1.0)
    record = served.logged(said["prediction_id"])
    assert (record.unit, record.features["carrier"], record.features["dep_delay"]) == ("N1", "AA", 3.5)


def test_the_stock_client_reads_health_and_metadata(client: Any):
    assert client.is_server_live()
    assert client.is_model_ready("flights")
    assert client.is_model_ready("flights", "2")
    assert not client.is_model_ready("flights", "9")
    assert not client.is_model_ready("nope")
    about = client.get_server_metadata(as_json=True)
    assert (about["name"], about["extensions"]) == ("leaven", ["model_repository", "statistics"])
    model = client.get_model_metadata("types", as_json=True)
    assert (model["name"], model["platform"], model["versions"]) == ("types", "leaven", ["types-1"])
    assert model["inputs"][0] == {"name": "c", "datatype": "BYTES", "shape": ["-1"]}


def test_a_version_that_is_named_answers(client: Any):
    result = client.infer("flights", [an_input("carrier", "BYTES", [b"AA"])], model_version="2")
    assert result.get_response().model_version == "2"


def test_outputs_that_are_named_are_those_that_come(client: Any):
    outputs = [triton.InferRequestedOutput("arm"), triton.InferRequestedOutput("output-0")]
    result = client.infer("flights", [an_input("carrier", "BYTES", [b"AA", b"DL"])], outputs=outputs)
    assert [output.name for output in result.get_response().outputs] == ["arm", "output-0"]
    assert result.as_numpy("arm").tolist() == [b"champion", b"champion"]


def test_the_stock_client_infers_without_waiting(client: Any):
    done, results = threading.Event(), []
    client.async_infer("flights", [an_input("carrier", "BYTES", [b"AA"])],
                       lambda result, error: (results.append((result, error)), done.set()))  # fmt: skip
    assert done.wait(60)
    ((result, error),) = results
    assert error is None
    assert np.isfinite(result.as_numpy("answer")).all()


def test_the_unit_and_the_key_may_come_as_metadata(client: Any, served: Served):
    headers = {"leaven-unit": "N7", "idempotency-key": "once"}
    ids = set()
    for _ in range(2):
        response = client.infer("flights", [an_input("carrier", "BYTES", [b"AA"])], headers=headers).get_response()
        ids.add(response.parameters["prediction_id"].string_param)
    (only,) = ids
    assert served.logged(only).unit == "N7"


def test_unloading_reaches_every_worker_over_either_protocol(client: Any, served: Served):
    client.unload_model("iris")
    try:
        listed = {(row["name"], row["state"]) for row in client.get_model_repository_index(as_json=True)["models"]}
        assert {("iris", "UNAVAILABLE"), ("flights", "READY")} <= listed
        end, rows = time.monotonic() + 60, 0
        while rows < 20:  # in a row: both workers refuse, each connection goes to one of them
            assert time.monotonic() < end
            rows = rows + 1 if served.gateway.ask("GET", "/v2/models/iris/ready").status == 503 else 0
    finally:
        client.load_model("iris")
    end, rows = time.monotonic() + 60, 0
    while rows < 20:
        assert time.monotonic() < end
        rows = rows + 1 if served.gateway.ask("GET", "/v2/models/iris/ready").status == 200 else 0


def test_statistics_add_up_over_workers_and_protocols(client: Any, served: Served):
    def counted() -> int:
        stats = client.get_inference_statistics("types", "types-1", as_json=True)["model_stats"][0]
        return int(stats.get("inference_count", 0))

    before = counted()
    for _ in range(6):
        client.infer("types", [an_input("f", "FP64", [1.0, 2.0])])
        assert served.gateway.infer(
            {"inputs": [{"name": "f", "shape": [1], "datatype": "FP64", "data": [1.0]}]}, model="types"
        ).status == 200  # fmt: skip
    until(lambda: counted() == before + 18)


def test_what_is_not_offered_is_unimplemented(client: Any):
    for act in (lambda: client.get_model_config("flights"), client.get_trace_settings,
                client.get_system_shared_memory_status):  # fmt: skip
        with pytest.raises(InferenceServerException) as said:
            act()
        assert said.value.status() == "StatusCode.UNIMPLEMENTED"


# --- messages of our own ---


def request(model: str = "types", **more: Any) -> Any:
    return ParseDict({"modelName": model} | more, message("ModelInferRequest")())


def typed(name: str, datatype: str, count: int = 1, **contents: Any) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": [count], "contents": contents}


@pytest.mark.parametrize(
    ("name", "datatype", "field", "value", "kept"),
    [
        ("i", "INT8", "intContents", -128, -128),
        ("i", "INT32", "intContents", 2**31 - 1, 2**31 - 1),
        ("i", "INT64", "int64Contents", -(2**63), -(2**63)),
        ("i", "INT64", "int64Contents", 2**53 + 1, 2**53 + 1),
        ("i", "UINT16", "uintContents", 65535, 65535),
        ("c", "UINT64", "uint64Contents", 2**64 - 1, str(2**64 - 1)),
        ("f", "FP32", "fp32Contents", 0.5, 0.5),
        ("f", "FP64", "fp64Contents", 0.1, 0.1),
        ("f", "FP64", "fp64Contents", "NaN", None),
        ("b", "BOOL", "boolContents", True, True),
        ("c", "BYTES", "bytesContents", base64.b64encode("żółw".encode()).decode(), "żółw"),
    ],
)
def test_typed_contents_of_every_datatype(call: Any, served: Served, name, datatype, field, value, kept):
    said = call("ModelInfer", request(inputs=[typed(name, datatype, **{field: [value]})]))
    assert not said.raw_output_contents  # typed in, typed out
    assert np.isfinite(said.outputs[0].contents.fp64_contents[0])
    assert served.logged(said.parameters["prediction_id"].string_param).features[name] == kept


def test_parameters_of_every_kind_are_read(call: Any, served: Served):
    parameters = {"a": {"boolParam": True}, "unit": {"int64Param": "7"}, "b": {"doubleParam": 0.5},
                  "c": {"uint64Param": "18446744073709551615"}, "d": {"stringParam": "x"}, "e": {},
                  "binary_data_output": {"boolParam": True}}  # fmt: skip
    said = call("ModelInfer", request(inputs=[typed("f", "FP64", fp64Contents=[1.0])], parameters=parameters))
    assert served.logged(said.parameters["prediction_id"].string_param).unit == "7"
    assert len(said.raw_output_contents) == len(said.outputs)


@pytest.mark.parametrize("name", ["kserve/iris_input_v2_grpc.json", "kserve/pmml_input_v2_grpc.json"])
def test_a_payload_of_another_project_is_served(call: Any, name: str):
    sent = json.loads((PAYLOADS / name).read_text())
    asked = ParseDict(sent | {"model_name": "iris"}, message("ModelInferRequest")(), ignore_unknown_fields=True)
    said = call("ModelInfer", asked)
    assert np.isfinite(said.outputs[0].contents.fp64_contents).all()
    assert len(said.outputs[0].contents.fp64_contents) == asked.inputs[0].shape[0]


@pytest.mark.parametrize(
    ("sent", "code", "says"),
    [
        (b"\xff\xff\xff", "INVALID_ARGUMENT", "cannot be read"),
        (b"\x0a\xff\xff\xff\x7f", "INVALID_ARGUMENT", "cannot be read"),
        (request("nope"), "NOT_FOUND", "no model 'nope'"),
        (request(modelVersion="9", inputs=[typed("f", "FP64", fp64Contents=[1.0])]), "NOT_FOUND", "version '9'"),
        (request(), "INVALID_ARGUMENT", "there are none"),
        (request(inputs=[typed("f", "FP64")]), "INVALID_ARGUMENT", "0 values do not fill"),
        (request(inputs=[typed("f", "FP64", 2, fp64Contents=[1.0])]), "INVALID_ARGUMENT", "1 values do not fill"),
        (request(inputs=[typed("f", "FP64", -1, fp64Contents=[1.0])]), "INVALID_ARGUMENT", "negative"),
        (request(inputs=[typed("f", "FP99", fp64Contents=[1.0])]), "INVALID_ARGUMENT", "no datatype 'FP99'"),
        (request(inputs=[typed("f", "FP16", fp32Contents=[1.0])]), "INVALID_ARGUMENT", "no typed form"),
        (request(inputs=[typed("i", "INT64", intContents=[1])]), "INVALID_ARGUMENT", "int64_contents"),
        (request(inputs=[typed("i", "INT8", intContents=[128])]), "INVALID_ARGUMENT", "does not fit INT8"),
        (request(inputs=[typed("f", "FP64", fp64Contents=["Infinity"])]), "INVALID_ARGUMENT", "'f'"),
        (request(inputs=[typed("c", "BYTES", bytesContents=["/w=="])]), "INVALID_ARGUMENT", "UTF-8"),
        (request(inputs=[typed("f", "FP64", fp64Contents=[1.0])] * 2), "INVALID_ARGUMENT", "twice"),
        (request(inputs=[typed("f", "FP64")], rawInputContents=["AAA="]), "INVALID_ARGUMENT", "2 bytes do not fill"),
        (request(inputs=[typed("f", "FP64")], rawInputContents=["", ""]), "INVALID_ARGUMENT", "2 for 1 inputs"),
        (request(inputs=[typed("f", "FP64", fp64Contents=[1.0])], rawInputContents=["AAAAAAAAAAA="]),
         "INVALID_ARGUMENT", "in one way"),
        (request(inputs=[typed("f", "FP64", fp64Contents=[1.0])], outputs=[{"name": "logits"}]),
         "INVALID_ARGUMENT", "no output 'logits'"),
    ],
)  # fmt: skip
def test_a_hostile_message_is_refused_with_a_sentence(call: Any, sent: Any, code: str, says: str):
    assert says in refused(lambda: call("ModelInfer", sent), grpc.StatusCode[code])


def test_a_message_beyond_the_limit_is_refused_and_others_are_served(call: Any):
    # Past our limit; the client's own has to let it out.
    refused(lambda: call("ModelInfer", b"\0" * (17 * 2**20)), grpc.StatusCode.RESOURCE_EXHAUSTED)
    assert call("ServerLive", b"").live


def test_models_are_not_loaded_from_a_call(call: Any):
    sent = ParseDict({"modelName": "iris", "parameters": {"config": {"stringParam": "{}"}}},
                     message("RepositoryModelLoadRequest")())  # fmt: skip
    text = refused(lambda: call("RepositoryModelLoad", sent), grpc.StatusCode.INVALID_ARGUMENT)
    assert "not taken from a request" in text


def test_no_call_of_this_file_ended_in_an_error_of_ours(served: Served):
    assert all("500" not in served.gateway.status()["requests"] for _ in range(10))


# --- beginning and ending ---


def test_calls_go_on_while_the_gateway_stops(installation: Installation):
    installation.publish(champion="1")
    with gateway_on(installation.settings, grpc=True) as gateway:
        with triton.InferenceServerClient(gateway.grpc) as client:
            until(lambda: _answers(client))
            outcomes: list[str] = []

            def ask() -> None:
                while len(outcomes) < 100_000:
                    try:
                        client.infer("flights", [an_input("carrier", "BYTES", [b"AA"])])
                        outcomes.append("ok")
                    except InferenceServerException as error:
                        outcomes.append(str(error.status()))
                        return

            asking = threading.Thread(target=ask)
            asking.start()
            until(lambda: len(outcomes) > 20)
            gateway.process.terminate()
            asking.join(60)
        assert set(outcomes[:-1]) == {"ok"}
        # Told not to come, or not let in any more: either way it may be sent again, elsewhere.
        assert outcomes[-1] in ("StatusCode.UNAVAILABLE", "StatusCode.CANCELLED")
        assert gateway.process.wait(60) == 0


def _answers(client: Any) -> bool:
    try:
        client.infer("flights", [an_input("carrier", "BYTES", [b"AA"])])
    except InferenceServerException:
        return False
    return True


def test_two_copies_of_the_protocol_live_in_one_process():
    """The stock client's is in protobuf's common pool; whichever is imported first."""
    for order in ("leaven.gateway.grpc.messages, tritonclient.grpc", "tritonclient.grpc, leaven.gateway.grpc.messages"):
        done = subprocess.run([sys.executable, "-c", f"import {order}"], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


def test_a_port_that_is_taken_is_said(installation: Installation):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        number = str(taken.getsockname()[1])
        done = subprocess.run(
            [sys.executable, "-m", "leaven", "gateway", "--port", "0", "--grpc-port", number,
             "--home", str(installation.settings.home)],
            capture_output=True, text=True, check=False, timeout=120,
        )  # fmt: skip
    assert done.returncode != 0
    assert f"cannot listen on 127.0.0.1:{number}" in done.stderr


# --- who may call, and over what ---


def test_calls_need_the_tokens_that_requests_need(installation: Installation):
    installation.publish(champion="1")
    with gateway_on(replace(installation.settings, auth="on"), grpc=True) as gateway:
        one_loop, _ = given(installation, "serve", only=["flights"])
        until(lambda: gateway.ask("GET", "/v2", Authorization=f"Bearer {one_loop}").status == 200)
        with grpc.insecure_channel(gateway.grpc) as channel:

            def call(name: str, token: str | None, **sent: Any) -> Any:
                asked, said = methods()[name]
                method = channel.unary_unary(
                    f"/{SERVICE}/{name}", request_serializer=asked.SerializeToString,
                    response_deserializer=said.FromString,
                )  # fmt: skip
                metadata = [("authorization", f"Bearer {token}")] if token else []
                return method(ParseDict(sent, asked()), timeout=60, metadata=metadata, wait_for_ready=True)

            rows = {"inputs": [typed("carrier", "BYTES", bytesContents=["QUE="])]}
            assert call("ServerLive", None).live
            for token in (None, "lvn_wrong"):
                for name, sent in (("ModelInfer", {"modelName": "flights", **rows}), ("ServerMetadata", {}),
                                   ("RepositoryIndex", {}), ("RepositoryModelUnload", {"modelName": "flights"}),
                                   ("ModelStatistics", {})):  # fmt: skip
                    refused(lambda: call(name, token, **sent), grpc.StatusCode.UNAUTHENTICATED)  # noqa: B023
            assert call("ModelInfer", one_loop, modelName="flights", **rows).model_version == "1"
            for name, sent in (("ModelInfer", {"modelName": "hotels", **rows}), ("RepositoryIndex", {}),
                               ("RepositoryModelUnload", {"modelName": "flights"}), ("ModelStatistics", {}),
                               ):  # fmt: skip
                refused(lambda: call(name, one_loop, **sent), grpc.StatusCode.PERMISSION_DENIED)  # noqa: B023


def test_a_gateway_with_a_certificate_speaks_tls_over_grpc_too(installation: Installation, tmp_path: Path):
    authority = trustme.CA()
    pair = authority.issue_cert("localhost", "127.0.0.1")
    pair.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    pair.private_key_pem.write_to_path(tmp_path / "key.pem")
    context = ssl.create_default_context()
    authority.configure_trust(context)
    installation.publish(champion="1")
    settings = replace(installation.settings, tls_cert=tmp_path / "cert.pem", tls_key=tmp_path / "key.pem")
    with gateway_on(settings, context=context, grpc=True) as gateway:
        trusted = grpc.ssl_channel_credentials(authority.cert_pem.bytes())
        with grpc.secure_channel(gateway.grpc, trusted) as channel:
            live = channel.unary_unary(
                f"/{SERVICE}/ServerLive", response_deserializer=methods()["ServerLive"][1].FromString
            )
            assert live(b"", timeout=60, wait_for_ready=True).live
        with grpc.insecure_channel(gateway.grpc) as channel:
            refused(lambda: channel.unary_unary(f"/{SERVICE}/ServerLive")(b"", timeout=30), grpc.StatusCode.UNAVAILABLE)
