"""How many people would be told something else?"""

from __future__ import annotations

from dataclasses import KW_ONLY
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from leaven.errors import BadDefinition
from leaven.gates.gate import Check, GateEvidence, GateReport, Outcome
from leaven.stats.answers import apart, decided, given, telling
from leaven.stats.intervals import mean_interval
from leaven.stats.moments import moments, unit_means
from leaven.values import value

Floats = NDArray[np.float64]


@value
class Churn:
    """Passes a challenger that changes no more than `at_most` of what the champion says to fresh rows.

    Changes are averaged per unit and judged by their 95 % interval: all of it up to `at_most` passes, all of it beyond
    fails, in between is undecided. Without a champion nothing changes, and it passes.

    Args:
        at_most: Share of decisions that may change; with `of="answers"` the mean distance of the answers.
        of: `"decisions"`: whether the answer reaches `threshold`, or which class is the likeliest. `"answers"`: what
            is answered.
        threshold: The least probability that counts as yes.
        min_rows: Fewer rows are undecided.
    """

    at_most: float = 0.2
    _: KW_ONLY
    of: Literal["decisions", "answers"] = "decisions"
    threshold: float = 0.5
    min_rows: int = 200

    def __post_init__(self) -> None:
        if not self.at_most >= 0:
            raise BadDefinition("Churn(at_most=…)", f"{self.at_most!r} is no share", "Give 0 or more.")
        if self.of not in ("decisions", "answers"):
            raise BadDefinition("Churn(of=…)", f"{self.of!r} does not change", 'Use "decisions" or "answers".')
        if not 0 < self.threshold < 1:
            raise BadDefinition("Churn(threshold=…)", f"{self.threshold!r} decides nothing", "Use one within 0 and 1.")

    @property
    def tasks(self) -> tuple[str, ...] | None:
        """The kinds of label that it is for, or None if it does not matter."""
        return ("binary", "multiclass") if self.of == "decisions" else None

    def look(self, check: Check) -> GateEvidence:
        """Return how much changed per unit, as the difference of the two."""
        rows = check.fresh
        broken = int((~given(rows.challenger)).sum())
        if broken or rows.champion is None:
            return GateEvidence(len(rows.challenger), broken=broken)
        told = given(rows.champion)
        ours, theirs = rows.challenger[told], rows.champion[told]
        changed = decisions_changed(ours, theirs, self.threshold) if self.of == "decisions" else apart(ours, theirs)
        per_unit = moments(unit_means(rows.examples.predictions.unit[told], changed))
        return GateEvidence(int(told.sum()), champion=moments(telling(theirs)), difference=per_unit)

    def judge(self, evidence: GateEvidence) -> GateReport:
        """Return whether little enough changed."""
        if evidence.broken:
            why = f"{evidence.broken} of {evidence.rows} answers to fresh rows are no numbers"
            return GateReport(repr(self), "fail", why, evidence)
        if evidence.champion is None:
            return GateReport(repr(self), "pass", "there is no champion whose answers could change", evidence)
        if evidence.rows < self.min_rows:
            why = f"{evidence.rows} mature fresh rows are fewer than the {self.min_rows} it takes"
            return GateReport(repr(self), "undecided", why, evidence)
        changed = mean_interval(evidence.difference, alpha=0.05)
        outcome: Outcome
        if changed.high <= self.at_most:
            outcome, relation = "pass", "within"
        elif changed.low > self.at_most:
            outcome, relation = "fail", "beyond"
        else:
            outcome, relation = "undecided", "not clear of"
        what = "share of decisions that change" if self.of == "decisions" else "mean distance of the answers"
        why = (
            f"{what}, per unit on fresh rows: {changed.estimate:.4f} [{changed.low:.4f}, {changed.high:.4f}], "
            f"{relation} {self.at_most:g}"
        )
        return GateReport(repr(self), outcome, why, evidence, changed)


def decisions_changed(ours: Floats, theirs: Floats, threshold: float) -> Floats:
    """Return 1 where the two fall on different sides of the threshold, or name different classes, else 0."""
    changed: Floats = (decided(ours, threshold) != decided(theirs, threshold)).astype(np.float64)
    return changed
