"""How does the gateway listen: to whom, and by which certificate?"""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from leaven.errors import BadDefinition
from leaven.settings import Settings

TlsCert = Annotated[
    Path | None,
    typer.Option("--tls-cert", help="PEM file of the certificate with its chain: the gateway then speaks HTTPS."),
]
TlsKey = Annotated[Path | None, typer.Option("--tls-key", help="PEM file of its key.")]

_log = logging.getLogger(__name__)


def with_certificate(settings: Settings, cert: Path | None, key: Path | None) -> Settings:
    """Return the settings with the certificate that a command names, seen to be good.

    Raises:
        BadDefinition: only one of the two files is named.
        BadCertificate: the pair cannot be used.
    """
    from leaven.gateway.tls import checked_pair

    if (cert is None) != (key is None):
        raise BadDefinition("--tls-cert and --tls-key", "only one of them is given", "Give both, or neither.")
    if cert is not None and key is not None:
        settings = replace(settings, tls_cert=cert.absolute(), tls_key=key.absolute())
    if settings.tls_cert is not None and settings.tls_key is not None:
        checked_pair(settings.tls_cert, settings.tls_key, now=time.time())
    return settings


def say_who_may(settings: Settings, address: tuple[str, int]) -> None:
    """Warn where everybody may use a gateway that is reached from beyond this machine, or nobody may."""
    from leaven.gateway.access import asks_for_tokens, is_of_this_machine

    beyond = not is_of_this_machine(address)
    if beyond and settings.auth == "off":
        _log.warning("LEAVEN_AUTH=off: whoever reaches %s:%d may predict, report and read the status", *address)
    if asks_for_tokens(settings, address):
        _log.info("callers need a token; make one: leaven token create NAME --role serve --role feedback")
    if beyond and settings.tls_cert is None:
        _log.warning(
            "requests to %s:%d, and their tokens, can be read on the way: give --tls-cert and --tls-key, or put a "
            "proxy that speaks TLS in front", *address
        )  # fmt: skip
