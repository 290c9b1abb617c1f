"""How does a test, or a benchmark, get a running MLServer that serves estimators of scikit-learn?

MLServer lives in an environment of its own, `.venv-mlserver`, which `make mlserver` makes.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

ENVIRONMENT = Path(__file__).parent.parent.parent / ".venv-mlserver"
START_SECONDS = 120.0  # it imports pandas, gRPC and OpenTelemetry; on a busy machine that takes long


@dataclass(frozen=True, slots=True)
class RunningMLServer:
    """An MLServer that is ready: its HTTP port, and the process whose children serve with it."""

    port: int
    process: subprocess.Popen[bytes]

    @property
    def url(self) -> str:
        """Where it answers, without a slash at the end."""
        return f"http://127.0.0.1:{self.port}"


def installed() -> bool:
    """Return whether `make mlserver` was run in this checkout."""
    return (ENVIRONMENT / ".ready").exists()


@contextmanager
def mlserver_with(
    folder: Path, estimators: Mapping[str, Any], *, workers: int = 0, environment: Path = ENVIRONMENT
) -> Iterator[RunningMLServer]:
    """Serve fitted scikit-learn estimators by name, on free ports of 127.0.0.1, until the block ends.

    Args:
        folder: An empty folder for models, settings and `mlserver.log`.
        estimators: By the name under which they are served.
        workers: Processes for inference beside the one that speaks HTTP; 0 infers there. MLServer's default is 1.
        environment: The virtual environment that MLServer is in.
    """
    port = _settle(folder, estimators, workers)
    own = {name: value for name, value in os.environ.items() if not name.startswith(("MLSERVER_", "PYTHONPATH"))}
    log = folder / "mlserver.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [environment / "bin" / "mlserver", "start", folder], stdout=output, stderr=output, cwd=folder, env=own
        )
        try:
            running = RunningMLServer(port, process)
            _wait(running, list(estimators), log)
            yield running
        finally:
            process.terminate()
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _settle(folder: Path, estimators: Mapping[str, Any], workers: int) -> int:
    """Write models and settings; return the port for HTTP."""
    import joblib  # comes with scikit-learn; it is what MLServer's runtime reads

    http, grpc, metrics = _free_ports(3)
    settings = {
        "host": "127.0.0.1", "http_port": http, "grpc_port": grpc, "metrics_port": metrics,
        "parallel_workers": workers, "debug": False, "metrics_dir": str(folder / "metrics"),
        "environments_dir": str(folder / "environments"),
    }  # fmt: skip
    (folder / "metrics").mkdir()
    (folder / "settings.json").write_text(json.dumps(settings))
    for name, estimator in estimators.items():
        own = folder / name
        own.mkdir()
        joblib.dump(estimator, own / "model.joblib")
        about = {
            "name": name,
            "implementation": "mlserver_sklearn.SKLearnModel",
            "parameters": {"uri": "./model.joblib", "version": "1"},
        }
        (own / "model-settings.json").write_text(json.dumps(about))
    return http


def _free_ports(count: int) -> list[int]:
    with ExitStack() as held:
        probes = [held.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [int(probe.getsockname()[1]) for probe in probes]


def _wait(running: RunningMLServer, models: list[str], log: Path) -> None:
    """Wait until every model is ready; its HTTP port stays open even where its worker has died."""
    end = time.monotonic() + START_SECONDS
    while not all(_is_ready(running.port, f"/v2/models/{name}/ready") for name in models):
        if running.process.poll() is not None or time.monotonic() > end:
            raise RuntimeError(f"MLServer does not serve; the end of its log:\n{log.read_text()[-3000:]}")
        time.sleep(0.1)


def _is_ready(port: int, path: str) -> bool:
    connection = HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()
