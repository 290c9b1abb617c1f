"""Other servers that serve the very models that the gateway serves: each a context that gives a `Server`."""

from __future__ import annotations

import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec

from benchmarks.installation import NUMBERS, Installation, open_inference_requests
from benchmarks.load import Server, wait_for
from tests.mlserver.serving import ENVIRONMENT, mlserver_with

_HERE = Path(__file__).parent


@contextmanager
def bare(made: Installation, model: str) -> Iterator[Server]:
    """ASGI and msgspec, and nothing else."""
    file = made.booster if model == "trees" else made.estimator
    command = [sys.executable, str(_HERE / "bare.py"), "SOCKET", model, str(file)]
    with _on_a_socket(command, "/", open_inference_requests()) as server:
        yield server


@contextmanager
def bare_direct(made: Installation, model: str) -> Iterator[Server]:
    """The same, with the model as Leaven asks it."""
    command = [sys.executable, str(_HERE / "bare.py"), "SOCKET", "direct", str(made.own(model))]
    with _on_a_socket(command, "/", open_inference_requests()) as server:
        yield server


@contextmanager
def fastapi(made: Installation, model: str) -> Iterator[Server]:
    """FastAPI and pydantic; only for the pipeline."""
    assert model == "pipeline"
    row = {"unit": "N12345", "carrier": "AA"} | {name: index + 0.5 for index, name in enumerate(NUMBERS)}
    command = [str(ENVIRONMENT / "bin" / "python"), str(_HERE / "fastapi_app.py"), "SOCKET", str(made.estimator)]
    with _on_a_socket(command, "/predict", [msgspec.json.encode(row)]) as server:
        yield server


@contextmanager
def mlserver(made: Installation, model: str, *, workers: int) -> Iterator[Server]:
    """MLServer, which is sent one matrix, its category encoded already; only for the pipeline."""
    import joblib

    assert model == "pipeline"
    matrix = {"name": "rows", "shape": [1, 10], "datatype": "FP64", "data": [0.0, *(i + 0.5 for i in range(9))]}
    body = msgspec.json.encode({"inputs": [matrix], "outputs": [{"name": "predict_proba"}]})
    with (
        tempfile.TemporaryDirectory() as folder,
        mlserver_with(Path(folder), {"pipeline": joblib.load(made.estimator)}, workers=workers) as running,
    ):
        yield Server(running.port, running.process.pid, "/v2/models/pipeline/infer", [body])


@contextmanager
def _on_a_socket(command: Sequence[str], path: str, bodies: Sequence[bytes]) -> Iterator[Server]:
    """A program that is handed a listening socket, whose descriptor stands for SOCKET in `command`."""
    with socket.create_server(("127.0.0.1", 0), backlog=2048) as listening:
        handle = listening.fileno()
        given = [str(handle) if word == "SOCKET" else word for word in command]
        process = subprocess.Popen(given, pass_fds=(handle,))
        try:
            server = Server(listening.getsockname()[1], process.pid, path, bodies)
            wait_for(server)
            yield server
        finally:
            process.terminate()
            process.wait(20)
