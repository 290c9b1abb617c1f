"""What every test may ask for: the data sets outside the repository, the command line, a port nobody uses."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from leaven.settings import calm_threads

# The processes that tests start read Leaven compiled, whatever the shell says: else each start costs a fifth more.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
calm_threads()  # before any test loads a learner's library: several workers share the cores

REPOSITORY = Path(__file__).parent.parent

# A shared machine is slow at times: no deadline per example, and the same examples in every run.
settings.register_profile(
    "leaven", max_examples=30, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow],
    print_blob=False,
)  # fmt: skip
settings.register_profile("slow", settings.get_profile("leaven"), max_examples=500)
settings.load_profile("leaven")


def pytest_configure(config: pytest.Config) -> None:
    if config.option.markexpr == "slow":
        settings.load_profile("slow")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """What is tried on examples is tried on ten times as many in the slow run."""
    if config.option.markexpr == "slow":
        for item in items:
            if getattr(getattr(item, "obj", None), "is_hypothesis_test", False):
                item.add_marker(pytest.mark.slow)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--soak", type=float, default=15.0, metavar="MINUTES", help="how long the soak test lasts")


@pytest.fixture
def soak_minutes(request: pytest.FixtureRequest) -> float:
    """How long the soak test lasts, in minutes."""
    return float(request.config.getoption("--soak"))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of the larger data sets, one folder in it per set; the test is skipped where there is none."""
    named = os.environ.get("LEAVEN_TEST_DATA")
    folder = Path(named) if named else REPOSITORY.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no data sets in {folder}; name their folder in LEAVEN_TEST_DATA")
    return folder


@pytest.fixture(scope="session")
def free_port() -> Callable[[], int]:
    """Return a function that names a TCP port on 127.0.0.1 that nobody listens on, another one each time."""
    named: set[int] = set()

    def find() -> int:
        while True:
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                port = int(probe.getsockname()[1])
            if port not in named:
                named.add(port)
                return port

    return find


Leaven = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def leaven() -> Leaven:
    """Return a function that runs `leaven ARGUMENTS…` as a process of its own and gives back what it said."""

    def run(*arguments: object, seconds: float = 240, **environment: str) -> subprocess.CompletedProcess[str]:
        own = {name: value for name, value in os.environ.items() if not name.startswith("LEAVEN_")}
        return subprocess.run(
            [sys.executable, "-m", "leaven", *map(str, arguments)],
            capture_output=True,
            text=True,
            timeout=seconds,
            env=own | {"COLUMNS": "160", "NO_COLOR": "1", "TERM": "dumb"} | environment,
            check=False,
        )

    return run
