"""What is a client made of, whichever way it waits?"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from leaven.client.calls import Calls
from leaven.client.errors import BadCall
from leaven.client.requests import Address, address_of, header_text
from leaven.client.retries import Asking, Backoff
from leaven.clock import Clock

if TYPE_CHECKING:
    import ssl

TIMEOUT = 2.0  # seconds
RETRIES = 3
CONNECTIONS = 64
SPOOL_LIMIT = 64 * 2**20  # bytes
IDLE = 60.0  # seconds that a connection is kept; less than the gateway keeps it, so that it is seldom found closed
LOOK_EVERY = 1.0  # seconds between two looks into the spool, which others may have filled
BETWEEN_DELIVERIES = Backoff(base=0.5, cap=5.0)


@dataclass(frozen=True, slots=True)
class Parts:
    """Everything of a client but its connections."""

    address: Address
    tls: ssl.SSLContext | None
    headers: tuple[tuple[str, str], ...]  # of every request
    calls: Calls
    timeout: float

    def end(self, timeout: float | None) -> float:
        """Return the deadline of a call that begins now and may take `timeout` seconds; None for the usual time."""
        seconds = self.timeout if timeout is None else _positive(timeout)
        return self.calls.asking.timer() + seconds


def parts_from(
    url: str,
    *,
    token: str | None,
    timeout: float,
    retries: int,
    spool: Path | str | None,
    spool_limit: int,
    ca: Path | str | ssl.SSLContext | None,
    clock: Clock,
    rng: Callable[[], float],
    timer: Callable[[], float],
) -> Parts:
    """Return the parts of a client; see `leaven.Client` for the arguments.

    Raises:
        BadCall: an argument makes no client.
        SpoolFailed: the spool's folder cannot be written.
    """
    if retries < 0:
        raise BadCall("retries", f"{retries} is negative", "Give 0 for a single attempt.")
    address = address_of(url)
    # Without the last, a proxy would be free to compress.
    headers = [("user-agent", "leaven-client"), ("accept", "application/json"), ("accept-encoding", "identity")]
    if token is not None:
        headers.append(("authorization", f"Bearer {header_text(token, 'token')}"))
    asking = Asking(url, retries, Backoff(), timer, clock.now, rng)
    calls = _calls(asking, spool, limit=spool_limit, timeout=_positive(timeout))
    return Parts(address, _tls(address, ca), tuple(headers), calls, timeout)


def _calls(asking: Asking, spool: Path | str | None, *, limit: int, timeout: float) -> Calls:
    if spool is None:
        return Calls(asking, fresh_id, None, None)
    from leaven.client.delivery import Delivery  # only for those who have one: it needs a system with flock
    from leaven.client.spool import Spool

    folder = Spool(Path(spool), limit=limit)
    return Calls(asking, fresh_id, folder, Delivery(folder, asking, timeout))


def _tls(address: Address, ca: Path | str | ssl.SSLContext | None) -> ssl.SSLContext | None:
    if not address.secure:
        if ca is not None:
            raise BadCall("ca", f"{address.url} is not encrypted", 'Write "https://…", or leave ca out.')
        return None
    import ssl

    if isinstance(ca, ssl.SSLContext):
        return ca
    try:
        return ssl.create_default_context(cafile=None if ca is None else str(ca))
    except OSError as error:
        raise BadCall("ca", f"{ca} cannot be read: {error}", "Name a file of PEM certificates.") from None


def _positive(timeout: float) -> float:
    if not timeout > 0:
        raise BadCall("timeout", f"{timeout} s is no time", "Give a positive number of seconds.")
    return timeout


def fresh_id() -> str:
    """Return a name that nobody has used, in any process, forked ones among them."""
    return os.urandom(16).hex()


def machine_chance() -> float:
    """Return a number drawn evenly from [0, 1), another one in each process."""
    return int.from_bytes(os.urandom(7), "big") / 2.0**56


class Told(TypedDict):
    """What the environment says of a client."""

    url: str
    token: str | None
    spool: Path | None
    ca: Path | None


def told_by(environment: Mapping[str, str] | None) -> Told:
    """Return what `environment` (the process's own by default) says of the gateway, as arguments of a client."""
    from leaven.settings import client_settings_from

    said = client_settings_from(environment)
    return {"url": said.gateway, "token": said.token, "spool": said.spool, "ca": said.ca}
