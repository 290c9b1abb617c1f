"""What does a forked child have to forget?

Threads of the parent are not there, so locks that they held stay held; connections are shared with the parent, so that
two would read one reply. Each part that has such things says so once, and is told in the child.
"""

from __future__ import annotations

import os
from typing import Protocol
from weakref import WeakSet


class Forkable(Protocol):
    """Has something that a forked child must not use."""

    def forked(self) -> None:
        """Forget it; called in the child, before anything else runs there."""
        ...


_known: WeakSet[Forkable] = WeakSet()


def tell_after_fork(part: Forkable) -> None:
    """Have `part.forked()` called in every child that is forked while `part` exists."""
    _known.add(part)


def _tell() -> None:
    for part in list(_known):
        part.forked()


if hasattr(os, "register_at_fork"):  # not where processes cannot fork
    os.register_at_fork(after_in_child=_tell)
