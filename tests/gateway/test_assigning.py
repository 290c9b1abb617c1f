"""Callers who use an arm themselves get it with its parameters; its exposure is one, however often it is asked for."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from leaven.clock import SystemClock
from leaven.events.records import PredictionServed
from leaven.experiments.assignment import holder, position
from leaven.experiments.parameters import FILE, encoded
from leaven.experiments.routing import RoutingTable, arms_for
from leaven.gateway.assigning import Assigning, Seen, exposure_id
from leaven.gateway.counters import Counters
from leaven.gateway.http import Limits
from leaven.gateway.models import ModelHost, TableRefused
from leaven.gateway.opening import Opener
from leaven.gateway.parameters import ParametersArm, parameters_of
from leaven.gateway.predicting import Predicting
from leaven.gateway.serving import Serving
from leaven.gateway.shadow import Shadows
from leaven.loop import FeatureRule, Schema
from leaven.registry.artifacts import ArtifactStore
from tests.gateway.fakes import ListLog, a_chance
from tests.gateway.installations import (
    FLIGHTS,
    Installation,
    Reply,
    RunningGateway,
    a_flight,
    gateway_on,
    good_artifact,
    installation_in,
)

PROMPTS = Schema(
    (("country", "category", False), ("age", "int", False)), "reader", "binary",
    {"country": FeatureRule(values=("de", "fr"))},
)  # fmt: skip
PLAIN, WARM = {"prompt": "Answer: {question}", "temperature": 0.2}, {"prompt": "Be kind. {question}", "stop": ["\n"]}
WORKERS = 2


def keep(installation: Installation, version: str, files: Mapping[str, bytes]) -> None:
    installation.digests[version] = ArtifactStore(installation.settings.artifacts).put(files)


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A gateway of two workers, with a loop of parameters that all tests share, and one of a model."""
    with installation_in(tmp_path_factory.mktemp("assign"), {"m": good_artifact(FLIGHTS)}) as installation:
        keep(installation, "1", encoded(PLAIN))
        keep(installation, "2", encoded(WARM))
        installation.publish(champion="1", canary="2", share=0.3, loop="prompts", schema=PROMPTS)
        installation.publish(champion="m")
        with gateway_on(installation.settings, workers=WORKERS, grpc=find_spec("grpc") is not None) as running:
            running.until_revision(1, "prompts")
            yield installation, running


@pytest.fixture
def installation(system: Any) -> Installation:
    return system[0]


@pytest.fixture
def gateway(system: Any) -> RunningGateway:
    return system[1]


def assign(gateway: RunningGateway, unit: str, *, loop: str = "prompts", **more: Any) -> Reply:
    return gateway.ask("POST", "/v1/assign", json.dumps({"loop": loop, "unit": unit} | more))


def exposures(installation: Installation, *units: str) -> list[PredictionServed]:
    """What is in the log of these units, once."""
    found = [event for event in installation.events() if isinstance(event, PredictionServed) and event.unit in units]
    return list({(event.id, event.at): event for event in found}.values())


def until(holds: Callable[[], Any], *, seconds: float = 60.0) -> Any:
    end = time.monotonic() + seconds
    while not (found := holds()):
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)
    return found


def test_a_unit_gets_the_parameters_of_its_arm(installation: Installation, gateway: RunningGateway):
    table = installation.table(champion="1", canary="2", share=0.3, loop="prompts", schema=PROMPTS)
    for unit in (f"reader {number}" for number in range(40)):
        said = assign(gateway, unit, expose=False).json
        route = table.arms[holder(position(unit, salt="salt"), table.arms)]
        assert said == {
            "loop": "prompts", "unit": unit, "arm": route.arm, "version": route.version,
            "propensity": pytest.approx(0.3 if route.arm == "canary" else 0.7), "revision": 1,
            "parameters": WARM if route.version == "2" else PLAIN, "exposure": None,
        }  # fmt: skip


