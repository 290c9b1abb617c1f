"""How does one gateway process begin to serve, and how does it stop without losing anything?

It ends on SIGTERM, on SIGINT, and when its supervisor is gone: first it says that it is not ready, takes no more
connections and closes each that is open with its next reply, then those that are idle; last the event log is closed by
whoever opened it.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Protocol

import uvicorn

from leaven.gateway.app import Gateway
from leaven.gateway.connection import Bounds, Connection, Watch
from leaven.gateway.http import Receive, Scope, Send
from leaven.gateway.tls import Certificate

logger = logging.getLogger(__name__)

App = Callable[[Scope, Receive, Send], Awaitable[None]]


class Beside(Protocol):
    """A server of another protocol on the same event loop."""

    async def start(self) -> None:
        """Take calls."""
        ...

    async def stop(self, seconds: float) -> None:
        """Take no more calls, and give those under way so many seconds."""
        ...


def serve(
    gateway: Gateway,
    listening: socket.socket,
    *,
    last: Callable[[], Awaitable[None]],
    bounds: Bounds,
    wrapped: App | None = None,
    certificate: Certificate | None = None,
    beside: Beside | None = None,
    linger: float = 0.3,
    grace: int = 10,
    parent: int | None = None,
) -> None:
    """Serve `gateway` on a socket that listens already, until told to stop.

    Args:
        gateway: What answers.
        listening: A bound socket, shared with other workers; this process's copy is closed at the end.
        last: Done once every request has been answered.
        bounds: Of each connection.
        beside: Serves another protocol meanwhile.
        wrapped: The gateway as it is to be called, where something stands around it.
        certificate: What is shown to callers, who then speak TLS; None for plain HTTP.
        linger: Seconds in which open connections get to their next reply, before idle ones are closed.
        grace: Seconds that requests under way may still take after that.
        parent: Descriptor of a pipe that the supervisor holds open: its end means that the supervisor is gone.
    """
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(
            _serve(gateway, wrapped or gateway, listening, certificate, last, bounds, beside, linger, grace, parent)
        )


async def _serve(
    gateway: Gateway,
    app: App,
    listening: socket.socket,
    certificate: Certificate | None,
    last: Callable[[], Awaitable[None]],
    bounds: Bounds,
    beside: Beside | None,
    linger: float,
    grace: int,
    parent: int | None,
) -> None:
    connection: Any = partial(Connection, bounds=bounds, watch=Watch(), refused=gateway.note_refusal)
    config = uvicorn.Config(
        app,
        http=connection,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=int(bounds.idle_seconds),
        timeout_graceful_shutdown=grace,
    )
    if certificate is not None:
        config.load()
        config.ssl = certificate.context  # ours, so that it can take a renewed certificate
    server = _Server(config)
    told = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told.set)
    if parent is not None:
        loop.add_reader(parent, _ends(parent, told.set, loop))
    if beside is not None:
        await beside.start()
    serving = asyncio.create_task(server.serve(sockets=[listening]))
    stopping = asyncio.create_task(told.wait())
    renewing = None if certificate is None else asyncio.create_task(certificate.watch())
    await asyncio.wait((serving, stopping), return_when=asyncio.FIRST_COMPLETED)
    gateway.drain()
    for taking in server.servers:
        taking.close()  # other workers take the new connections; those open here go on
    await asyncio.sleep(linger)
    server.should_exit = True
    await asyncio.gather(serving, *([beside.stop(grace)] if beside is not None else []))
    stopping.cancel()
    if renewing is not None:
        renewing.cancel()
    await last()


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers, which end the process before the event log is closed."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _ends(pipe: int, tell: Callable[[], None], loop: asyncio.AbstractEventLoop) -> Callable[[], None]:
    """What to do when the supervisor's pipe can be read: at its end, tell."""

    def read() -> None:
        if not os.read(pipe, 4096):
            loop.remove_reader(pipe)
            logger.info("the supervisor is gone, stopping")
            tell()

    return read


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    try:
        import uvloop
    except ImportError:  # on systems that it does not support
        return asyncio.new_event_loop
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory
