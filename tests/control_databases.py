"""Control databases to test against: in memory, in a file, and a PostgreSQL server of the test's own."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import Connection

from leaven import Feature, Label, Loop
from leaven.curation import AllHistory
from leaven.registry import loops, versions
from leaven.storage.control.database import ControlDatabase
from leaven.training import Stateless


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


@contextmanager
def postgres() -> Iterator[str]:
    """Run a PostgreSQL server with an empty database and give its URL; skips where no server is installed."""
    programs = [
        folder for folder in sorted(Path("/usr/lib/postgresql").glob("*/bin")) if (folder / "postgres").exists()
    ]
    found = shutil.which("initdb")
    if not programs and found is None:
        pytest.skip("no PostgreSQL server programs are installed")
    where = programs[-1] if programs else Path(found).parent
    user = "postgres" if os.geteuid() == 0 else None  # the server refuses to run as root
    folder = Path(tempfile.mkdtemp(prefix="leaven-postgres-"))
    if user:
        shutil.chown(folder, user)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    options = {"user": user, "cwd": folder, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    init = [where / "initdb", "-D", folder / "data", "-A", "trust", "-U", "leaven", "--no-sync"]
    subprocess.run(init, check=True, **options)
    serve = ["-p", str(port), "-c", "listen_addresses=127.0.0.1", "-c", f"unix_socket_directories={folder}"]
    server = subprocess.Popen([where / "postgres", "-D", folder / "data", *serve, "-c", "fsync=off"], **options)
    try:
        _wait_for(f"postgresql://leaven@127.0.0.1:{port}/postgres")
        yield f"postgresql+psycopg://leaven@127.0.0.1:{port}/postgres"
    finally:
        server.send_signal(signal.SIGQUIT)
        server.wait(20)
        shutil.rmtree(folder)


def _server_programs() -> Path:
    found = shutil.which("initdb")
    if found is None:
        pytest.skip("no PostgreSQL server programs are installed")
    return Path(found).resolve().parent  # a link on the path may stand without what the server looks for beside it


def _wait_for(url: str) -> None:
    import psycopg

    end = time.monotonic() + 30
    while True:
        try:
            psycopg.connect(url).close()
        except psycopg.OperationalError:
            if time.monotonic() > end:
                raise
            time.sleep(0.05)
        else:
            return


def emptied(url: str) -> None:
    """Drop everything in a PostgreSQL database."""
    import psycopg

    with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as connection:
        connection.execute("DROP SCHEMA public CASCADE")
        connection.execute("CREATE SCHEMA public")


def migrated(url: str) -> ControlDatabase:
    database = ControlDatabase(url)
    database.migrate()
    return database


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    with postgres() as url:
        yield url


@pytest.fixture(params=["memory", "file", "postgres"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ControlDatabase]:
    if request.param == "postgres":
        url = request.getfixturevalue("postgres_url")
        emptied(url)
    else:
        url = "sqlite://" if request.param == "memory" else f"sqlite:///{tmp_path / 'control.db'}"
    made = migrated(url)
    yield made
    made.dispose()
