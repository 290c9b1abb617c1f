"""`leaven up`: gateway, flusher and controller in one go."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated

import typer

from leaven.app import App
from leaven.cli.listening import TlsCert, TlsKey, with_certificate
from leaven.cli.output import Home, messages
from leaven.cli.running import told_to_stop
from leaven.settings import settings_from
from leaven.system import System

app = typer.Typer()

_log = logging.getLogger(__name__)


@app.command()
def up(
    loop_files: Annotated[list[Path], typer.Argument(help="Loop files, one or more.")],
    host: Annotated[str, typer.Option("--host", help="Where the gateway listens.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", help="The gateway's port; 0 takes a free one.")] = 8080,
    workers: Annotated[int, typer.Option("--workers", help="Gateway processes that share the port.")] = 1,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    grpc_port: Annotated[
        int | None, typer.Option("--grpc-port", help="A port for gRPC as well; 0 takes a free one.")
    ] = None,
    home: Home = None,
) -> None:
    """Run everything: register the loops, start gateway, flusher and controller, keep them running. Ctrl-C stops."""
    installed = App(with_certificate(settings_from(home=home), tls_cert, tls_key))
    loops = [installed.enter(path) for path in loop_files]
    out = messages()
    stop = told_to_stop("up", installed.settings)
    system = System(installed.settings, host=host, port=port, workers=workers, grpc_port=grpc_port, say=_log.warning)
    system.start()
    out.print(f"gateway     {system.url}  (pid {system.pid('gateway')}, {workers} worker{'s' * (workers > 1)})")
    if system.grpc_port is not None:
        out.print(f"gRPC        {host}:{system.grpc_port}")
    out.print(f"flusher     {installed.settings.lake}  (pid {system.pid('flusher')})")
    out.print(f"controller  {installed.database.url}  (pid {system.pid('controller')})")
    for loop in loops:
        if loop.of_parameters:
            out.print(f"loop        {loop.name}: POST {system.url}/v1/assign")
            out.print(f"            its versions are parameters: leaven parameters add {loop.name} FILE.json")
            continue
        out.print(f"loop        {loop.name}: POST {system.url}/v2/models/{loop.name}/infer")
        if installed.source(loop.name).first() is None:
            out.print(
                f"            no events yet; bring history in: leaven events import {loop.name} FILE --time COL, "
                f"then: leaven retrain {loop.name}"
            )
    out.print(f"feedback    POST {system.url}/v1/feedback\nCtrl-C stops.")
    system.run(stop)
    out.print("stopped; every acknowledged event is kept")
