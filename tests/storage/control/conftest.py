"""Fresh control databases: of each kind, and of those kinds that several processes can open."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from leaven.storage.control.database import ControlDatabase
from tests.control_databases import database, emptied, migrated, postgres_url

__all__ = ["database", "postgres_url", "shared", "shared_url"]


@pytest.fixture(params=["file", "postgres"])
def shared_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """URL of a database without tables that several processes can open."""
    if request.param == "file":
        return f"sqlite:///{tmp_path / 'control.db'}"
    url: str = request.getfixturevalue("postgres_url")
    emptied(url)
    return url


@pytest.fixture
def shared(shared_url: str) -> Iterator[ControlDatabase]:
    """A database that several processes can open, at `shared_url`."""
    made = migrated(shared_url)
    yield made
    made.dispose()
