"""`leaven gateway`: answer predictions and take feedback over HTTP."""

from __future__ import annotations

import logging
import socket
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from typing import Annotated

import typer

from leaven.cli.listening import TlsCert, TlsKey, say_who_may, with_certificate
from leaven.cli.output import AsJson, Home, emit
from leaven.cli.running import told_to_stop
from leaven.clock import SystemClock
from leaven.errors import LeavenError
from leaven.gateway.handover import encode_settings
from leaven.gateway.reserved import address_of, reserve
from leaven.gateway.supervisor import PortTaken, Supervisor
from leaven.runfile import announced
from leaven.settings import Settings, settings_from

app = typer.Typer()

_log = logging.getLogger(__name__)


class GrpcMissing(LeavenError, ImportError):
    """gRPC is asked for, and what it needs is not installed."""

    def __str__(self) -> str:
        return "--grpc-port needs grpcio and protobuf, which are not installed. Run: pip install 'leaven[grpc]'"


def supervisor_for(
    settings: Settings, *, host: str, port: int, workers: int, say: Callable[[str], None], grpc: str | None = None
) -> Supervisor:
    """Return a supervisor of gateway workers, bound to its address and not started yet.

    `grpc` is the address, held already, at which the workers are to listen for gRPC.

    Raises:
        PortTaken: the address cannot be bound.
    """
    command = (sys.executable, "-m", "leaven.cli.gateway_worker", *(("--grpc", grpc) if grpc else ()))
    try:
        return Supervisor(
            command, encode_settings(settings), host=host, port=port, workers=workers, timer=time.monotonic, say=say,
            tls=settings.tls_cert is not None,
        )  # fmt: skip
    except OSError as error:
        raise PortTaken(host, port, error.strerror or str(error)) from error


@app.command()
def gateway(
    home: Home = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 takes any free one.", min=0, max=65535)] = 8080,
    workers: Annotated[int, typer.Option(help="Processes that share the port.", min=1, max=64)] = 1,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    grpc_port: Annotated[
        int | None, typer.Option(help="Listen for gRPC here too; 0 takes any free port.", min=0, max=65535)
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Run the gateway alone: predict and take feedback over HTTP, until Ctrl-C."""
    settings = with_certificate(settings_from(home=home), tls_cert, tls_key)
    settings.home.mkdir(parents=True, exist_ok=True)
    held = None if grpc_port is None else _held(host, grpc_port)
    grpc = None if held is None else address_of(held)
    supervisor = supervisor_for(settings, host=host, port=port, workers=workers, say=_log.warning, grpc=grpc)
    bound, number = supervisor.address
    scheme = "http" if settings.tls_cert is None else "https"
    url = f"{scheme}://[{bound}]:{number}" if ":" in bound else f"{scheme}://{bound}:{number}"
    stop = told_to_stop("gateway", settings)
    say_who_may(settings, (bound, number))
    emit(
        {"url": url, "workers": workers, "home": settings.home} | ({"grpc": grpc} if grpc else {}),
        as_json=as_json,
        human=lambda console: console.print(
            f"gateway at {url}{f', gRPC at {grpc}' if grpc else ''} ({workers} workers), home {settings.home}"
        ),
    )
    with announced(settings.run, "gateway", at=SystemClock().micros(), url=url):
        supervisor.run(stop)
    if held is not None:
        held.close()


def _held(host: str, port: int) -> socket.socket:
    """The port for gRPC, so that nobody else gets it while workers come and go."""
    if find_spec("grpc") is None or find_spec("google.protobuf") is None:
        raise GrpcMissing
    try:
        return reserve(host, port)
    except OSError as error:
        raise PortTaken(host, port, error.strerror or str(error)) from error
