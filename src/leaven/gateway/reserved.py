"""How is a port kept for processes that each listen on it themselves?"""

from __future__ import annotations

import socket


def reserve(host: str, port: int) -> socket.socket:
    """Return a socket that holds `host`:`port` (0: any free one) without taking connections.

    While it is open, processes of the same user may listen there with SO_REUSEPORT, and nobody else may.

    Raises:
        OSError: somebody else listens there, or the address is not of this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:  # without SO_REUSEPORT: is the port free at all?
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((host, port))
        port = int(probe.getsockname()[1])
    held = socket.socket(family, socket.SOCK_STREAM)
    try:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        held.bind((host, port))
    except OSError:
        held.close()
        raise
    return held


def address_of(held: socket.socket) -> str:
    """Return `host:port` of a socket, as URLs write it."""
    host, port = held.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
