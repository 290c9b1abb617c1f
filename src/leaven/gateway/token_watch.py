"""How does a gateway learn which tokens there are, also while the control database is away?

The thread that looks for routing tables looks for tokens too. They are kept as a file, hashes only and readable by this
user alone, for a gateway that starts while the database is away: it then knows what was known last.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from datetime import date
from pathlib import Path
from typing import Protocol

import msgspec

from leaven.gateway.access import Access
from leaven.tokens import TokenSet

logger = logging.getLogger(__name__)


class TokenSource(Protocol):
    """Where tokens are registered."""

    def tokens(self, known: int | None) -> TokenSet | None:
        """Return the present tokens, or None where they are those of the revision `known`."""
        ...

    def used(self, ids: Iterable[str], day: date) -> None:
        """Note that these tokens were let through on that day."""
        ...


class TokenWatch:
    """Brings registered tokens to a gateway."""

    def __init__(self, access: Access, source: TokenSource, *, cache: Path) -> None:
        """Watch `source` for `access`; `cache` is the file for the last tokens known."""
        self._access, self._source, self._cache = access, source, cache
        self._unsaid: dict[date, set[str]] = {}
        self._said: set[tuple[date, str]] = set()

    def restore(self) -> None:
        """Take the tokens from the file, until the database tells."""
        try:
            known = msgspec.json.decode(self._cache.read_bytes(), type=TokenSet)
        except FileNotFoundError:
            return
        except (OSError, msgspec.MsgspecError) as error:
            logger.warning("the kept tokens %s are of no use: %s", self._cache, error)
            return
        self._access.replace(known)

    def look(self) -> None:
        """Take the present tokens, and tell which were used on a new day.

        Raises:
            DatabaseUnavailable: as the source does; what is known stays.
        """
        found = self._source.tokens(self._access.revision)
        if found is not None:
            self._access.replace(found)
            self._keep(found)
        self._tell()

    def _tell(self) -> None:
        for day, ids in self._access.taken_used().items():
            self._unsaid.setdefault(day, set()).update(id for id in ids if (day, id) not in self._said)
        for day, new in sorted(self._unsaid.items()):
            if new:
                self._source.used(sorted(new), day)
                self._said |= {(day, id) for id in new}
            del self._unsaid[day]

    def _keep(self, tokens: TokenSet) -> None:
        """Write the tokens down; where that fails, they are good all the same."""
        temporary = self._cache.with_suffix(f".{os.getpid()}")  # another worker may be writing the same
        try:
            self._cache.parent.mkdir(parents=True, exist_ok=True)
            temporary.touch(mode=0o600)
            temporary.write_bytes(msgspec.json.encode(tokens))
            temporary.replace(self._cache)
        except OSError as error:
            logger.warning("the tokens could not be kept for a restart: %s", error)
