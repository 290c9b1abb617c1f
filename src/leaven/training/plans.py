"""Does a refresh start from scratch, or from the champion?"""

from __future__ import annotations

from typing import Literal, Protocol

from leaven.values import value

Mode = Literal["fit", "update"]


class Plan(Protocol):
    """Chooses how the next version is made."""

    def mode(self, *, has_parent: bool) -> Mode:
        """Return `fit` (from scratch, on the loop's data) or `update` (the parent, on what matured since it)."""
        ...


@value
class Stateless:
    """Every version is fitted from scratch on the loop's data."""

    def mode(self, *, has_parent: bool) -> Mode:
        """Return `fit`, always."""
        return "fit"


@value
class Stateful:
    """Every version continues the champion on the examples that matured since the champion's snapshot."""

    def mode(self, *, has_parent: bool) -> Mode:
        """Return `update` once there is a parent; the first version is fitted."""
        return "update" if has_parent else "fit"
