"""Has the champion become worse than it was?"""

from __future__ import annotations

import math
from dataclasses import KW_ONLY

from leaven.duration import duration
from leaven.errors import BadDefinition
from leaven.stats.metrics import METRICS
from leaven.triggers.facts import Cause, Facts
from leaven.values import value


@value
class Drops:
    """Fires when a metric on mature labels is worse than when the champion was proven, by more than `by`.

    The worsening itself must be beyond `by` with 95 % confidence (one-sided, both measurements' errors counted), so
    noise in a short stretch does not fire it. After a refresh it is quiet for as long as `over`.
    """

    metric: str
    _: KW_ONLY
    by: float
    over: str = "3d"

    def __post_init__(self) -> None:
        duration(self.over, where="Drops(over=…)")
        if not self.by >= 0:
            raise BadDefinition("Drops(by=…)", f"{self.by!r} is no drop", "Give 0 or more, such as 0.02.")

    def fires(self, facts: Facts) -> Cause | None:
        """Return a cause if the drop is certain; None where there is no champion, no reference or too little data."""
        if not facts.has_champion:
            return None
        if facts.last_refresh is not None and facts.now - facts.last_refresh < duration(self.over):
            return None  # the last refresh saw this drop, whatever came of it; only new rows can call for another
        signal = facts.performance(self.metric, duration(self.over))
        reference = signal.reference
        if reference is None or not math.isfinite(signal.interval.high) or not math.isfinite(reference.high):
            return None
        sign = 1 if METRICS[self.metric].higher_is_better else -1
        drop = sign * (reference.estimate - signal.interval.estimate)
        # Half-widths are 1.96 standard errors; a one-sided 95 % statement needs 1.645 of the two together.
        spread = math.hypot(reference.high - reference.estimate, signal.interval.high - signal.interval.estimate)
        if drop - spread * 1.645 / 1.96 <= self.by:
            return None
        return Cause(
            repr(self),
            f"{self.metric} over {self.over} is {signal.interval.estimate:.4f}, "
            f"was {reference.estimate:.4f} when the champion was proven",
            signal,
        )
