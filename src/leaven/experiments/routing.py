"""Which versions serve which units right now?

A routing table is a value: published once, never changed, replaced by one with a higher revision. Gateways hold the
last one they could load and need nothing else to serve.
"""

from __future__ import annotations

import msgspec

from leaven.experiments.assignment import POSITIONS, threshold
from leaven.loop import Schema

CANARY = "canary"  # the arm of a challenger that serves
HOLDBACK = "holdback"  # the arm of units that are left with the old champion after a promotion


class ArmRoute(msgspec.Struct, frozen=True):
    """One arm: the units at positions [low, high) get `version`, whose artifact has this digest."""

    arm: str  # "champion", "canary" or "holdback"
    version: str
    artifact: str
    low: int
    high: int

    @property
    def propensity(self) -> float:
        """Probability that a unit gets this arm."""
        return (self.high - self.low) / POSITIONS


class ShadowRoute(msgspec.Struct, frozen=True):
    """A version that answers beside the served one, for the units at positions [0, high)."""

    version: str
    artifact: str
    high: int = POSITIONS


class Standby(msgspec.Struct, frozen=True):
    """A version that gets no traffic but stays loaded, so that going back to it takes no time."""

    version: str
    artifact: str


class RoutingTable(msgspec.Struct, frozen=True):
    """How one loop's requests are routed. `arms` cover all positions; the champion is always among them."""

    loop: str
    revision: int
    at: int  # microseconds since the Unix epoch
    schema: Schema
    salt: str
    arms: tuple[ArmRoute, ...]
    shadows: tuple[ShadowRoute, ...] = ()
    standby: tuple[Standby, ...] = ()

    @property
    def champion(self) -> ArmRoute:
        """The arm that everybody outside a trial gets."""
        return next(route for route in self.arms if route.arm == "champion")

    def artifacts(self) -> dict[str, str]:
        """Return the artifact digest of every version that must be loaded before this table serves."""
        routes: tuple[ArmRoute | ShadowRoute | Standby, ...] = (*self.arms, *self.shadows, *self.standby)
        return {route.version: route.artifact for route in routes}


def arms_for(
    champion: tuple[str, str],
    canary: tuple[str, str] | None = None,
    *,
    share: float = 0.0,
    holdback: tuple[str, str] | None = None,
    held: float = 0.0,
) -> tuple[ArmRoute, ...]:
    """Return the arms of a champion alone, with a canary on the first `share` of all positions, a holdback on the last.

    The canary's range always starts at 0, so a ramp only ever adds units to it. The holdback's always ends with the
    last position, so it has units that no canary of up to `1 - held` had before.
    """
    edge = threshold(share) if canary is not None else 0
    end = POSITIONS - (threshold(held) if holdback is not None else 0)
    ranges = ((CANARY, canary, 0, edge), ("champion", champion, edge, end), (HOLDBACK, holdback, end, POSITIONS))
    # The champion stays among them even where a canary has all units: it stands in for one that fails.
    return tuple(
        ArmRoute(arm, *version, low, high)
        for arm, version, low, high in ranges
        if version is not None and (low < high or arm == "champion")
    )
