"""Is one arm slower than another by more than a factor, whenever one looks?"""

from __future__ import annotations

import numpy as np

from leaven.stats.failures import more_failures_evidence
from leaven.stats.log_counts import PER_FACTOR, LogCounts, bin_of

_THRESHOLDS = 17  # each 1.5 times the one before: from the least time on up to 650 times that


def slower_evidence(control: LogCounts, arm: LogCounts, *, share: float, factor: float, least: float) -> float:
    """Return the evidence that the arm's times are longer than the control's times `factor`, valid at every look.

    If, for every time t from `least` on, the arm takes longer than t no oftener than the control takes longer than
    t / `factor`, the value ever reaches `1 / alpha` with probability at most `alpha`, however both move over the day.

    Args:
        control: Times of the control's units, in seconds; one per unit, its first, so that counts only grow.
        arm: Times of the arm's units.
        share: The arm's share of the units of both, in (0, 1), constant.
        factor: Tolerated slowness, 1 or more; taken up to the next whole bin of `LogCounts`, 1.5^(1/3) wide.
        least: Seconds that are never called slow, positive.
    Source:
        The average, over fixed thresholds, of the evidence that the arm passes them more often than the control passes
        them less the factor. An average of e-values is one.
    """
    arm_bins = bin_of(least) + PER_FACTOR * np.arange(_THRESHOLDS)
    control_counts, arm_counts = control.from_bin(arm_bins - bin_of(factor)), arm.from_bin(arm_bins)
    return float(np.mean(more_failures_evidence(control_counts, arm_counts, share=share)))
