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


class RebuildAdvice(msgspec.Struct, frozen=True):
    """How many updates between two rebuilds cost least, as far as that can be told."""

    updates: float | None
    low: float | None  # at the upper bound of the measured gap
    high: float | None  # at its lower bound; None: at that, rebuilding never pays
    growth: float | None  # loss that each update adds to the gap
    why: str


def advise_rebuilds(
    compared: Compared | None, *, rebuild_cpu_s: float | None, update_cpu_s: float | None,
    value: float | None, cpu_price: float | None,
) -> RebuildAdvice:  # fmt: skip
    """Return the advised number of updates between two rebuilds, or what is missing to tell it.

    Args:
        compared: The newest comparison of an updated model with one from scratch.
        rebuild_cpu_s: CPU seconds of a fit from scratch.
        update_cpu_s: Of an update.
        value: Of one unit of loss over the time between two updates, in any currency.
        cpu_price: Of one CPU second, in the same currency.
    """
    if compared is None or compared.difference is None:
        return _untold("no updated model was compared with one from scratch yet: Hybrid(compare_every=…) does it")
    gap = compared.difference
    growth, low, high = (bound / max(1, compared.updates) for bound in (gap.estimate, gap.low, gap.high))
    told = f"each update adds {growth:+.3g} [{low:+.3g}, {high:+.3g}] of {compared.metric} to the gap"
    if rebuild_cpu_s is None or update_cpu_s is None:
        return _untold(f"{told}; a fit and an update must both have been measured", growth)
    if value is None or cpu_price is None:
        return _untold(f"{told}; say what it is worth (--value) and what computing costs (--cpu-price)", growth)

    def best(grows: float) -> float | None:
        return updates_between_rebuilds(
            rebuild=rebuild_cpu_s * cpu_price, update=update_cpu_s * cpu_price, growth=grows, value=value
        )

    found = best(growth)
    if found is None:
        return RebuildAdvice(None, best(high), None, growth, f"{told}: rebuilding is not worth its price")
    words = f"{told}; a rebuild takes {rebuild_cpu_s:.3g} s of CPU, an update {update_cpu_s:.3g} s"
    return RebuildAdvice(found, best(high), best(low), growth, words)


def _untold(why: str, growth: float | None = None) -> RebuildAdvice:
    return RebuildAdvice(None, None, None, growth, why)
