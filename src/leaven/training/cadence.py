"""How often is a refresh worth its price?

Too often pays for updates that change little; too rarely pays in answers that have grown stale. Between them lies the
interval with the least cost per day.
"""

from __future__ import annotations

import math
from typing import Literal

import msgspec
import numpy as np

from leaven.training.freshness import Ageing, FreshnessCurve
from leaven.training.staleness import LONGEST, Family, Staleness, best_interval, cost_per_day, fit_staleness, fits


class Cadence(msgspec.Struct, frozen=True):
    """A recommended interval. None: no timer is recommended, and `why` says which of the reasons it is."""

    interval_days: float | None
    ci: tuple[float | None, float | None]  # of the interval with the least cost, before the floor; None: never
    floor_days: float
    why: str
    cost_per_day: float | None
    family: Family
    verdict: Literal["timer", "trigger only", "not enough evidence"]


def recommend(
    ageing: Ageing, *, cost: float, value: float, lag: float, floor_days: float, alpha: float = 0.05
) -> Cadence:
    """Return the interval between refreshes that costs least, with its interval of confidence.

    The interval of confidence counts that the curve may bend, also where the estimate is a line.

    Args:
        ageing: Loss by age.
        cost: Of one refresh: computing, review, expected harm of its trial.
        value: Of one unit of loss for one day.
        lag: Days from the end of the training data until a version serves all: label delay, holdout and trial.
        floor_days: How long proving an update takes at least: label delay and trial. Trials do not overlap, so no
            interval is shorter.
        alpha: The interval misses with this probability.
    """
    curve, staleness = ageing.curve, fit_staleness(ageing, alpha=alpha)
    drawn = fits(ageing, ageing.draws, bends=len(curve.ages_days) > 3)
    found = drawn.best_intervals(cost=cost, value=value, lag=lag)
    low, high = np.quantile(found, [alpha / 2, 1 - alpha / 2], method="nearest")
    refused = _no_timer(curve, float(low))
    if refused is not None:
        verdict, why = refused
        return Cadence(None, (None, None), floor_days, why, None, staleness.family, verdict)
    days = best_interval(staleness, cost=cost, value=value, lag=lag)
    if days is None:
        why = (
            f"one refresh costs {cost:g}, more than staleness ever will ({staleness.family}, at most "
            f"{value * float(staleness.at(LONGEST)):.3g} a day): refresh on triggers, not on a timer"
        )
        ci = (_known(low), _known(high))
        return Cadence(None, ci, floor_days, why, None, staleness.family, "trigger only")
    # A line beside draws that bend may lie a little outside of what these say.
    ci = (_known(min(low, days)), _known(max(high, days)))
    every = max(days, floor_days)
    spent = cost_per_day(staleness, every, cost=cost, value=value, lag=lag)
    off = max(cost_per_day(staleness, each, cost=cost, value=value, lag=lag) for each in (days / 2, 2 * days))
    best = cost_per_day(staleness, days, cost=cost, value=value, lag=lag)
    why = _why(days, floor_days, staleness, off / best - 1) + _beyond(lag + every, curve)
    return Cadence(every, ci, floor_days, why, spent, staleness.family, "timer")


def _no_timer(
    curve: FreshnessCurve, soonest: float
) -> tuple[Literal["trigger only", "not enough evidence"], str] | None:
    """Why the slope alone speaks against a timer, or nothing."""
    low, high = curve.slope_ci
    if high < 0:
        why = f"older models are better ({curve.slope_per_day:+.3g} a day): a timer would only cost. More rows may help"
        return "trigger only", why
    if low > 0:
        return None
    why = (
        f"the loss changes by {curve.slope_per_day:+.3g} a day [{low:+.3g}, {high:+.3g}]: no change is within the "
        f"interval. Measure a longer past ({curve.windows} windows in {curve.blocks} independent blocks were), or "
        "older ages"
    )
    if soonest > curve.ages_days[-1]:
        oldest = f"{curve.ages_days[-1]:g} days"
        why += f". Even if it grows as fast as is within the interval, no timer of {oldest} or less pays"
    return "not enough evidence", why


def _known(days: float) -> float | None:
    return float(days) if math.isfinite(days) else None


def _why(days: float, floor: float, staleness: Staleness, off: float) -> str:
    words = f"refreshing every {days:.3g} days costs least, as staleness grows ({staleness.family})"
    if days < floor:
        return (
            f"{words}, but proving an update takes {floor:.3g} days: that is the floor. A shorter trial or faster "
            "labels are worth more than more frequent training"
        )
    return f"{words}; twice or half of it costs {off:.0%} more at most, so round it to what is convenient"


def _beyond(age: float, curve: FreshnessCurve) -> str:
    oldest = curve.ages_days[-1]
    if age <= oldest:
        return ""
    return f". Models would be up to {age:.3g} days old and none older than {oldest:g} was measured: name older --ages"
