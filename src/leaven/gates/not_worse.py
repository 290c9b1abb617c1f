"""Is the challenger at least as good as the champion on the same rows?"""

from __future__ import annotations

from dataclasses import KW_ONLY
from typing import Literal

from leaven.errors import BadDefinition
from leaven.gates.gate import Check, GateEvidence, GateReport, Outcome
from leaven.stats.intervals import mean_interval
from leaven.stats.metrics import METRICS
from leaven.stats.moments import moments, unit_means
from leaven.values import value


@value
class NotWorse:
    """Passes a challenger whose loss exceeds the champion's by no more than `margin`, a share of the champion's loss.

    Both answer the same rows; the difference is averaged per unit and held against the margin by its 95 % interval:
    all of it within the margin passes, all of it beyond fails, in between is undecided. Without a champion there is
    nothing to be worse than, and it passes.
    """

    metric: str
    _: KW_ONLY
    on: Literal["fresh", "past"] = "fresh"
    margin: float = 0.02
    min_rows: int = 200

    def __post_init__(self) -> None:
        if self.metric in METRICS and METRICS[self.metric].row_loss is None:
            losses = ", ".join(name for name, metric in METRICS.items() if metric.row_loss is not None)
            raise BadDefinition(f"NotWorse({self.metric!r})", "it is no loss of single rows", f"Use one of {losses}.")
        if self.on not in ("fresh", "past"):
            raise BadDefinition("NotWorse(on=…)", f"{self.on!r} names no rows", 'Use "fresh" or "past".')
        if not self.margin >= 0:
            raise BadDefinition("NotWorse(margin=…)", f"{self.margin!r} is no margin", "Give a share of 0 or more.")

    def look(self, check: Check) -> GateEvidence:
        """Return both versions' losses on the rows that this gate looks at."""
        rows = check.fresh if self.on == "fresh" else check.past
        row_loss = METRICS[self.metric].row_loss
        assert row_loss is not None
        label = rows.examples.labels.value
        ours = row_loss(label, rows.challenger)
        if rows.champion is None:
            return GateEvidence(len(label), moments(ours))
        theirs = row_loss(label, rows.champion)
        difference = moments(unit_means(rows.examples.predictions.unit, ours - theirs))
        return GateEvidence(len(label), moments(ours), moments(theirs), difference)

    def judge(self, evidence: GateEvidence) -> GateReport:
        """Return the comparison of the two."""
        if evidence.champion is None:
            return GateReport(repr(self), "pass", "there is no champion to compare with", evidence)
        if evidence.rows < self.min_rows:
            why = f"{evidence.rows} mature {self.on} rows are fewer than the {self.min_rows} it takes"
            return GateReport(repr(self), "undecided", why, evidence)
        difference = mean_interval(evidence.difference, alpha=0.05)
        bound = self.margin * evidence.champion.mean
        outcome: Outcome
        if difference.high <= bound:
            outcome, relation = "pass", "within"
        elif difference.low > bound:
            outcome, relation = "fail", "beyond"
        else:
            outcome, relation = "undecided", "not clear of"
        why = (
            f"{self.metric} on {self.on} rows: challenger {evidence.challenger.mean:.4f}, champion "
            f"{evidence.champion.mean:.4f}, per unit {difference.estimate:+.4f} [{difference.low:+.4f}, "
            f"{difference.high:+.4f}], {relation} the margin {bound:+.4f}"
        )
        return GateReport(repr(self), outcome, why, evidence, difference)
