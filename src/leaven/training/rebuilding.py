"""What does an updated model lose against one from scratch, and how many updates lie between two rebuilds best?

Rebuilding often pays for fits that gain little; rebuilding rarely pays in what updates have lost.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import msgspec

from leaven.stats.intervals import Interval, mean_interval
from leaven.stats.moments import Moments, paired_excess

Taken = Literal["updated", "scratch"]


class Compared(msgspec.Struct, frozen=True):
    """An updated model and one from scratch on the same fresh rows; kept with the version that was taken of the two."""

    metric: str
    rows: int
    updated: float  # mean loss per unit
    scratch: float
    difference: Interval | None  # updated minus scratch, paired by unit
    share: Interval | None  # the same as a share of the loss from scratch
    updates: int  # that the updated one lies from its last rebuild
    taken: Taken
    why: str
    other: dict[str, Any] = {}  # what the one that was not taken cost


def relative_gap(updated: Moments, scratch: Moments, difference: Moments, *, alpha: float = 0.05) -> Interval | None:
    """Return by what share of the loss from scratch the updated model loses more; None of fewer than two units.

    Args:
        updated: Loss per unit of the updated model.
        scratch: Of the one from scratch.
        difference: Updated minus scratch, unit by unit.
        alpha: The interval misses with this probability.
    Source:
        Delta method: with r = mean(d) / mean(s), the error of r is that of mean(d - r s), divided by mean(s).
    """
    if difference.count < 2 or not scratch.mean > 0:
        return None
    share = difference.mean / scratch.mean
    around = mean_interval(_residual(updated, scratch, difference, share), alpha=alpha)
    half = (around.high - around.low) / 2 / scratch.mean
    return Interval(share, share - half, share + half, 1 - alpha, difference.count)


def _residual(updated: Moments, scratch: Moments, difference: Moments, share: float) -> Moments:
    return paired_excess(scratch, updated, difference, margin=share)


def taken_of(share: Interval | None, above: float | None) -> Taken:
    """Return which of the two is taken: the one from scratch only where the gap is shown to be more than `above`."""
    return "scratch" if share is not None and above is not None and share.low > above else "updated"


def updates_between_rebuilds(*, rebuild: float, update: float, growth: float, value: float) -> float | None:
    """Return how many updates between two rebuilds cost least, or None where rebuilding never pays.

    Args:
        rebuild: Cost of a fit from scratch, in any currency.
        update: Cost of an update.
        growth: Loss that each update adds to the gap to a model from scratch.
        value: Of one unit of loss over the time between two updates, in the same currency.
    Source:
        Average cost of a round of m: (K0 + (m - 1) K1) / m + g v m / 2, least at m = sqrt(2 (K0 - K1) / (g v)).
    """
    if growth <= 0 or value <= 0:
        return None
    return max(1.0, math.sqrt(2 * max(0.0, rebuild - update) / (growth * value)))
