"""Fixtures: an installation with real models, and a real gateway on it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from leaven.learners.artifact import ModelArtifact
from tests.gateway.installations import (
    FLIGHTS,
    IRIS,
    Installation,
    RunningGateway,
    failing_artifact,
    gateway_on,
    good_artifact,
    installation_in,
    nan_artifact,
)


@pytest.fixture(scope="session")
def artifacts_made() -> dict[str, ModelArtifact]:
    return {
        "1": good_artifact(FLIGHTS, rounds=5),
        "2": good_artifact(FLIGHTS, rounds=15),
        "failing": failing_artifact(FLIGHTS),
        "nan": nan_artifact(FLIGHTS),
        "iris": good_artifact(IRIS),
    }


@pytest.fixture
def installation(tmp_path: Path, artifacts_made: Mapping[str, ModelArtifact]) -> Iterator[Installation]:
    with installation_in(tmp_path, artifacts_made) as made:
        yield made


@pytest.fixture
def gateway(installation: Installation) -> Iterator[RunningGateway]:
    """A gateway of one worker that serves version 1 of flights."""
    installation.publish(champion="1")
    with gateway_on(installation.settings) as running:
        running.until_revision(1)
        yield running
