"""What is written down about a server that answers for a version?

All of it is plain data, kept as JSON in the version's artifact: where the server is, how rows are put to it, which
number of its reply is the answer, and how long and how often it is asked. Secrets are not: a header's value is named by
an environment variable or a file of the machine that asks.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import SplitResult, quote, urlsplit

import msgspec

from leaven.endpoints.breaker import BreakerRule
from leaven.endpoints.oip import OipMapping
from leaven.endpoints.plain_json import JsonMapping
from leaven.errors import BadDefinition
from leaven.training.learner import Files

FORMAT = "endpoint"
FILE = "endpoint.json"
MOST_BYTES = 256 * 1024  # of a description
MOST_SECONDS = 5.0  # that an answer may take: a record carries its request's time, and later ones would come too late
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_OURS = ("host", "content-length", "connection", "transfer-encoding", "content-type", "inference-header-content-length")


class Header(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A header of every request; its value is in an environment variable or a file, and `before` stands before it.

    Raises:
        BadDefinition: it is no header, or names not exactly one place for its value.
    """

    name: str
    env: str | None = None
    file: str | None = None
    before: str = ""  # such as "Bearer "

    def __post_init__(self) -> None:
        where = f"header {self.name!r}"
        if not _TOKEN.fullmatch(self.name) or self.name.lower() in _OURS:
            raise BadDefinition(where, "no header of this name can be set", "Name one such as Authorization.")
        if (self.env is None) == (self.file is None):
            raise BadDefinition(where, "it names not one place for its value", "Give either env or file.")
        if self.env is not None and self.env.startswith("LEAVEN_"):
            raise BadDefinition(where, f"{self.env} is a setting of Leaven itself", "Give the secret another variable.")
        if self.file is not None and not self.file.startswith("/"):
            raise BadDefinition(where, f"{self.file!r} is no absolute path", "Gateways run in folders of their own.")
        if not self.before.isascii() or not self.before.isprintable():
            raise BadDefinition(where, "`before` holds what no header can", "Use printable ASCII.")


class Endpoint(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A server that answers for a version.

    Args:
        url: `http://host:port` or `https://…`, with a path in front of the protocol's own, if there is one; for the
            plain JSON protocol all of the address.
        mapping: How rows become a request, and a reply answers.
        timeout: Seconds within which the whole answer must be there.
        connect: Seconds within which a connection must be there.
        at_once: Requests that one gateway process has under way there.
        waiting: Requests of one gateway process that wait for their turn; more fail at once.
        rows: Rows of one request; more are sent in several.
        breaker: When the server is left alone.
        headers: Of every request.
        ca: File of PEM certificates that the server's must go back to; the system's by default.

    Raises:
        BadDefinition: a value is not one that can be used.
    """

    url: str
    mapping: OipMapping | JsonMapping
    timeout: float = 0.5
    connect: float = 0.5
    at_once: int = 32
    waiting: int = 256
    rows: int = 1000
    breaker: BreakerRule = BreakerRule()
    headers: tuple[Header, ...] = ()
    ca: str | None = None

    def __post_init__(self) -> None:
        where = f"endpoint {self.url!r}"
        self._check_url(where)
        for name, seconds in (("timeout", self.timeout), ("connect", self.connect)):
            if not 0 < seconds <= MOST_SECONDS:
                raise BadDefinition(where, f"{name} of {seconds:g} s", f"Give more than 0 and at most {MOST_SECONDS:g} "
                                    "s: later answers would miss their record.")  # fmt: skip
        for name, count, most in (
            ("at_once", self.at_once, 1024), ("waiting", self.waiting, 10_000), ("rows", self.rows, 10_000),
        ):  # fmt: skip
            if not (0 if name == "waiting" else 1) <= count <= most:
                raise BadDefinition(where, f"{name} is {count}", f"Give at most {most}, and none below 1.")
        if self.ca is not None and not (self.is_secure and self.ca.startswith("/")):
            raise BadDefinition(where, f"ca is {self.ca!r}", "Give an absolute path, and an https:// address.")
        if self.mapping.single and self.rows != 1:
            raise BadDefinition(where, f"the request is for one row, and rows is {self.rows}", "Set rows to 1.")

    def _check_url(self, where: str) -> None:
        try:
            parts, port = self._parts, self._parts.port
        except ValueError as error:
            raise BadDefinition(where, str(error), "Write http://host:port.") from None
        if parts.scheme not in ("http", "https") or not parts.hostname or port == 0 or not self.url.isascii():
            raise BadDefinition(where, "it is no address of a server", "Write http://host:port or https://host.")
        if parts.username is not None or parts.password is not None:
            raise BadDefinition(f"endpoint at {parts.hostname}", "the address holds a user or password", "Name where "
                                "the secret is: --header 'Authorization=Basic env:VARIABLE'.")  # fmt: skip
        if parts.fragment or not self.url.isprintable() or " " in self.url:
            raise BadDefinition(where, "it holds what no address can", "Leave spaces and #… out.")

    @property
    def _parts(self) -> SplitResult:
        return urlsplit(self.url)

    @property
    def is_secure(self) -> bool:
        """Whether it is reached over TLS."""
        return self._parts.scheme == "https"

    @property
    def host(self) -> str:
        """Name or address of the machine."""
        return self._parts.hostname or ""

    @property
    def port(self) -> int:
        """Of the server."""
        return self._parts.port or (443 if self.is_secure else 80)

    @property
    def authority(self) -> str:
        """What the header `host` says."""
        return self._parts.netloc

    def path(self, below: str) -> str:
        """Return the path of `below` ("" or one that begins with a slash) at the server."""
        prefix = quote(self._parts.path.rstrip("/") if below else self._parts.path or "/", safe="/%:@!$&'()*+,;=~")
        return f"{prefix}{below}" + (f"?{self._parts.query}" if self._parts.query else "")


def encoded(endpoint: Endpoint) -> dict[str, bytes]:
    """Return the files of a version that `endpoint` answers for; equal ones give equal bytes."""
    return {FILE: msgspec.json.format(msgspec.json.encode(endpoint, order="deterministic"))}


def decoded(files: Files) -> Endpoint:
    """Return the endpoint that `encoded` wrote down.

    Raises:
        BadDefinition: there is none in `files`, or not one that this Leaven can use.
    """
    if FILE not in files:
        raise BadDefinition(FILE, "it is not among the version's files", "Register the endpoint again.")
    endpoint = from_json(files[FILE], where=FILE)
    if isinstance(endpoint.mapping, OipMapping) and endpoint.mapping.is_open:
        raise BadDefinition(FILE, "it says not how rows are sent", "Register the endpoint: leaven endpoint add.")
    return endpoint


def from_json(written: bytes | memoryview, *, where: str) -> Endpoint:
    """Return the endpoint that `written` describes.

    Raises:
        BadDefinition: it describes none; the text names the place.
    """
    try:
        return msgspec.json.decode(written, type=Endpoint)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise BadDefinition(where, str(error), "See docs/howto/endpoints.md for what can be in it.") from None


def from_facts(facts: Mapping[str, Any], *, where: str) -> Endpoint:
    """Return the endpoint that plain values describe; raises as `from_json` does."""
    return from_json(msgspec.json.encode(facts), where=where)
