"""How do gateway, flusher and controller run together, and how do they end?

Each part is a process of its own; one that dies is started again, with growing pauses, and it is said. On the way down
the gateway goes first (it drains its requests and closes its log), then the flusher (it empties the log) and the
controller.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from leaven.errors import LeavenError
from leaven.gateway.supervisor import PortTaken
from leaven.gateway.tls import plain_context
from leaven.settings import Settings, environment_for_parts

STOP_SECONDS = 20.0
FIRST_PAUSE, LONGEST_PAUSE = 0.2, 10.0
CALM_SECONDS = 30.0  # after which a part that was started again counts as well


class DidNotStart(LeavenError, RuntimeError):
    """A part of the system did not come up in time."""

    def __init__(self, part: str, seconds: float, log: str) -> None:
        super().__init__(part, seconds, log)
        self.part, self.seconds, self.log = part, seconds, log

    def __str__(self) -> str:
        return f"the {self.part} did not come up within {self.seconds:g} s. See {self.log} for why."


@dataclass
class _Part:
    name: str
    arguments: list[str]
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    pause: float = FIRST_PAUSE
    start_at: float = 0.0


@dataclass
class System:
    """Gateway, flusher and controller of one installation.

    Args:
        settings: Of the installation; its environment is handed on to the parts.
        host: Where the gateway listens.
        port: The port; 0 takes a free one.
        workers: Gateway processes.
        grpc_port: The port for gRPC; None listens for HTTP alone.
        say: Told what happens, a sentence at a time.
        logs: Folder for the parts' logs; None leaves them on stderr.
    """

    settings: Settings
    host: str = "127.0.0.1"
    port: int = 8080
    workers: int = 1
    grpc_port: int | None = None
    say: Callable[[str], None] = lambda sentence: None
    logs: Path | None = None
    parts: list[_Part] = field(default_factory=list)

    @property
    def url(self) -> str:
        """Where the gateway answers."""
        scheme = "http" if self.settings.tls_cert is None else "https"
        return f"{scheme}://{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"

    def start(self, *, within: float = 60.0) -> None:
        """Start every part and wait until the gateway is alive.

        Raises:
            PortTaken: the port cannot be listened on.
            DidNotStart: the gateway does not answer within so many seconds.
        """
        self.port = _free(self.host, self.port)
        gateway = ["gateway", "--host", self.host, "--port", str(self.port), "--workers", str(self.workers)]
        if self.grpc_port is not None:
            self.grpc_port = _free(self.host, self.grpc_port)
            gateway += ["--grpc-port", str(self.grpc_port)]
        self.parts = [_Part("gateway", gateway), _Part("flusher", ["flusher"]), _Part("controller", ["controller"])]
        for part in self.parts:
            self._start(part)
        deadline = time.monotonic() + within
        while not self._alive():
            self.mend()
            if time.monotonic() > deadline:
                self.stop()
                raise DidNotStart("gateway", within, str(self.logs or "the lines above"))
            time.sleep(0.05)

    def run(self, stop: threading.Event) -> None:
        """Keep every part running until told to stop, then end them."""
        try:
            while not stop.wait(0.2):
                self.mend()
        finally:
            self.stop()

    def mend(self) -> None:
        """Start again what has died."""
        now = time.monotonic()
        for part in self.parts:
            if part.process is not None and part.process.poll() is not None:
                part.pause = FIRST_PAUSE if now - part.started > CALM_SECONDS else min(LONGEST_PAUSE, part.pause * 2)
                part.start_at = now + part.pause
                how = _how(part.process.returncode)
                self.say(f"the {part.name} (pid {part.process.pid}) ended with {how}; starting it again")
                part.process = None
            if part.process is None and now >= part.start_at:
                self._start(part)

    def stop(self) -> None:
        """End every part, the gateway first; one that does not end in time is killed, and that is said."""
        gateways = [part for part in self.parts if part.name == "gateway"]
        for group in (gateways, [part for part in self.parts if part.name != "gateway"]):
            for part in group:
                if part.process is not None:
                    with suppress(ProcessLookupError):
                        part.process.send_signal(signal.SIGTERM)
            for part in group:
                self._wait_for(part)

    def _wait_for(self, part: _Part) -> None:
        if part.process is None:
            return
        try:
            part.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.say(f"the {part.name} did not end within {STOP_SECONDS:g} s and is killed")
            part.process.kill()
            part.process.wait()
        part.process = None

    def pid(self, name: str) -> int | None:
        """Return the process id of a part, or None while it is down."""
        return next((part.process.pid for part in self.parts if part.name == name and part.process), None)

    def _start(self, part: _Part) -> None:
        part.started = time.monotonic()
        output = None
        if self.logs is not None:
            self.logs.mkdir(parents=True, exist_ok=True)
            output = (self.logs / f"{part.name}.log").open("ab")
        try:
            part.process = subprocess.Popen(
                [sys.executable, "-m", "leaven", *part.arguments, "--home", str(self.settings.home)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                # A Ctrl-C reaches the whole foreground group: the parts must end in our order, not all at once.
                start_new_session=True,
                env=environment_for_parts(self.settings, parent=os.getpid()),
            )
        finally:
            if output is not None:
                output.close()

    def _alive(self) -> bool:
        try:
            # Our own gateway on this machine, whatever name its certificate is for.
            url = self.url.replace("//0.0.0.0:", "//127.0.0.1:").replace("//[::]:", "//[::1]:")
            context = None if self.settings.tls_cert is None else plain_context()
            with urllib.request.urlopen(f"{url}/v2/health/live", timeout=2, context=context) as reply:  # noqa: S310
                return bool(reply.status == 200)
        except (urllib.error.URLError, OSError):
            return False


def _free(host: str, port: int) -> int:
    """The port itself if it can be listened on now, or a free one for 0."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise PortTaken(host, port, error.strerror or str(error)) from error
        return int(probe.getsockname()[1])


def _how(code: int) -> str:
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
