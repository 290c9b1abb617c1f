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
    def __call__(self, *, at: str | float = 6.0, **loop: str) -> World:
        """An installation at a named moment of the story, or, with a number of days, one that has only history."""


@pytest.fixture
def world(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Worlds]:
    with ExitStack() as closing:

        def begin(*, at: str | float = 6.0, **loop: str) -> World:
            if isinstance(at, str):
                found: Story = request.getfixturevalue("story")
                made = found.begin(at, tmp_path / "home")
                closing.callback(made.close)
                return made
            return closing.enter_context(a_world(tmp_path, at=at, **loop))

        yield begin
