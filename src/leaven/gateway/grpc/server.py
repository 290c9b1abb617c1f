"""How does a gateway worker listen for gRPC, and how does it stop?

Every worker listens on the port itself (SO_REUSEPORT): the system hands each new connection to one of them. The
supervisor holds the port, without listening, for as long as it lives.
"""

from __future__ import annotations

import logging
import time
from pathlib import Path

import grpc

from leaven.gateway.grpc.service import Service
from leaven.gateway.tls import BadCertificate, checked_pair

logger = logging.getLogger(__name__)

MAX_MESSAGE = 16 * 2**20  # bytes
_AT_ONCE = 256  # calls under way in a worker; what they send may take MAX_MESSAGE each

_OPTIONS = [
    ("grpc.so_reuseport", 1),
    ("grpc.max_receive_message_length", MAX_MESSAGE),
    ("grpc.max_send_message_length", MAX_MESSAGE),
    ("grpc.max_concurrent_streams", _AT_ONCE),
    ("grpc.max_metadata_size", 16 * 1024),
    ("grpc.server_handshake_timeout_ms", 10_000),
    ("grpc.max_connection_idle_ms", 600_000),
]


class Listening:
    """A gRPC server beside the HTTP one, on the same event loop."""

    def __init__(self, service: Service, address: str, *, cert: Path | None = None, key: Path | None = None) -> None:
        """Make a server at `address`, `host:port`; with a certificate and its key, PEM files, it speaks TLS."""
        self._service, self._address = service, address
        self._pair = None if cert is None or key is None else (cert, key)
        self._server: grpc.aio.Server | None = None

    async def start(self) -> None:
        """Take calls.

        Raises:
            RuntimeError: the address cannot be listened on.
        """
        server = grpc.aio.server(options=_OPTIONS, maximum_concurrent_rpcs=_AT_ONCE)
        server.add_generic_rpc_handlers((self._service.handler(),))
        if self._pair is None:
            server.add_insecure_port(self._address)
        else:
            server.add_secure_port(self._address, _credentials(*self._pair))
        await server.start()
        self._server = server

    async def stop(self, seconds: float) -> None:
        """Take no more calls, and give those under way so many seconds."""
        if self._server is not None:
            await self._server.stop(seconds)


def _credentials(cert: Path, key: Path) -> grpc.ServerCredentials:
    """What is shown to callers; a pair that is renewed on the disk is taken with the next connection."""
    shown = (key.read_bytes(), cert.read_bytes())

    def renewed() -> grpc.ServerCertificateConfiguration | None:
        nonlocal shown
        try:
            now = (key.read_bytes(), cert.read_bytes())
            if now == shown:
                return None
            checked_pair(cert, key, now=time.time())
        except (OSError, BadCertificate):  # half-written perhaps; the HTTP side says so
            return None
        shown = now
        return grpc.ssl_server_certificate_configuration([now])

    return grpc.dynamic_ssl_server_credentials(grpc.ssl_server_certificate_configuration([shown]), renewed)