def test_an_exposure_is_written_once_by_each_worker_and_is_the_same_of_all(
    installation: Installation, gateway: RunningGateway
):
    unit = "everywhere"
    before = counted(gateway)
    said = []

    def asked_of_all() -> bool:
        said.append(assign(gateway, unit, context={"country": "fr"}).json)
        return len(said) >= 30 and all(counted(gateway)[worker] > before[worker] for worker in before)

    assert len(before) == WORKERS
    until(asked_of_all)
    (id,) = {each["exposure"] for each in said}
    logged = until(lambda: len(found := exposures(installation, unit)) == WORKERS and found)
    arm, version, propensity = said[0]["arm"], said[0]["version"], said[0]["propensity"]
    for each in logged:
        assert (each.id, each.role, each.arm, each.version, each.table) == (id, "exposure", arm, version, 1)
        assert (each.propensity, each.answer, each.error, each.features) == (propensity, None, None, {"country": "fr"})
    time.sleep(0.5)  # whatever else was on its way
    assert len(exposures(installation, unit)) == WORKERS


def counted(gateway: RunningGateway) -> Counter[str]:
    """Exposures that each worker says it has written."""
    found: Counter[str] = Counter()
    for line in gateway.ask("GET", "/metrics").body.decode().splitlines():
        if line.startswith(("leaven_exposures_total{", "leaven_log_queued{")):  # the latter names every worker
            worker = line.partition('worker="')[2].partition('"')[0]
            found[worker] += int(float(line.rpartition(" ")[2])) * line.startswith("leaven_exposures_total{")
    return found


def test_whoever_only_asks_meets_nothing(installation: Installation, gateway: RunningGateway):
    for _ in range(3):
        assert assign(gateway, "looks", expose=False).json["exposure"] is None
    id = assign(gateway, "acts").json["exposure"]
    until(lambda: [each.id for each in exposures(installation, "acts")] == [id])
    assert exposures(installation, "looks") == []


def test_a_restarted_gateway_gives_an_exposure_the_same_id_and_a_new_table_another(tmp_path: Path):
    ids = []
    with installation_in(tmp_path, {}) as installation:
        keep(installation, "1", encoded(PLAIN))
        installation.publish(champion="1", loop="prompts", schema=PROMPTS)
        for _ in range(2):
            with gateway_on(installation.settings) as gateway:
                gateway.until_revision(1, "prompts")
                ids += [assign(gateway, "u").json["exposure"] for _ in range(3)]
                if len(ids) == 6:
                    installation.publish(champion="1", loop="prompts", schema=PROMPTS)
                    gateway.until_revision(2, "prompts")
                    ids.append(assign(gateway, "u").json["exposure"])
        assert (len(set(ids[:6])), ids[6] in ids[:6]) == (1, False)
        assert Counter(each.id for each in exposures(installation, "u")) == {ids[0]: 2, ids[6]: 1}


def test_a_loop_with_a_model_can_be_assigned_too(installation: Installation, gateway: RunningGateway):
    said = assign(gateway, "N1", loop="flights", context={"carrier": "AA", "colour": "red"}).json
    assert (said["parameters"], said["version"], said["ignored"]) == (None, "m", ["colour"])
    (logged,) = until(lambda: exposures(installation, "N1"))
    assert (logged.id, logged.role, logged.features) == (said["exposure"], "exposure", {"carrier": "AA"})
    assert gateway.infer(a_flight(tail_number="N1")).status == 200


@pytest.mark.parametrize(
    ("sent", "why"),
    [
        ({"unit": ""}, "unit: it is empty"),
        ({"unit": "u" * 2000}, "it has 2000 characters"),
        ({"context": {"age": "old"}}, "feature 'age' takes an int, not 'old'"),
        ({"context": {"country": "xx"}}, "feature 'country' knows de, fr, not 'xx'"),
        ({"context": {"age": [1]}}, "context: feature 'age': a list or an object is no value"),
        ({"context": "de"}, "Expected `object`"),
        ({"expose": "yes"}, "Expected `bool`"),
    ],
    ids=range(7),
)
def test_what_fits_no_feature_is_refused(gateway: RunningGateway, sent: dict[str, Any], why: str):
    refused = gateway.ask("POST", "/v1/assign", json.dumps({"loop": "prompts", "unit": "u"} | sent))
    assert (refused.status, why in refused.json["error"]) == (400, True), refused.body


