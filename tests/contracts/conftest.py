"""Each kind of control database, and each kind of lake: what holds of one must hold of the other."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from leaven.storage.control.database import ControlDatabase
from leaven.storage.flusher import Flusher
from leaven.storage.lake import Lake
from leaven.storage.place import Place, place_at
from tests.control_databases import database, migrated, postgres_server, postgres_url
from tests.servers.s3 import S3Server, s3

__all__ = ["database", "postgres_server", "postgres_url"]


@pytest.fixture(params=["file", "postgres"])
def shared_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """URL of a database without tables that several processes can open."""
    if request.param == "file":
        return f"sqlite:///{tmp_path / 'control.db'}"
    url: str = request.getfixturevalue("postgres_url")
    return url


@pytest.fixture
def shared(shared_url: str) -> Iterator[ControlDatabase]:
    """A database that several processes can open, at `shared_url`."""
    made = migrated(shared_url)
    yield made
    made.dispose()


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    with s3() as server:
        yield server


@pytest.fixture
def bucket(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> str:
    """URL of an empty bucket; the environment says how to reach it."""
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    return s3_server.bucket()


@dataclass
class LakeAt:
    """Where a lake is, with a write-ahead log beside it."""

    folder: Path
    location: str

    def open(self, name: str = "one", **other: str) -> Lake:
        """Open it as another process, or machine, called `name` does."""
        return Lake(self.location, memory="400MB", scratch=self.folder / "scratch" / name, **other)

    def flusher(self, **other: object) -> Flusher:
        return Flusher(self.folder / "wal", self.open(), **other)

    def table(self, name: str = "predictions") -> Place:
        place = place_at(self.location, setting="test", scratch=self.folder / "scratch" / "look", megabytes=100)
        return place.at("flights", name)


@pytest.fixture(params=["folder", "bucket"])
def lake_at(request: pytest.FixtureRequest, tmp_path: Path) -> LakeAt:
    if request.param == "folder":
        return LakeAt(tmp_path, str(tmp_path / "lake"))
    return LakeAt(tmp_path, f"{request.getfixturevalue('bucket')}/some/lake")
