"""Which parts is one gateway process made of?

Run by the supervisor as `python -m leaven.cli.gateway_worker SOCKET`, with its settings on standard input. The control
database's library is loaded by the thread that watches for routing tables, a learner's library when a model needs it.
"""

from __future__ import annotations

import logging
import os
import socket
import sys
import threading
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, Literal, cast

from leaven import __version__
from leaven.cli.opening import opener_for
from leaven.clock import Clock, clock_from
from leaven.experiments.routing import RoutingTable
from leaven.gateway.access import Access, asks_for_tokens
from leaven.gateway.app import Gateway
from leaven.gateway.connection import Bounds
from leaven.gateway.counters import Counters
from leaven.gateway.endpoint import close_endpoints
from leaven.gateway.handover import decode_settings
from leaven.gateway.http import Limits
from leaven.gateway.metrics import SharedFacts
from leaven.gateway.models import ModelHost
from leaven.gateway.notes import Notes
from leaven.gateway.predicting import Predicting
from leaven.gateway.repository import Repository
from leaven.gateway.serving import Chance
from leaven.gateway.shadow import Shadows
from leaven.gateway.tls import Certificate
from leaven.gateway.token_watch import TokenWatch
from leaven.gateway.watch import TableWatch
from leaven.gateway.withdrawals import Withdrawals
from leaven.gateway.worker import Beside, serve
from leaven.logs import begin_logging
from leaven.runfile import announced
from leaven.settings import Settings, calm_grpc, calm_threads, open_files
from leaven.storage.wal import WriteAheadLog
from leaven.storage.writers import backlog, watermark

if TYPE_CHECKING:
    from leaven.integrations.opentelemetry import Traced
    from leaven.storage.control.database import ControlDatabase
    from leaven.tokens import TokenSet

logger = logging.getLogger(__name__)

_FIRST_LOOK_SECONDS = 60.0  # after which a worker answers even so, to say that it is not ready


class RegistryTables:
    """The registry as a source of tables; loads the database's library when it is first asked."""

    def __init__(self, url: str, gateway: str, *, started_at: int) -> None:
        self._url, self._gateway, self._started_at = url, gateway, started_at

    @cached_property
    def _database(self) -> ControlDatabase:
        from leaven.storage.control.database import ControlDatabase

        return ControlDatabase(self._url)

    def newer(self, known: Mapping[str, int]) -> list[RoutingTable]:
        """Return the newest table of every loop whose revision is above the known one."""
        from leaven.registry.routing import newer_tables

        return newer_tables(self._database, known)

    def report(self, revisions: Mapping[str, int]) -> None:
        """Say that this gateway is alive and runs tables of these revisions."""
        from leaven.registry.routing import report

        now, host, pid = _wall_micros(), socket.gethostname(), os.getpid()
        report(self._database, self._gateway, revisions, host=host, pid=pid, started_at=self._started_at, seen_at=now)

    def tokens(self, known: int | None) -> TokenSet | None:
        """Return the present tokens, or None where they are the known ones."""
        from leaven.registry.tokens import newer

        return newer(self._database, known)

    def used(self, ids: Iterable[str], day: date) -> None:
        """Note that these tokens were let through on that day."""
        from leaven.registry.tokens import used

        with self._database.write() as connection:
            used(connection, ids, day=day)

    def leave(self) -> None:
        """Take the report back."""
        from leaven.registry.routing import leave

        leave(self._database, self._gateway)
        self._database.dispose()


def run_worker(
    settings: Settings, listening: socket.socket, *, grpc: str | None = None, parent: int | None = None
) -> None:
    """Serve on a socket that listens already, until told to stop; then close the event log.

    Args:
        settings: Where things are kept.
        listening: A bound socket, shared with other workers.
        grpc: Where to listen for gRPC beside it, as `host:port`.
        parent: Descriptor of a pipe whose end means that the supervisor is gone.
    """
    durability = cast(Literal["fsync", "os"], settings.durability)
    clock = clock_from(settings.clock)
    log = WriteAheadLog(settings.wal, clock=clock, durability=durability, seal_seconds=settings.seal_seconds)
    threads = ThreadPoolExecutor(2, thread_name_prefix="long-calls")
    host = ModelHost(opener_for(settings, timer=time.perf_counter, clock=_wall_micros, threads=threads))
    shadows = Shadows(log, timer=time.perf_counter)
    access = Access(required=asks_for_tokens(settings, listening.getsockname()), now=_wall_micros)
    shared, behind = SharedFacts(settings.run / "workers", log.writer), dict[str, float]()
    withdrawals = Withdrawals(settings.run / "withdrawn")
    watch = _watch(host, settings, access, log.writer, withdrawals)
    repository = Repository(host, watch, withdrawals, now=_wall_micros)
    counters = Counters(worker=log.writer, log=log.counters, trouble=lambda: log.trouble)
    predicting = _predicting(settings, host, shadows, log, clock, counters, shared)
    gateway = _gateway(settings, host, shadows, predicting, counters, access, repository, shared, behind)
    traced = _traced(gateway, settings, log.writer)
    beside = None if grpc is None else _grpc_at(grpc, gateway, predicting, repository, counters, access, settings)
    stop, looked = threading.Event(), threading.Event()
    watching = threading.Thread(
        target=watch.run, args=(stop,), kwargs={"looked": looked.set, "ready": gateway.begin}, name="tables"
    )
    telling = threading.Thread(
        target=shared.run, args=(stop, lambda: _told(gateway, behind, settings, clock)), name="facts", daemon=True
    )
    watching.start()
    telling.start()
    try:
        # The socket is shared: a worker that took connections before it has its models would refuse what others serve.
        looked.wait(_FIRST_LOOK_SECONDS)
        serve(
            gateway,
            listening,
            last=partial(_end, shadows, host),
            bounds=_bounds(),
            wrapped=traced,
            certificate=_certificate(settings),
            beside=beside,
            parent=parent,
        )
    finally:
        if traced is not None:
            traced.close()
        stop.set()
        watching.join(5.0)
        telling.join(5.0)
        log.close()
        logger.info("stopped; %s", log.counters())


