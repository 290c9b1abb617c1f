"""How do several gateway processes share one port, and what happens when one of them dies?

The supervisor binds and listens once and hands the socket to every worker, so a worker's death closes its own
connections and nothing else: new ones wait in the socket's queue for whoever takes them. The dead one is replaced.
"""

from __future__ import annotations

import socket
import subprocess
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from leaven.errors import LeavenError

BACKLOG = 2048
_HEALTHY_SECONDS = 5.0  # a worker that lived as long is replaced at once
_LONGEST_PAUSE = 5.0


class PortTaken(LeavenError, OSError):
    """The gateway cannot listen where it was told to."""

    def __init__(self, host: str, port: int, why: str) -> None:
        super().__init__(host, port, why)
        self.host, self.port, self.why = host, port, why

    def __str__(self) -> str:
        return (
            f"cannot listen on {self.host}:{self.port}: {self.why}. Choose another with --port; 0 takes any free one."
        )


@dataclass(slots=True)
class _Worker:
    number: int
    process: subprocess.Popen[bytes]
    started: float
    deaths: int = 0  # in a row, each soon after the start
    again_at: float | None = None  # when it is to be started anew, while it is down


class Supervisor:
    """Keeps a number of worker processes serving one socket.

    Every worker is `[*command, descriptor of the socket]` and gets `first_line` on its standard input, which stays open
    for as long as the supervisor lives.
    """

    def __init__(
        self,
        command: Sequence[str],
        first_line: bytes,
        *,
        host: str,
        port: int,
        workers: int,
        timer: Callable[[], float],
        say: Callable[[str], None],
        tls: bool = False,
    ) -> None:
        """Bind `host`:`port` (0: any free port); workers start with `start`, and speak `tls` or plain HTTP.

        Raises:
            OSError: the address cannot be bound.
        """
        self._command, self._first_line, self._count = command, first_line, workers
        self._timer, self._say, self._tls = timer, say, tls
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._socket = socket.create_server((host, port), family=family, backlog=BACKLOG)
        self._workers: list[_Worker] = []

    @property
    def address(self) -> tuple[str, int]:
        """Host and port that are bound."""
        host, port = self._socket.getsockname()[:2]
        return str(host), int(port)

    @property
    def pids(self) -> list[int]:
        """Process ids of the workers that run now."""
        return [worker.process.pid for worker in self._workers if worker.process.poll() is None]

    def start(self) -> None:
        """Start the workers."""
        self._workers = [_Worker(number, self._spawn(), self._timer()) for number in range(self._count)]

    def check(self) -> None:
        """Replace workers that have died, those that die again and again after a growing pause; say so."""
        now = self._timer()
        for worker in self._workers:
            if worker.again_at is None and worker.process.poll() is not None:
                _close_pipe(worker.process)
                worker.deaths = 0 if now - worker.started > _HEALTHY_SECONDS else worker.deaths + 1
                pause = 0.0 if worker.deaths < 2 else min(0.1 * 2**worker.deaths, _LONGEST_PAUSE)
                worker.again_at = now + pause
                self._say(f"gateway worker {worker.number} (pid {worker.process.pid}) {_ended(worker.process)}")
            if worker.again_at is not None and now >= worker.again_at:
                worker.process, worker.started, worker.again_at = self._spawn(), now, None
                self._say(f"gateway worker {worker.number} started again as pid {worker.process.pid}")

    def run(self, stop: threading.Event, *, every: float = 0.05) -> None:
        """Start the workers and replace the dead until `stop` is set, then stop them all."""
        self.start()
        try:
            while not stop.wait(every):
                self.check()
        finally:
            self.stop()

    def stop(self, *, seconds: float = 15.0) -> None:
        """Tell every worker to stop, wait for them at most `seconds` together, kill what is left; free the port."""
        self._socket.close()
        for worker in self._workers:
            if worker.process.poll() is None:
                worker.process.terminate()
        deadline = self._timer() + seconds
        for worker in self._workers:
            try:
                worker.process.wait(max(deadline - self._timer(), 0.1))
            except subprocess.TimeoutExpired:
                self._say(f"gateway worker {worker.number} (pid {worker.process.pid}) does not stop; it is killed")
                worker.process.kill()
                worker.process.wait()
            _close_pipe(worker.process)

    def ready(self) -> bool:
        """Return whether a worker answers that it is ready."""
        # With what it takes along, 3 MB that few supervisors need.
        from http.client import HTTPConnection, HTTPException, HTTPSConnection

        from leaven.gateway.tls import plain_context

        host, port = self.address
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104
        connection = (
            HTTPSConnection(host, port, timeout=2, context=plain_context())
            if self._tls
            else HTTPConnection(host, port, timeout=2)
        )
        try:
            connection.request("GET", "/v2/health/ready")
            return connection.getresponse().status == 200
        except (OSError, HTTPException):
            return False
        finally:
            connection.close()

    def _spawn(self) -> subprocess.Popen[bytes]:
        handle = self._socket.fileno()
        process = subprocess.Popen([*self._command, str(handle)], stdin=subprocess.PIPE, pass_fds=(handle,))
        assert process.stdin is not None
        try:
            process.stdin.write(self._first_line + b"\n")
            process.stdin.flush()
        except BrokenPipeError:
            self._say(f"gateway worker (pid {process.pid}) died before it began")
        return process


def _close_pipe(process: subprocess.Popen[bytes]) -> None:
    if process.stdin is not None and not process.stdin.closed:
        try:
            process.stdin.close()
        except BrokenPipeError:
            return  # it died with the first line unread


def _ended(process: subprocess.Popen[bytes]) -> str:
    code = process.returncode
    return f"was ended by signal {-code}" if code < 0 else f"ended with code {code}"
