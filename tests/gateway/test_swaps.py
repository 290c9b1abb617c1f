"""Versions change under load, and candidates misbehave in every way: no caller notices, no reply is a wrong one."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping

import pytest

from leaven.learners.artifact import ModelArtifact
from tests.gateway.installations import FLIGHTS, gateway_on, good_artifact, installation_in
from tests.gateway.misbehaving import KINDS, TRUSTED, misbehaving_artifact
from tests.gateway.traffic import Load, System, load_on, wait_until

FRESH = [f"fresh-{number}" for number in range(10)]


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory, artifacts_made: Mapping[str, ModelArtifact]) -> Iterator[System]:
    artifacts = dict(artifacts_made) | {kind: misbehaving_artifact(kind, FLIGHTS) for kind in KINDS}
    artifacts |= {version: good_artifact(FLIGHTS, rounds=5 + number) for number, version in enumerate(FRESH)}
    with installation_in(
        tmp_path_factory.mktemp("swaps"), artifacts, LEAVEN_TRUSTED_TYPES=TRUSTED, LEAVEN_CHALLENGER_SECONDS="0.5",
        LEAVEN_CHALLENGER_MEMORY_MB="900",
    ) as installation:  # fmt: skip
        installation.publish(champion="1")
        log = installation.settings.home / "gateway.log"
        with gateway_on(installation.settings, workers=2, errors=log) as gateway:
            system = System(installation, gateway, log)
            system.publish(champion="1")
            yield system


def undisturbed(load: Load) -> None:
    """Everybody was answered, and by the champion."""
    assert load.broken == 0
    assert Counter((reply.status, reply.said.get("version")) for reply in load.seen) == {(200, "1"): len(load.seen)}


def goes_on(load: Load, replies: int = 60) -> None:
    asked = len(load.seen)
    wait_until(lambda: len(load.seen) > asked + replies)


@pytest.mark.parametrize("fresh", [4, pytest.param(10, marks=pytest.mark.slow)])
def test_promotions_and_rollbacks_under_load_cost_nobody_an_answer_and_answer_no_wrong_version(
    system: System, fresh: int
):
    """Each of some fresh versions is a canary, is promoted, and is rolled back."""
    system.publish(champion="1")
    took: list[float] = []
    live: list[tuple[float, set[str]]] = [(time.time() - 60, {"1"})]
    with load_on(system.gateway) as load:
        for version in FRESH[:fresh]:
            live.append((time.time(), {"1", version}))
            system.publish(champion="1", canary=version, share=0.3)
            goes_on(load, 10)
            system.publish(champion=version, standby=["1"])
            live.append((time.time(), {version}))
            goes_on(load, 10)
            live.append((time.time(), {"1", version}))
            began = time.monotonic()
            system.publish(champion="1", standby=[version])
            live.append((time.time(), {"1"}))
            took.append(time.monotonic() - began)
    assert min(took) < 3.0  # seen at two workers through the database; the swap itself is less
    assert load.broken == 0
    assert Counter(reply.status for reply in load.seen) == {200: len(load.seen)}
    ends = [at for at, _ in live[1:]] + [float("inf")]
    for reply in load.seen:
        during = [
            versions for (at, versions), end in zip(live, ends, strict=True)
            if at <= reply.ended and reply.began <= end
        ]  # fmt: skip
        assert reply.said["version"] in set().union(*during)
    assert {reply.said["version"] for reply in load.seen} == {"1", *FRESH[:fresh]}


@pytest.mark.parametrize(
    "kind", ["Crashes", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("Hangs", "EatsMemory"))]
)
def test_a_candidate_that_misbehaves_in_the_canary_and_in_the_shadow_costs_nobody_an_answer(system: System, kind: str):
    workers = [worker.pid for worker in system.workers()]
    with load_on(system.gateway) as load:
        for routes in ({"canary": kind, "share": 0.5}, {"shadows": [kind]}):
            system.publish(champion="1", **routes)
            goes_on(load)
        system.publish(champion="1")
    assert [worker.pid for worker in system.workers()] == workers
    if kind == "EatsMemory":  # it answers until it meets its limit
        assert {reply.status for reply in load.seen} == {200}
        assert load.broken == 0
    else:
        undisturbed(load)
        assert any(reply.said["arm"] == "canary" for reply in load.seen)


@pytest.mark.parametrize("kind", ["SlowToLoad", "DiesLoading"])
def test_a_candidate_that_fails_to_load_or_is_slow_to_disturbs_nobody_and_can_be_called_off_at_once(
    system: System, kind: str
):
    system.publish(champion="1")
    with load_on(system.gateway) as load:
        system.installation.publish(champion="1", canary=kind, share=0.5)
        goes_on(load, 20)
        began = time.monotonic()
        system.publish(champion="1")
        assert time.monotonic() - began < 45.0  # although SlowToLoad takes a minute
    undisturbed(load)


def test_a_version_that_dies_loading_never_becomes_the_champion(system: System):
    system.publish(champion="1")
    refused = system.said("version DiesLoading cannot be loaded")
    with load_on(system.gateway) as load:
        system.installation.publish(champion="DiesLoading", standby=["1"])
        wait_until(lambda: system.said("version DiesLoading cannot be loaded") >= refused + 2)
        goes_on(load, 20)
    undisturbed(load)
    system.publish(champion="1")
