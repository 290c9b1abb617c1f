"""A real gateway whose arms are servers elsewhere: another gateway, a small service, and one that misbehaves."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from leaven.endpoints.asking import Asking
from leaven.endpoints.breaker import BreakerRule
from leaven.endpoints.description import Endpoint, encoded
from leaven.endpoints.oip import OipMapping
from leaven.endpoints.plain_json import JsonMapping
from leaven.endpoints.probing import settled
from leaven.events.records import PredictionServed
from leaven.experiments.routing import RoutingTable, arms_for
from leaven.gateway.endpoint import EndpointArm
from leaven.gateway.models import ModelHost
from leaven.gateway.opening import Opener, dummy_row
from leaven.gateway.serving import Chance, Serving, predict
from leaven.learners.artifact import ModelArtifact, load_artifact
from leaven.registry.artifacts import ArtifactStore
from tests.endpoints.servers import Asked, Reply, Server, Writer, an_endpoint, http, outputs, says, serving
from tests.gateway.fakes import SCHEMA, a_serving, some_rows
from tests.gateway.installations import (
    FLIGHTS,
    Installation,
    RunningGateway,
    a_flight,
    gateway_on,
    installation_in,
)
from tests.gateway.test_resilience import load_on, wait_until

QUICK = BreakerRule(failures=3, pause=0.2, longest=0.4)


def keep(installation: Installation, version: str, endpoint: Endpoint) -> None:
    """Let `endpoint` be a version."""
    installation.digests[version] = ArtifactStore(installation.settings.artifacts).put(encoded(endpoint))


def elsewhere(url: str, *, model: str = "flights", timeout: float = 5.0, **settings: Any) -> Endpoint:
    """A server of the protocol, asked what it takes, as `leaven endpoint add` does."""
    described = Endpoint(url, OipMapping(model), timeout=timeout, breaker=QUICK, **settings)
    return asyncio.run(settled(described, FLIGHTS, dummy_row(FLIGHTS) | {"carrier": np.array(["AA"], object)}, 1))[0]


async def seven(asked: Asked, writer: Writer) -> Reply:
    """Answers 0.7 to every row, in the protocol."""
    return http(outputs([0.7] * asked.rows))


def of_flights(server: Server, **settings: Any) -> Endpoint:
    """A small server that takes one feature of a flight."""
    settings = {"timeout": 5.0, "breaker": QUICK} | settings
    return an_endpoint(server.url, **settings)


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory, artifacts_made: Mapping[str, ModelArtifact]) -> Iterator[Any]:
    """Another gateway, which serves version 2 to everybody."""
    with installation_in(tmp_path_factory.mktemp("other"), artifacts_made) as installation:
        installation.publish(champion="2")
        with gateway_on(installation.settings) as running:
            running.until_revision(1)
            yield running


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory, artifacts_made: Mapping[str, ModelArtifact]) -> Iterator[Any]:
    """An installation, and a gateway on it that all tests of this file share."""
    with installation_in(tmp_path_factory.mktemp("ours"), artifacts_made) as installation:
        installation.publish(champion="1")
        with gateway_on(installation.settings) as running:
            yield installation, running


System = tuple[Installation, RunningGateway]


def publish(system: System, **routes: Any) -> RunningGateway:
    installation, gateway = system
    gateway.until_revision(installation.publish(**routes).revision)
    return gateway


def states(gateway: RunningGateway) -> dict[str, Any]:
    """The endpoints of the status, by version."""
    return {each["version"]: each for each in gateway.status()["endpoints"]}


def answer_of(artifact: ModelArtifact, **flight: Any) -> float:
    row = {"carrier": "AA", "dep_hour": 8, "dep_delay": 3.5, "weekend": False} | flight
    columns = {name: np.array([value], object if isinstance(value, str) else float) for name, value in row.items()}
    return float(load_artifact(artifact.to_files()).answer(columns)[0])


@pytest.mark.parametrize("binary", [True, False])
def test_another_gateway_answers_as_its_model_does(
    system: System, other: RunningGateway, artifacts_made: Mapping[str, ModelArtifact], binary: bool
):
    found = elsewhere(other.url)
    assert isinstance(found.mapping, OipMapping)
    assert (found.mapping.binary, found.mapping.output) == (True, "answer")
    if not binary:
        mapping = OipMapping("flights", columns=found.mapping.columns, output="answer")
        found = Endpoint(found.url, mapping, timeout=5.0)
    keep(system[0], f"other-{binary}", found)
    gateway = publish(system, champion=f"other-{binary}")
    for delay in (3.5, 20.0, None):
        said = gateway.infer(a_flight(dep_delay=delay))
        assert said.status == 200, said.body
        expected = answer_of(artifacts_made["2"], dep_delay=np.nan if delay is None else delay)
        assert said.json["outputs"][0]["data"] == [pytest.approx(expected, abs=1e-12)]
        assert said.json["model_version"] == f"other-{binary}"


def test_many_rows_each_get_their_own_answer(
    system: System, other: RunningGateway, artifacts_made: Mapping[str, ModelArtifact]
):
    keep(system[0], "parts", elsewhere(other.url, rows=7))
    gateway = publish(system, champion="parts")
    delays = [float(delay) for delay in range(30)]
    request = {"inputs": [
        {"name": "carrier", "shape": [30], "datatype": "BYTES", "data": ["AA", "DL"] * 15},
        {"name": "dep_delay", "shape": [30], "datatype": "FP64", "data": delays},
    ]}  # fmt: skip
    said = gateway.infer(request).json["outputs"][0]["data"]
    columns = {"carrier": np.array(["AA", "DL"] * 15, object), "dep_delay": np.array(delays)}
    assert said == pytest.approx(load_artifact(artifacts_made["2"].to_files()).answer(columns).tolist(), abs=1e-12)


def test_a_plain_json_service_answers_by_its_mapping(system: System):
    async def service(asked: Asked, writer: Writer) -> Reply:
        rows = asked.json["instances"]
        return http(
            str({"predictions": [{"score": 0.1 * len(row["carrier"] or "")} for row in rows]}).replace("'", '"')
        )

    features = tuple((name, kind) for name, kind, _ in FLIGHTS.features)
    mapping = JsonMapping({"instances": {"$rows": "objects"}}, "/predictions/*/score", features)
    with serving(service) as server:
        keep(system[0], "json", Endpoint(f"{server.url}/v1/score?fast=1", mapping, timeout=5.0))
        gateway = publish(system, champion="json")
        assert gateway.infer(a_flight()).json["outputs"][0]["data"] == [0.2]
        assert server.asked[0].path == "/v1/score?fast=1"
        assert server.asked[0].json == {
            "instances": [{"carrier": "AA", "dep_hour": 8, "dep_delay": 3.5, "weekend": False}]
        }


def test_a_shadow_elsewhere_answers_under_the_live_ids(system: System, other: RunningGateway):
    keep(system[0], "shadowed", elsewhere(other.url))
    gateway = publish(system, champion="1", shadows=["shadowed"])
    ids = {gateway.infer(a_flight(dep_delay=float(delay))).json["parameters"]["prediction_id"] for delay in range(20)}

    def shadow_rows() -> list[PredictionServed]:
        return [e for e in system[0].events() if isinstance(e, PredictionServed) and e.version == "shadowed"]

    wait_until(lambda: len(shadow_rows()) >= 20)
    assert {row.id for row in shadow_rows()} == ids
    assert all(row.role == "shadow" and row.answer is not None for row in shadow_rows())


def test_a_canary_elsewhere_that_dies_and_comes_back_costs_no_caller_an_answer(system: System):
    with serving(seven) as first:
        port = first.port
        keep(system[0], "mortal", of_flights(first))
        gateway = publish(system, champion="1", canary="mortal", share=1.0)
        with load_on(gateway, callers=3) as load:
            wait_until(lambda: len(load.seen) > 50)
            first.answer = says(None)  # it breaks every connection
            gateway.until(lambda _: states(gateway)["mortal"]["breaker"] != "closed")
            asked = len(load.seen)
            wait_until(lambda: len(load.seen) > asked + 100)
            down = states(gateway)["mortal"]
            first.answer = seven
            gateway.until(lambda _: states(gateway)["mortal"]["breaker"] == "closed")
            asked = len(load.seen)
            wait_until(lambda: len(load.seen) > asked + 50)
    assert Counter(reply.status for reply in load.seen) == {200: len(load.seen)}
    assert load.broken == 0
    assert {reply.said["version"] for reply in load.seen[-30:]} == {"mortal"}
    assert {reply.said["version"] for reply in load.seen} == {"1", "mortal"}
    assert down["breaker"] in ("open", "half-open")
    assert "closed the connection" in down["last_failure"]
    assert time.time() - 600 < down["open_since"] / 1e6 <= time.time()
    assert down["requests"]["left alone"] > down["requests"].get("broken off", 0), "it is left alone"
    assert port == first.port
    status = gateway.status()
    counted = {each["version"]: each["rows"] for each in status["fallbacks"] if each["arm"] == "canary"}
    errors = [e for e in system[0].events() if isinstance(e, PredictionServed) and e.version == "mortal" and e.error]
    wait_until(lambda: gateway.status()["log"]["queued"] == 0)
    assert counted["mortal"] >= len(errors) > 0


def test_a_slow_canary_is_stood_in_for_when_its_time_is_over(system: System):
    async def hangs(asked: Asked, writer: Writer) -> Reply:
        await asyncio.sleep(60)
        return None

    with serving(hangs) as server:
        keep(
            system[0],
            "slow",
            of_flights(server, timeout=0.3, breaker=BreakerRule(failures=2, pause=600.0, longest=600.0)),
        )
        gateway = publish(system, champion="1", canary="slow", share=1.0)
        took = []
        for _ in range(6):
            began = time.monotonic()
            said = gateway.infer(a_flight())
            took.append(time.monotonic() - began)
            assert (said.status, said.json["parameters"]["version"]) == (200, "1")
        assert min(took[:2]) >= 0.3
        assert max(took[:2]) < 30
        assert min(took[2:]) < 0.3, "after two failures it is left alone"
        assert len(server.asked) == 2
        metrics = gateway.ask("GET", "/metrics").body.decode()
    worker = gateway.status()["worker"]
    labels = f'worker="{worker}",loop="flights",version="slow"'
    assert f"leaven_endpoint_breaker_open{{{labels}}} 1\n" in metrics
    assert f'leaven_endpoint_requests_total{{{labels},outcome="too slow"}} 2\n' in metrics
    assert f'leaven_endpoint_requests_total{{{labels},outcome="left alone"}} 4\n' in metrics


def test_a_champion_elsewhere_that_is_down_is_a_503_that_says_so_and_when_to_come_again(system: System):
    with serving(says(http('{"error": "out of memory"}', "500 Oops"))) as server:
        keep(system[0], "down", of_flights(server, breaker=BreakerRule(failures=3, pause=4.0, longest=4.0)))
        gateway = publish(system, champion="down")
        said = [gateway.infer(a_flight()) for _ in range(6)]
        assert [(reply.status, reply.headers["retry-after"]) for reply in said] == [(503, "1")] * 6
        assert "answered 500: out of memory" in said[0].json["error"]
        assert "left alone since it failed (answered 500" in said[-1].json["error"]
        assert len(server.asked) == 3
        server.answer = seven
        wait_until(lambda: gateway.infer(a_flight()).status == 200)
        assert states(gateway)["down"]["breaker"] == "closed"


def test_what_it_refuses_is_the_rows_failure_and_opens_no_breaker(system: System):
    with serving(says(http('{"error": "unknown carrier"}', "400 Bad"))) as server:
        keep(system[0], "picky", of_flights(server))
        gateway = publish(system, champion="1", canary="picky", share=1.0)
        assert {gateway.infer(a_flight()).status for _ in range(8)} == {200}
        state = states(gateway)["picky"]
        assert (state["breaker"], state["requests"]) == ("closed", {"refused": 8})


def test_no_number_is_a_failure_of_the_arm(system: System):
    with serving(says(http(outputs([None])))) as server:
        keep(system[0], "null", of_flights(server))
        gateway = publish(system, champion="1", canary="null", share=1.0)
        assert gateway.infer(a_flight()).json["parameters"]["version"] == "1"
    wait_until(lambda: any(isinstance(e, PredictionServed) and e.version == "null" for e in system[0].events()))
    (row,) = [e for e in system[0].events() if isinstance(e, PredictionServed) and e.version == "null"]
    assert (row.answer, row.error) == (None, "answered nan")


def test_a_gateway_starts_and_serves_while_an_endpoint_is_not_there(
    tmp_path: Path, artifacts_made: Mapping[str, ModelArtifact]
):
    with serving(seven) as server, installation_in(tmp_path, artifacts_made) as installation:
        keep(installation, "gone", of_flights(server))
        installation.publish(champion="1", canary="gone", share=1.0)
        server.answer = says(None)
        with gateway_on(installation.settings) as gateway:
            gateway.until_revision(1)
            assert gateway.infer(a_flight()).json["parameters"]["version"] == "1"


# --- parts, one at a time ----------------------------------------------------------------------------------------


def an_opener(endpoint: Endpoint) -> Opener:
    def nobody(*_: object) -> Any:
        raise AssertionError("a model was to be loaded")

    return Opener(
        nobody, nobody, lambda artifact: Asking(endpoint, variable=lambda name: None, timer=time.monotonic),
        seconds=60.0, timer=time.monotonic, clock=lambda: 0, threads=None,  # type: ignore[arg-type]
    )  # fmt: skip


def test_a_promoted_endpoint_keeps_its_connections_and_its_breaker():
    host = ModelHost(an_opener(an_endpoint("http://127.0.0.1:1")))
    canary = RoutingTable("l", 1, 0, SCHEMA, "s", arms_for(("1", "a"), ("2", "b"), share=0.5))
    host.install(canary)
    before = host.serving["l"].models["2"]
    host.install(RoutingTable("l", 2, 0, SCHEMA, "s", arms_for(("2", "b"))))
    assert host.serving["l"].models["2"] is before


def test_a_question_that_nobody_waits_for_any_more_says_nothing_of_the_server():
    async def hangs(asked: Asked, writer: Writer) -> Reply:
        await asyncio.sleep(60)
        return None

    async def give_up(url: str) -> EndpointArm:
        arm = an_opener(an_endpoint(url, breaker=BreakerRule(failures=1)))("a", SCHEMA, True)
        assert isinstance(arm, EndpointArm)
        for _ in range(3):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(arm.ask({"x": np.array([1.0])}, 1), 0.05)
        arm.close()
        return arm

    with serving(hangs) as server:
        arm = asyncio.run(give_up(server.url))
    assert (arm.facts()["breaker"], arm.facts()["requests"]) == ("closed", {"given up": 3})


class Never:
    """An arm that never answers, or raises."""

    def __init__(self, error: Exception | None = None) -> None:
        self._error = error

    async def ask(self, columns: Any, count: int) -> Any:
        if self._error is not None:
            raise self._error
        await asyncio.sleep(60)


def predicted(models: Mapping[str, Any], timer: Callable[[], float]) -> Any:
    table = a_serving(dict.fromkeys(models), canary="2", share=1.0).table  # type: ignore[misc]
    chance = Chance(new_id=lambda: "id", timer=timer)
    return asyncio.run(predict(Serving(table, models), some_rows([1.0]), pinned=None, at=0, chance=chance))


def test_an_arm_that_used_up_the_time_leaves_none_to_the_champion():
    seconds = iter([0.0, 0.0, 6.9, 6.95, 6.95])
    began = time.monotonic()
    said = predicted({"1": Never(), "2": Never(OSError("it hung"))}, lambda: next(seconds))
    assert time.monotonic() - began < 30
    assert "no time left for it after the arm OSError: it hung" in str(said.failure)
