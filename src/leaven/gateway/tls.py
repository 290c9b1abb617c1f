"""Which certificate does the gateway show, and how is a renewed one taken without a restart?"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from leaven.errors import LeavenError

logger = logging.getLogger(__name__)

SOON_SECONDS = 14 * 86_400  # before its end in which a certificate should have been renewed
_LOOK_SECONDS = 1.0


class BadCertificate(LeavenError, ValueError):
    """A certificate and its key cannot be used."""

    def __init__(self, cert: str, key: str, why: str, mend: str) -> None:
        super().__init__(cert, key, why, mend)
        self.cert, self.key, self.why, self.mend = cert, key, why, mend

    def __str__(self) -> str:
        return f"the certificate {self.cert} with the key {self.key} cannot be used: {self.why}. {self.mend}"


class Certificate:
    """A pair of PEM files, and the context that shows what is in them."""

    def __init__(self, cert: Path, key: Path, *, now: Callable[[], float]) -> None:
        """Load the pair; `now` gives real time in seconds since the Unix epoch.

        Raises:
            BadCertificate: they are not there, do not fit together, are locked by a passphrase, or have expired.
        """
        self._cert, self._key, self._now = cert, key, now
        self._stamp = self._stamps()
        self.ends = checked_pair(cert, key, now=now())
        self.context = _context()
        self.context.load_cert_chain(cert, key, password=_no_passphrase)
        self._say_if_soon()

    def renew(self) -> bool:
        """Take what is in the files now, if they have changed; return whether that was so.

        New connections get the new certificate, those that are open stay. A pair that is not good is said once, and
        the one before stays.
        """
        stamp = self._stamps()
        if stamp == self._stamp:
            return False
        self._stamp = stamp
        try:
            self.ends = checked_pair(self._cert, self._key, now=self._now())
        except BadCertificate as error:
            logger.error("%s The one before stays in use.", error)
            return False
        self.context.load_cert_chain(self._cert, self._key, password=_no_passphrase)
        logger.info("a new certificate is in use, good until %s", _day(self.ends))
        self._say_if_soon()
        return True

    async def watch(self) -> None:
        """Take a renewed pair within a second, for as long as this runs."""
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            self.renew()

    def _say_if_soon(self) -> None:
        if self.ends - self._now() < SOON_SECONDS:
            logger.warning("the certificate %s ends on %s: renew it", self._cert, _day(self.ends))

    def _stamps(self) -> tuple[tuple[int, int, int] | None, ...]:
        return tuple(_stamp(path) for path in (self._cert, self._key))


def checked_pair(cert: Path, key: Path, *, now: float) -> float:
    """Return when the certificate ends, in seconds since the Unix epoch, if it can be used with this key now.

    Raises:
        BadCertificate: it cannot.
    """

    def bad(why: str, mend: str) -> BadCertificate:
        return BadCertificate(str(cert), str(key), why, mend)

    for path in (cert, key):
        try:
            path.read_bytes()
        except OSError as error:
            raise bad(f"{path} cannot be read ({error.strerror})", "Name PEM files that this user may read.") from error
    try:
        _context().load_cert_chain(cert, key, password=_no_passphrase)
    except _Locked as error:
        raise bad("the key is locked by a passphrase", "Take it off: openssl pkey -in KEY -out PLAIN.") from error
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise bad("they do not belong together", "Name the key that this certificate was made for.") from error
        raise bad(f"they are no PEM files of a certificate and a key ({error.reason or error})",
                  "Name the full chain and the key as PEM.") from error  # fmt: skip
    begins, ends = _validity(cert)
    if now >= ends:
        raise bad(f"it ended on {_day(ends)}", "Renew it.")
    if now < begins:
        raise bad(f"it is good from {_day(begins)} on", "See that the clock is right, or wait.")
    return ends


def plain_context() -> ssl.SSLContext:
    """Return a context for asking this machine's own gateway, whatever name its certificate is for."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


class _Locked(Exception):  # never leaves this file
    """A key wants a passphrase."""


def _no_passphrase() -> str:
    raise _Locked  # OpenSSL would ask at the terminal


def _context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    return context


def _validity(cert: Path) -> tuple[float, float]:
    """From when until when the first certificate of a file is good."""
    # The standard library decodes only what a peer shows; this is what its own tests use for files.
    decoded = ssl._ssl._test_decode_cert(str(cert))  # type: ignore[attr-defined]
    return ssl.cert_time_to_seconds(decoded["notBefore"]), ssl.cert_time_to_seconds(decoded["notAfter"])


def _day(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M} UTC"


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        facts = path.stat()
    except OSError:
        return None
    return facts.st_mtime_ns, facts.st_size, facts.st_ino