def test_what_is_not_known_of_a_unit_may_be_left_out(installation: Installation, gateway: RunningGateway):
    said = assign(gateway, "quiet", context={"age": 7, "country": None, "shoe": 43, "hat": 1}).json
    assert said["ignored"] == ["hat", "shoe"]
    (logged,) = until(lambda: exposures(installation, "quiet"))
    assert logged.features == {"age": 7, "country": None}


def test_who_asks_parameters_for_an_answer_is_told_where_to_ask(gateway: RunningGateway):
    rows = json.dumps({"rows": [{"country": "de"}]})
    for refused in (
        gateway.infer(a_flight(), model="prompts"),
        gateway.infer(a_flight(), model="prompts", version="2"),
        gateway.ask("POST", "/v1/models/prompts/predict", rows),
    ):
        assert refused.status == 400
        assert "has no model to ask: its versions are sets of parameters" in refused.json["error"]
        assert "/v1/assign" in refused.json["error"]


def test_over_grpc_parameters_have_no_model_either(gateway: RunningGateway):
    triton = pytest.importorskip("tritonclient.grpc")
    asked = triton.InferInput("country", [1], "BYTES")
    asked.set_data_from_numpy(np.array([b"de"], dtype=object))
    client = triton.InferenceServerClient(gateway.grpc)
    try:
        with pytest.raises(triton.InferenceServerException, match="has no model to ask") as refused:
            client.infer("prompts", [asked])
        assert refused.value.status() == "StatusCode.INVALID_ARGUMENT"
        assert client.is_model_ready("prompts")
        assert len(client.get_model_metadata("prompts").outputs) == 0
    finally:
        client.close()


def test_what_is_told_of_models_is_told_of_parameters(gateway: RunningGateway):
    about = gateway.ask("GET", "/v2/models/prompts").json
    assert (about["name"], about["versions"], about["outputs"]) == ("prompts", ["1", "2"], [])
    assert [each["name"] for each in about["inputs"]] == ["country", "age"]
    assert gateway.ask("GET", "/v2/models/prompts/ready").status == 200
    assert {each["version"] for each in gateway.ask("GET", "/v2/models/prompts/stats").json["model_stats"]} == {
        "1",
        "2",
    }
    listed = gateway.ask("POST", "/v2/repository/index").json
    assert [each["state"] for each in listed if each["name"] == "prompts"] == ["READY", "READY"]


def test_a_table_with_broken_parameters_is_not_taken(installation: Installation, gateway: RunningGateway):
    keep(installation, "broken", {FILE: b'{"prompt": '})
    before = assign(gateway, "stays").json
    published = installation.publish(champion="broken", loop="prompts", schema=PROMPTS)
    listed = until(lambda: unavailable(gateway))
    assert "it is no JSON object" in listed["reason"]
    assert assign(gateway, "stays").json == before
    back = installation.publish(champion="1", canary="2", share=0.3, loop="prompts", schema=PROMPTS)
    assert back.revision == published.revision + 1
    gateway.until(
        lambda s: any(t["loop"] == "prompts" and t["revision"] == back.revision for t in s["tables"]), seconds=60
    )


def unavailable(gateway: RunningGateway) -> Any:
    listed = gateway.ask("POST", "/v2/repository/index").json
    return next((each for each in listed if (each["version"], each["state"]) == ("broken", "UNAVAILABLE")), None)


# --- parts, one at a time ----------------------------------------------------------------------------------------


