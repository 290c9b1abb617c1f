"""May this request be answered?

A token comes as `Authorization: Bearer lvn_…`. What it must be good for follows from the path alone, and a path that is
not in the table wants the role `admin`, so a route that is added without a thought is closed rather than open. Which
loop a body speaks of is known only when it has been read; the part that reads it asks `permit`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import date
from ipaddress import ip_address
from typing import Any

from leaven.duration import instant
from leaven.errors import LeavenError
from leaven.gateway.refusals import NoToken, NotPermitted, NotReady
from leaven.settings import Settings
from leaven.tokens import Refusal, Role, TokenEntry, TokenSet, judged

_GRANT = "leaven.grant"  # in the scope of a request: the entry of its token
_SCHEME = b"bearer "

_FREE = frozenset(("/v2/health/live", "/v2/health/ready"))
_ROLES: Mapping[str, Role] = {"/v1/feedback": "feedback", "/v1/assign": "serve", "/v2": "serve", "/v2/": "serve"}


def asks_for_tokens(settings: Settings, address: Sequence[Any] | str | bytes) -> bool:
    """Return whether a gateway with this setting asks for tokens where it listens at this address.

    Left to itself it does where others than this machine's own processes could reach it.
    """
    return settings.auth == "on" or (settings.auth == "auto" and not is_of_this_machine(address))


def is_of_this_machine(address: Sequence[Any] | str | bytes) -> bool:
    """Return whether only processes of this machine can reach an address, as `getsockname` gives it."""
    if isinstance(address, str | bytes):
        return True  # a Unix socket
    return ip_address(str(address[0]).partition("%")[0]).is_loopback


class Access:
    """Who may do what at one gateway process; `check` is called by the serving thread, `replace` by any."""

    def __init__(self, *, required: bool, now: Callable[[], int]) -> None:
        """Let everybody in, or only tokens where they are `required`; `now` gives real time, in micros."""
        self.required = required
        self._now = now
        self._tokens: TokenSet | None = None
        # Headers that were found right, so that the next request with one need not be hashed. Wrong ones are never in
        # it: nobody can fill it, and it tells no one how much of a secret was right.
        self._identified: dict[bytes, TokenEntry] = {}
        self._used: set[tuple[str, int]] = set()  # id, day since the epoch

    @property
    def revision(self) -> int | None:
        """Of the tokens that are known; None before any are."""
        return None if self._tokens is None else self._tokens.revision

    def replace(self, tokens: TokenSet) -> None:
        """Know these tokens and no others, from the next request on."""
        self._tokens = tokens
        self._identified = {}

    def check(self, scope: dict[str, Any]) -> None:
        """Return if this request may be answered, as far as its head tells.

        Raises:
            NoToken: it has none, or one that is not good.
            NotPermitted: its token is good, and not for this.
            NotReady: it is not known yet which tokens there are.
        """
        if not self.required:
            return
        path: str = scope["path"]
        if path in _FREE:
            return
        header = _header(scope["headers"])
        entry = self._identified.get(header) or self._identify(header)
        role, loop = asked(path)
        now = self._now()
        verdict = judged(entry, role, loop, now=now)
        if isinstance(verdict, str):
            raise _refused(verdict, role, loop)
        scope[_GRANT] = entry
        self._used.add((entry.id, now // 86_400_000_000))

    def _identify(self, header: bytes) -> TokenEntry:
        if header[:7].lower() != _SCHEME:
            raise NoToken("this gateway asks for a token, and there is none", 'Bearer realm="leaven"')
        # In this order, and the other way round in `replace`: what the old tokens let through must not get among what
        # the new ones did.
        identified = self._identified
        tokens = self._tokens
        if tokens is None:
            raise NotReady("which tokens there are is not known")
        entry = tokens.identified(header[7:].decode("latin-1"))
        if entry is None:
            raise _refused("unknown", None, None)
        identified[header] = entry
        return entry

    def taken_used(self) -> dict[date, list[str]]:
        """Return which tokens were let through since the last call, by day."""
        used, self._used = self._used, set()
        days: dict[date, list[str]] = {}
        for id, day in list(used):  # the serving thread may be adding a last one
            days.setdefault(instant(day * 86_400_000_000).date(), []).append(id)
        return days


def permit(scope: dict[str, Any], loop: str) -> None:
    """Return if the token of this request, where it needed one, is good for `loop`.

    Raises:
        NotPermitted: it is not.
    """
    entry: TokenEntry | None = scope.get(_GRANT)
    if entry is not None and entry.loops is not None and loop not in entry.loops:
        raise _refused("loop", None, loop)


def asked(path: str) -> tuple[Role, str | None]:
    """Return the role that a path needs, and the loop that it names."""
    if path.startswith("/v2/models/"):
        loop, _, rest = path[11:].partition("/")
        return ("admin" if loop == "stats" and not rest else "serve"), loop
    if path.startswith("/v1/models/"):
        return "serve", path[11:].partition("/")[0]
    if path.startswith("/v2/repository/models/"):
        return "admin", path[22:].partition("/")[0]
    return _ROLES.get(path, "admin"), None


def _header(headers: list[tuple[bytes, bytes]]) -> bytes:
    for name, value in headers:
        if name == b"authorization":
            return value
    return b""


def _refused(why: Refusal, role: Role | None, loop: str | None) -> LeavenError:
    if why in ("unknown", "revoked", "expired"):
        said = {"unknown": "this token is not known here", "revoked": "this token was revoked",
                "expired": "this token has expired"}[why]  # fmt: skip
        return NoToken(said, 'Bearer realm="leaven", error="invalid_token"')
    challenge = f'Bearer realm="leaven", error="insufficient_scope"{f", scope={role!r}" if role else ""}'
    if why == "role":
        return NotPermitted(f"this token has not the role {role!r}", challenge.replace("'", '"'))
    return NotPermitted(
        f"this token is not good for loop {loop!r}" if loop else "this token is good for some loops only",
        challenge.replace("'", '"'),
    )
