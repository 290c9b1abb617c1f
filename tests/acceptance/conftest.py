"""Fixtures: the undisturbed run that others are compared with, and installations that begin somewhere in it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol

import pytest

from tests.acceptance.stories import Story, tell
from tests.acceptance.worlds import World, a_world, once
from tests.contracts.conftest import bucket, s3_server
from tests.control_databases import postgres_server
from tests.servers.postgres import PostgresServer

__all__ = ["bucket", "postgres_server", "s3_server"]


@pytest.fixture(scope="session")
def story(tmp_path_factory: pytest.TempPathFactory) -> Story:
    """One whole life of the shop, undisturbed; told once for all processes of a test run."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base) / "shop-story"
    with once(folder) as first:
        if first:
            tell(folder)
    return Story(folder)


class Worlds(Protocol):
    def __call__(self, *, at: str | float = 6.0, on: str = "sqlite", given: dict[str, str] | None = None,
                 **loop: str) -> World:  # fmt: skip
        """An installation at a named moment of the story, or, with a number of days, one that has only history.

        `on` is the kind of its control database; `given` are settings that are not the defaults.
        """


@pytest.fixture
def world(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Worlds]:
    with ExitStack() as closing:

        def begin(
            *, at: str | float = 6.0, on: str = "sqlite", given: dict[str, str] | None = None, **loop: str
        ) -> World:
            if on == "postgres":
                server: PostgresServer = request.getfixturevalue("postgres_server")
                server.empty()
            if isinstance(at, str):
                found: Story = request.getfixturevalue("story")
                made = found.begin(at, tmp_path / "home", postgres=server if on == "postgres" else None)
                closing.callback(made.close)
                return made
            named = {"LEAVEN_DATABASE": server.url} if on == "postgres" else {}
            return closing.enter_context(a_world(tmp_path, at=at, given=named | (given or {}), **loop))

        yield begin
