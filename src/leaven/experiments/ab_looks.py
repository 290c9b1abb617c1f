"""At which shares of its plan has a test been looked at, and how long will the rest take?"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import timedelta

from leaven.experiments.ab_design import Design
from leaven.experiments.ab_evidence import ABEvidence
from leaven.stats.group_sequential import GroupSequential

GROWTH = 0.02  # of the plan that must have come in for another look: buckets may be short
_PACE = 7  # buckets whose newcomers tell how many will come


@dataclass(frozen=True, slots=True)
class Look:
    """The boundary of one look. A `Rule` that has no p-value: a verdict needs none, and it takes a search."""

    rule: GroupSequential

    @property
    def alpha(self) -> float:
        """The error over all looks."""
        return self.rule.alpha

    def critical(self, df: float, n: int) -> float:
        """Return the boundary in standard errors."""
        return self.rule.critical(df, n)

    def p_value(self, z: float, df: float, n: int) -> float:
        """Return NaN."""
        return math.nan


def look(design: Design, evidence: ABEvidence) -> tuple[Look | None, float]:
    """Return the look that the latest bucket is, if it is one, and the share of the plan that is in.

    There is a look whenever a bucket closes, from `at_least` on, if the share has grown enough. Whether anybody looked
    then does not matter: error is spent for it all the same, and whoever judges again finds the same looks.
    """
    at_least, measured, last = design.at_least // timedelta(microseconds=1), 0, False
    fractions: list[float] = []
    for bucket in evidence.buckets:
        measured += sum(bucket.measured.values())
        fraction, before = min(1.0, measured / design.units), fractions[-1] if fractions else 0.0
        grown = fraction - before > GROWTH - 1e-9 or (fraction == 1 and before < 1)
        last = bucket.closed_after >= at_least and fraction > 0 and grown
        if last:
            fractions.append(fraction)
    share = min(1.0, measured / design.units)
    return (Look(GroupSequential(tuple(fractions), design.alpha)) if last else None), share


def days_left(design: Design, evidence: ABEvidence, elapsed: timedelta) -> float | None:
    """Return the days until the plan is reached, from the newcomers of late; None where nothing tells.

    Those who came in are counted as they are, with the share of units that got measured so far; those still to come, at
    the mean of the latest full buckets.
    """
    closed, sums = len(evidence.buckets), evidence.sums
    came, measured = sum(sums.units.values()), sum(sums.mature.values())
    full = min(elapsed // design.every, len(evidence.entered))
    if not came or not measured or not full:
        return None
    usable, wanted = measured / came, design.units - measured
    latest = evidence.entered[max(0, full - _PACE) : full]
    pace = usable * sum(latest) / len(latest)
    number = closed
    while wanted > 0 and number < full:
        wanted -= int(usable * evidence.entered[number])
        number += 1
    if wanted > 0:
        if pace <= 0:
            return None
        number += math.ceil(wanted / pace)
    lag = timedelta(microseconds=evidence.buckets[-1].closed_after) - closed * design.every
    left = max(number * design.every + lag, design.at_least) - elapsed
    return max(0.0, left / timedelta(days=1))