def _predicting(
    settings: Settings,
    host: ModelHost,
    shadows: Shadows,
    log: WriteAheadLog,
    clock: Clock,
    counters: Counters,
    shared: SharedFacts,
) -> Predicting:
    """The core that every protocol asks."""
    chance = Chance(new_id=lambda: os.urandom(16).hex(), timer=time.perf_counter)
    predicting = Predicting(
        host.serving, log, shadows, clock=clock, chance=chance, counters=counters,
        log_first=settings.log_before_reply, withdrawn=host.withdrawn,
    )  # fmt: skip
    predicting.statistics.others = shared.others
    return predicting


def _gateway(
    settings: Settings,
    host: ModelHost,
    shadows: Shadows,
    predicting: Predicting,
    counters: Counters,
    access: Access,
    repository: Repository,
    shared: SharedFacts,
    behind: dict[str, float],
) -> Gateway:
    """The application that speaks HTTP."""
    return Gateway(
        host, predicting, shadows, counters=counters, version=__version__, limits=Limits(), access=access,
        notes=Notes(slow=settings.slow_seconds, timer=time.perf_counter), others=shared.others, behind=behind.copy,
        repository=repository,
    )  # fmt: skip


async def _end(shadows: Shadows, host: ModelHost) -> None:
    await shadows.stop()
    close_endpoints(host.serving)


def _watch(host: ModelHost, settings: Settings, access: Access, gateway: str, withdrawals: Withdrawals) -> TableWatch:
    """What brings routing tables to `host`, and tokens to `access` where these are asked for."""
    source = RegistryTables(settings.database, gateway, started_at=_wall_micros())
    tokens = TokenWatch(access, source, cache=settings.run / "tokens.json")
    if access.required:
        tokens.restore()
    return TableWatch(
        host,
        source,
        cache=settings.run / "tables",
        timer=time.monotonic,
        beside=tokens.look if access.required else lambda: None,
        withdrawals=withdrawals,
    )


def _certificate(settings: Settings) -> Certificate | None:
    if settings.tls_cert is None or settings.tls_key is None:
        return None
    return Certificate(settings.tls_cert, settings.tls_key, now=time.time)


def _traced(gateway: Gateway, settings: Settings, worker: str) -> Traced | None:
    """The gateway with each request in a span, where the settings ask for that."""
    if settings.traces == "off":
        return None
    from leaven.integrations.opentelemetry import Traced

    return Traced(gateway, exporter=cast(Literal["otlp", "console"], settings.traces), version=__version__,
                  instance=worker)  # fmt: skip


def _told(gateway: Gateway, behind: dict[str, float], settings: Settings, clock: Clock) -> dict[str, Any]:
    """What this worker says of itself, with how far the lake is behind the log."""
    now = clock.now()
    behind["log_backlog_bytes"] = backlog(settings.wal).bytes
    behind["log_lag_seconds"] = (now - watermark(settings.wal, now)).total_seconds()
    return gateway.status()


def _grpc_at(
    address: str,
    gateway: Gateway,
    predicting: Predicting,
    repository: Repository,
    counters: Counters,
    access: Access,
    settings: Settings,
) -> Beside:
    """A gRPC server in front of the same core, with the same tokens and the same certificate."""
    from leaven.gateway.grpc.server import Listening
    from leaven.gateway.grpc.service import Service

    service = Service(
        predicting, repository, counters=counters, version=__version__, ready=lambda: gateway.ready,
        admit=access.check,
    )  # fmt: skip
    return Listening(service, address, cert=settings.tls_cert, key=settings.tls_key)


def _bounds() -> Bounds:
    """As many connections as there may be open files, beside those of the log and the models."""
    return Bounds(connections=max(64, min(Bounds().connections, open_files() - 256)))


def _wall_micros() -> int:
    return time.time_ns() // 1000


def _read_line(descriptor: int) -> bytes:
    """One line, byte by byte: nothing behind it must be lost in a buffer, for its end is waited for later."""
    line = b""
    while not line.endswith(b"\n") and (byte := os.read(descriptor, 1)):
        line += byte
    return line


def main() -> None:
    """Serve on the socket whose descriptor is the last argument; `--grpc HOST:PORT` may stand before it."""
    calm_threads(1)
    calm_grpc()
    # A thread that opens a version must not keep the one that serves waiting for the usual five milliseconds.
    sys.setswitchinterval(0.0005)
    listening = socket.socket(fileno=int(sys.argv[-1]))
    pipe = sys.stdin.fileno()
    grpc = sys.argv[sys.argv.index("--grpc") + 1] if "--grpc" in sys.argv else None
    settings = decode_settings(_read_line(pipe))
    begin_logging("gateway", form=settings.log, level=settings.log_level)
    # Callers could fill the log with their warnings; those refusals are counted.
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
    with announced(settings.run, "gateway worker", at=_wall_micros()):
        run_worker(settings, listening, grpc=grpc, parent=pipe)


if __name__ == "__main__":
    main()