def an_assigning(log: ListLog, *, log_first: bool = False) -> Callable[[str], str]:
    """What asks for the exposure of a unit, over this log."""
    serving = {"l": Serving(a_table(), {"1": ParametersArm(b'{"p": 1}')})}
    counters = Counters(worker="w", log=log.counters)
    shadows = Shadows(log, timer=time.perf_counter)
    predicting = Predicting(serving, log, shadows, clock=SystemClock(), chance=a_chance(), counters=counters,
                            log_first=log_first)  # fmt: skip
    assigning = Assigning(predicting, Limits(), counters)

    async def asked(unit: str) -> Any:
        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": json.dumps({"loop": "l", "unit": unit}).encode()}

        return await assigning.assign({"type": "http", "path": "/v1/assign", "headers": []}, receive)

    return lambda unit: json.loads(asyncio.run(asked(unit)).body)["exposure"]


@pytest.mark.parametrize("log_first", [False, True])
def test_an_exposure_that_is_kept_is_not_written_again(log_first: bool):
    log = ListLog()
    ask = an_assigning(log, log_first=log_first)
    ids = [ask(unit) for unit in "ababa"]
    assert [event.id for event in log.events] == ids[:2]
    assert ids[2:] == [*ids[:2], ids[0]]


def test_an_exposure_that_the_log_lost_is_written_when_it_comes_again():
    log = ListLog(room=1)
    ask = an_assigning(log)
    first, second = ask("a"), ask("b")  # there is no room for the second
    log.events.clear()  # and the first is lost with the disk
    assert [ask("a"), len(log.events), log.events[0].id] == [first, 1, first]
    log.events.clear()
    assert [ask("b"), log.events[0].id] == [second, second]


def a_table(**changes: Any) -> RoutingTable:
    return msgspec.structs.replace(RoutingTable("l", 1, 0, PROMPTS, "s", arms_for(("1", "a"))), **changes)


def test_an_exposure_s_id_changes_with_all_that_makes_it_one():
    tables = [a_table(), a_table(loop="m"), a_table(revision=2), a_table(salt="s/t"), a_table(at=9)]
    ids = [exposure_id(table, "champion", "u") for table in tables]
    ids += [exposure_id(a_table(), "canary", "u"), exposure_id(a_table(), "champion", "v")]
    assert len(set(ids)) == 6
    assert ids[0] == ids[4]  # when it was published says nothing
    assert all(len(id) == 32 and int(id, 16) >= 0 for id in ids)
    assert exposure_id(a_table(), "champion", "\ud800")  # which JSON can carry


@given(st.lists(st.integers(0, 30).map(str)), st.integers(1, 8))
def test_the_latest_ids_are_remembered_and_no_more_than_twice_as_many(ids: list[str], least: int):
    seen, latest = Seen(least), dict[str, None]()
    for id in ids:
        if id not in seen:
            seen.add(id)
        latest.pop(id, None)
        latest[id] = None
        assert all(each in latest for each in seen._young | seen._old)
        assert set(list(latest)[-least:]) <= seen._young | seen._old
        assert len(seen._young | seen._old) <= 2 * least


def nobody(*_: object) -> Any:
    raise AssertionError("a model was to be loaded")


def test_parameters_are_opened_with_the_table_and_never_as_a_model():
    held = {"a": ParametersArm(b'{"p": 1}'), "b": ParametersArm(b'{"p": 2}')}

    def described(artifact: str) -> ParametersArm:
        return held[artifact]

    host = ModelHost(
        Opener(nobody, nobody, described, seconds=1.0, timer=time.monotonic, clock=lambda: 0, threads=None)
    )  # type: ignore[arg-type]
    host.install(a_table(arms=arms_for(("1", "a"), ("2", "b"), share=0.5)))
    sent = [msgspec.json.encode(parameters_of(host.serving["l"], version)) for version in ("1", "2")]
    assert sent == [b'{"p": 1}', b'{"p": 2}']
    with pytest.raises(TableRefused, match="version 3 cannot be loaded"):
        host.install(a_table(revision=2, arms=arms_for(("3", "gone"))))
    assert host.revisions() == {"l": 1}
