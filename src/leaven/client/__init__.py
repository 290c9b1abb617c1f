"""How does an application ask a gateway, and tell it what came of it?

One pure core (`calls`: what to send, what a reply means, when to try again, what to keep for later) and two thin shells
that carry it out: `Client` on sockets, `AsyncClient` on asyncio. Nothing of the server is imported, nor NumPy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from leaven.client.errors import BadCall, GatewayUnavailable, Refused, SpoolFailed, SpoolFull, UnreadableReply
from leaven.client.replies import Assignment, Prediction
from leaven.client.requests import Report
from leaven.client.sync import Client

if TYPE_CHECKING:
    from leaven.client.asynchronous import AsyncClient as AsyncClient

__all__ = [
    "Assignment",
    "AsyncClient",
    "BadCall",
    "Client",
    "GatewayUnavailable",
    "Prediction",
    "Refused",
    "Report",
    "SpoolFailed",
    "SpoolFull",
    "UnreadableReply",
]


def __getattr__(name: str) -> object:
    """Import asyncio only for those who ask for the asynchronous client."""
    if name != "AsyncClient":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from leaven.client.asynchronous import AsyncClient

    return AsyncClient
