"""Which arm does a unit see?"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from hashlib import blake2b
from typing import Protocol

POSITIONS = 2**32  # fine enough for a canary of 0.005 %; an integer, so every language agrees


class HasRange(Protocol):
    """Something that holds the units whose position lies in [low, high)."""

    @property
    def low(self) -> int:
        """First position that is in."""
        ...

    @property
    def high(self) -> int:
        """First position that is out."""
        ...


def position(unit: str, *, salt: str) -> int:
    """Return the fixed place of `unit` among `POSITIONS`, for this salt.

    The first four bytes, big-endian, of keyed BLAKE2b over the unit's UTF-8 bytes; the key is the salt's BLAKE2b, so
    any salt fits. Lone surrogates (which JSON can carry) are encoded as they are.
    """
    hashed = _keyed(salt).copy()
    hashed.update(unit.encode("utf-8", "surrogatepass"))
    return int.from_bytes(hashed.digest()[:4], "big")


@lru_cache(maxsize=1024)
def _keyed(salt: str) -> blake2b:
    """The hash of this salt, before a unit: its key is a block of its own, so it need not be hashed again."""
    key = blake2b(salt.encode("utf-8", "surrogatepass"), digest_size=16).digest()
    return blake2b(digest_size=8, key=key)


def threshold(share: float) -> int:
    """Return the position below which a share of the units lies."""
    return round(share * POSITIONS)


def holder(place: int, ranges: Sequence[HasRange]) -> int:
    """Return the index of the range that holds `place`; ranges cover all positions and do not overlap."""
    for index, candidate in enumerate(ranges):
        if candidate.low <= place < candidate.high:
            return index
    raise LookupError(f"position {place} is in no range")
