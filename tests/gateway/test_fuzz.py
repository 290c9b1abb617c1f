"""Whatever comes in is read or refused with an error of ours, and a real gateway never says 500."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from leaven.learners.artifact import ModelArtifact
from tests.gateway.fuzzing import TARGETS, fuzzed
from tests.gateway.installations import RunningGateway, gateway_on, installation_in

NAMES = st.sampled_from(["carrier", "dep_hour", "dep_delay", "weekend", "tail_number", "x", ""])
NUMBERS = st.one_of(st.integers(-(2**70), 2**70), st.floats(allow_nan=False, allow_infinity=False), st.booleans())
LEAVES = st.one_of(NUMBERS, st.none(), st.text(max_size=8))
ANYTHING = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=3))
TYPES = st.sampled_from(["BOOL", "INT8", "INT64", "UINT8", "UINT64", "FP16", "BF16", "FP32", "FP64", "BYTES", "FP128"])
PARAMETERS = st.dictionaries(
    st.sampled_from(["binary_data_size", "binary_data", "binary_data_output", "unit", "content_type"]),
    st.one_of(st.integers(-2, 20), LEAVES), max_size=3,
)  # fmt: skip
TENSOR = st.fixed_dictionaries(
    {"name": NAMES, "shape": st.lists(st.integers(-1, 4) | st.integers(), max_size=3), "datatype": TYPES},
    optional={"data": st.lists(LEAVES, max_size=4) | ANYTHING, "parameters": PARAMETERS},
)
OUTPUT = st.fixed_dictionaries({"name": st.sampled_from(["answer", "arm", "x"])}, optional={"parameters": PARAMETERS})
INFER = st.fixed_dictionaries(
    {"inputs": st.lists(TENSOR, max_size=3)},
    optional={"id": st.text(max_size=5) | LEAVES, "parameters": PARAMETERS, "outputs": st.lists(OUTPUT, max_size=3)},
)
ROWS = st.fixed_dictionaries(
    {"rows": st.lists(st.dictionaries(NAMES, LEAVES, max_size=4), max_size=3) | ANYTHING},
    optional={"unit": LEAVES, "units": st.lists(LEAVES, max_size=3), "version": LEAVES},
)
REPORT = st.fixed_dictionaries(
    {"loop": st.sampled_from(["flights", "x"]), "name": st.text(max_size=3)},
    optional={"value": LEAVES, "at": LEAVES, "unit": LEAVES, "prediction_id": LEAVES, "kind": LEAVES, "id": LEAVES},
)
FEEDBACK = REPORT | st.fixed_dictionaries({"feedback": st.lists(REPORT, max_size=3)}) | ANYTHING
MANY = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))


def as_json(value: Any) -> bytes:
    return json.dumps(value).encode("utf-8", "surrogatepass")


@given(body=st.one_of(INFER.map(as_json), ANYTHING.map(as_json), st.binary(max_size=300)), raw=st.binary(max_size=40),
       length=st.none() | st.integers(-1, 400).map(str) | st.text(max_size=4) | st.just("exact"))  # fmt: skip
@MANY
def test_an_inference_request_is_read_or_refused(body: bytes, raw: bytes, length: str | None):
    fuzzed("infer", body + raw, str(len(body)) if length == "exact" else length)


@given(body=st.one_of(ROWS.map(as_json), st.binary(max_size=300)))
@MANY
def test_rows_are_read_or_refused(body: bytes):
    fuzzed("rows", body)


@given(body=st.one_of(FEEDBACK.map(as_json), st.binary(max_size=300)))
@MANY
def test_feedback_is_read_or_refused(body: bytes):
    fuzzed("feedback", body)


@given(body=st.binary(max_size=400), encoding=st.sampled_from(["gzip", "deflate", "br", ""]))
@MANY
def test_a_packed_body_is_unpacked_or_refused(body: bytes, encoding: str):
    fuzzed("packed", body, encoding)


@given(body=st.binary(max_size=300))
@MANY
def test_bytes_over_grpc_are_a_request_or_refused(body: bytes):
    fuzzed("grpc", body)


@given(request=INFER, typed=st.booleans())
@MANY
def test_a_message_over_grpc_is_read_or_refused(request: Any, typed: bool):
    """Messages that are well-formed, with contents that need not fit."""
    from leaven.gateway.grpc.messages import message

    sent = message("ModelInferRequest")(model_name="flights")
    for given_ in request["inputs"]:
        shape = [length for length in given_["shape"] if -(2**63) <= length < 2**63]
        tensor = sent.inputs.add(name=given_["name"], datatype=given_["datatype"], shape=shape)
        data = given_.get("data")
        for value in data if isinstance(data, list) else []:
            if isinstance(value, float) and typed:
                tensor.contents.fp64_contents.append(value)
            elif isinstance(value, bool) and typed:
                tensor.contents.bool_contents.append(value)
            elif isinstance(value, str) and typed:
                tensor.contents.bytes_contents.append(value.encode("utf-8", "surrogatepass"))
            elif not typed:
                sent.raw_input_contents.append(as_json(value))
    fuzzed("grpc", sent.SerializeToString())


def test_the_fuzzer_would_notice(monkeypatch: pytest.MonkeyPatch):
    """An exception that is no refusal is not swallowed."""

    def broken(body: bytes, more: str | None) -> None:
        raise ZeroDivisionError

    monkeypatch.setitem(TARGETS, "broken", broken)
    with pytest.raises(ZeroDivisionError):
        fuzzed("broken", b"")


# --- a real gateway ---


@pytest.fixture(scope="module")
def gateway(
    tmp_path_factory: pytest.TempPathFactory, artifacts_made: Mapping[str, ModelArtifact]
) -> Iterator[RunningGateway]:
    with installation_in(tmp_path_factory.mktemp("fuzz"), artifacts_made) as installation:
        installation.publish(champion="1", canary="2", share=0.5)
        with gateway_on(installation.settings) as running:
            running.until_revision(1)
            yield running


def poster(connection: HTTPConnection) -> Callable[[str, bytes, dict[str, str]], int]:
    def post(path: str, body: bytes, headers: dict[str, str]) -> int:
        connection.request("POST", path, body, headers)
        response = connection.getresponse()
        said = response.read()
        assert response.status < 500, (path, body, said)
        assert response.status == 200 or set(json.loads(said)) == {"error"}
        return response.status

    return post


def ask_at_random(gateway: RunningGateway, examples: int) -> None:
    connection = HTTPConnection(gateway.address, timeout=60)
    post = poster(connection)
    seen: set[int] = set()

    @given(
        which=st.sampled_from(["/v2/models/flights/infer", "/v1/models/flights/predict", "/v1/feedback", "/v1/assign",
                               "/v2/repository/index", "/v2/models/flights/versions/2/infer"]),
        body=st.one_of(INFER, ROWS, FEEDBACK).map(as_json) | st.binary(max_size=200),
        headers=st.dictionaries(
            st.sampled_from(["Inference-Header-Content-Length", "Content-Encoding", "leaven-unit", "Idempotency-Key",
                             "Accept-Encoding", "Content-Type"]),
            st.sampled_from(["0", "10", "gzip", "deflate", "*", "N1", "é", ""]), max_size=3),
    )  # fmt: skip
    @settings(max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck))
    def ask(which: str, body: bytes, headers: dict[str, str]) -> None:
        seen.add(post(which, body, headers))

    try:
        ask()
    finally:
        connection.close()
    assert "500" not in gateway.status()["requests"]
    assert 400 in seen


def test_a_real_gateway_never_says_500(gateway: RunningGateway):
    ask_at_random(gateway, 300)


@pytest.mark.slow
def test_a_real_gateway_never_says_500_however_long_one_tries(gateway: RunningGateway):
    ask_at_random(gateway, 20_000)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.skipif(importlib.util.find_spec("atheris") is None, reason="atheris has no wheel for this Python")
@pytest.mark.parametrize("target", TARGETS)
def test_a_fuzzer_that_watches_the_code_finds_nothing(target: str, tmp_path: Path):
    """A minute for each reader, from a few seeds, guided by coverage."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.gateway.guided_fuzzing", target, str(tmp_path),
         "-max_total_time=60", "-max_len=600"],
        cwd=Path(__file__).parents[2], env=os.environ, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
