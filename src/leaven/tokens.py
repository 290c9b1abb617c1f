"""May whoever presents this token do that, now?

A token is `lvn_ID_SECRET`: the id finds the one entry to compare with, the secret is 256 random bits. Only its SHA-256
is kept: a secret of that length cannot be guessed from its hash, so a slow hash would protect nothing more and cost
every request its time.
"""

from __future__ import annotations

import re
from base64 import urlsafe_b64encode
from collections.abc import Iterable, Mapping
from hashlib import sha256
from hmac import compare_digest
from typing import Literal, get_args

import msgspec

Role = Literal["serve", "feedback", "admin"]
ROLES: tuple[Role, ...] = get_args(Role)

# Why a token was not let through; `unknown` also where the secret is wrong, so that ids cannot be tried out.
Refusal = Literal["unknown", "revoked", "expired", "role", "loop"]

_PRESENTED = re.compile(r"lvn_([0-9a-z]{10})_[0-9A-Za-z_-]{43}")


class TokenEntry(msgspec.Struct, frozen=True):
    """What is known of one token; times are microseconds since the Unix epoch."""

    id: str
    digest: str  # SHA-256 of the whole token, as lower-case hexadecimals
    roles: tuple[Role, ...]
    loops: tuple[str, ...] | None = None  # that it is good for; None for all
    expires: int | None = None
    revoked: int | None = None


class TokenSet(msgspec.Struct, frozen=True):
    """Every token of an installation as of one moment: a value that a process can hold, send and keep in a file.

    `revision` grows with each change, so two sets of one installation can be told apart, and which is newer.
    """

    revision: int
    entries: Mapping[str, TokenEntry]  # by id

    def allowed(self, presented: str, role: Role, loop: str | None, *, now: int) -> TokenEntry | Refusal:
        """Return the entry of the token that was `presented`, or why it does not do.

        Args:
            presented: The token, as the caller sent it; any text.
            role: What is asked for. A token with the role `admin` may do everything.
            loop: Which loop it is asked for; None where it is asked for none in particular, which a token that is
                limited to some loops may do as well, unless the role is `admin`.
            now: The present moment, in microseconds since the Unix epoch.
        """
        entry = self.identified(presented)
        return "unknown" if entry is None else judged(entry, role, loop, now=now)

    def identified(self, presented: str) -> TokenEntry | None:
        """Return the entry of the token that was `presented`, whatever it is good for; None for any other text.

        The time this takes does not depend on how much of a secret is right.
        """
        entry = self.entries.get(presented[4:14])
        return None if entry is None or not compare_digest(digest_of(presented), entry.digest) else entry


def judged(entry: TokenEntry, role: Role, loop: str | None, *, now: int) -> TokenEntry | Refusal:
    """Return `entry`, if its token is good for this now, or why it is not; arguments as `TokenSet.allowed` has them."""
    if entry.revoked is not None:
        return "revoked"
    if entry.expires is not None and now >= entry.expires:
        return "expired"
    if role not in entry.roles and "admin" not in entry.roles:
        return "role"
    if entry.loops is not None and loop not in entry.loops and (loop is not None or role == "admin"):
        return "loop"
    return entry


def token_set(revision: int, entries: Iterable[TokenEntry]) -> TokenSet:
    """Return the set of these entries."""
    return TokenSet(revision, {entry.id: entry for entry in entries})


def digest_of(token: str) -> str:
    """Return what is kept of a token."""
    return sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def looks_like_token(text: str) -> bool:
    """Return whether `text` has the form of a token, for those who say what is wrong with one."""
    return _PRESENTED.fullmatch(text) is not None


def made_of(random: bytes) -> tuple[str, str]:
    """Return a token and its id, made of 40 random bytes: 8 for the id, 32 for the secret.

    Raises:
        ValueError: there are not 40 bytes.
    """
    if len(random) != 40:
        raise ValueError(f"a token is made of 40 random bytes, not {len(random)}")
    number, letters = int.from_bytes(random[:8]), ""
    for _ in range(10):
        number, rest = divmod(number, 36)
        letters += "0123456789abcdefghijklmnopqrstuvwxyz"[rest]
    secret = urlsafe_b64encode(random[8:]).rstrip(b"=").decode()
    return f"lvn_{letters}_{secret}", letters
