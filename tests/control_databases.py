"""Control databases to test against: in memory, in a file, and a PostgreSQL server of the test's own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Connection

from leaven import Feature, Label, Loop
from leaven.curation import AllHistory
from leaven.registry import loops, versions
from leaven.storage.control.database import ControlDatabase
from leaven.training import Stateless
from tests.servers.postgres import PostgresServer, postgres


def a_loop(name: str = "flights", **changes: object) -> Loop:
    from sklearn.linear_model import LogisticRegression

    from leaven.learners import ScikitLearn

    facts = {
        "features": [Feature("x", "float")],
        "unit": "user",
        "label": Label("y", above=0, within="1h"),
        "learner": ScikitLearn(LogisticRegression()),
        "data": AllHistory(),
        "plan": Stateless(),
    }
    return Loop(name, **(facts | changes))


def a_version(connection: Connection, loop: str = "flights", **changes: object) -> int:
    """Register a version, and its loop where that is new."""
    if loop not in {known.name for known in loops.loops(connection)}:
        loops.put(connection, a_loop(loop), path="loop.py", source="…", at=0)
    facts = {"artifact": "a" * 64, "format": "xgboost", "mode": "fit", "definition_digest": "d", "at": 1}
    return versions.register(connection, loop, **(facts | changes))


def migrated(url: str) -> ControlDatabase:
    database = ControlDatabase(url)
    database.migrate()
    return database


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    with postgres() as server:
        yield server


@pytest.fixture
def postgres_url(postgres_server: PostgresServer) -> str:
    """URL of an empty database."""
    postgres_server.empty()
    return postgres_server.url


@pytest.fixture(params=["memory", "file", "postgres"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ControlDatabase]:
    if request.param == "postgres":
        url = request.getfixturevalue("postgres_url")
    else:
        url = "sqlite://" if request.param == "memory" else f"sqlite:///{tmp_path / 'control.db'}"
    made = migrated(url)
    yield made
    made.dispose()
