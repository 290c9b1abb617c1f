"""Leaven keeps a production model fresh and proves every update in production before people depend on it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from leaven.client import AsyncClient as AsyncClient
    from leaven.client import Client as Client
    from leaven.events import Happens as Happens
    from leaven.events import Label as Label
    from leaven.loop import Feature as Feature
    from leaven.loop import Loop as Loop

__version__ = "0.1.0"
__all__ = ["AsyncClient", "Client", "Feature", "Happens", "Label", "Loop", "__version__"]

_HOME = {
    "AsyncClient": "leaven.client",
    "Client": "leaven.client",
    "Feature": "leaven.loop",
    "Happens": "leaven.events",
    "Label": "leaven.events",
    "Loop": "leaven.loop",
}


def __getattr__(name: str) -> object:
    """Import a public name when it is first asked for: commands and gateways that need none start sooner."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
