"""Is the challenger at least as good as the champion on the same rows?"""

from __future__ import annotations

from dataclasses import KW_ONLY
from typing import Literal

from leaven.errors import BadDefinition
from leaven.gates.gate import Check, GateEvidence, GateReport, Outcome
from leaven.stats.answers import given
from leaven.stats.intervals import mean_interval
from leaven.stats.metrics import METRICS
from leaven.stats.moments import moments, paired_excess, unit_means
from leaven.values import value


@value
class NotWorse:
    """Passes a challenger whose loss exceeds the champion's by no more than `margin`, a share of the champion's loss.

    Both answer the same rows; the losses are averaged per unit, and what the challenger's exceed the margin by is
    judged by its 95 % interval: all of it within the margin passes, all of it beyond fails, in between is undecided.
    One answer that is no number fails. Without a champion there is nothing to be worse than, and it passes.
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
        label, broken = rows.examples.labels.value, int((~given(rows.challenger)).sum())
        if broken:
            return GateEvidence(len(label), broken=broken)
        if rows.champion is None:
            ours = unit_means(rows.examples.predictions.unit, row_loss(label, rows.challenger))
            return GateEvidence(len(label), moments(ours))
        told = given(rows.champion)  # where the champion failed there is nothing to be worse than
        unit = rows.examples.predictions.unit[told]
        ours = unit_means(unit, row_loss(label[told], rows.challenger[told]))
        theirs = unit_means(unit, row_loss(label[told], rows.champion[told]))
        return GateEvidence(int(told.sum()), moments(ours), moments(theirs), moments(ours - theirs))

    def judge(self, evidence: GateEvidence) -> GateReport:
        """Return the comparison of the two."""
        if evidence.broken:
            why = f"{evidence.broken} of {evidence.rows} answers to {self.on} rows are no numbers"
            return GateReport(repr(self), "fail", why, evidence)
        if evidence.champion is None:
            return GateReport(repr(self), "pass", "there is no champion to compare with", evidence)
        if evidence.rows < self.min_rows:
            why = f"{evidence.rows} mature {self.on} rows are fewer than the {self.min_rows} it takes"
            return GateReport(repr(self), "undecided", why, evidence)
        difference = mean_interval(evidence.difference, alpha=0.05)
        champion, challenger = evidence.champion, evidence.challenger
        excess = mean_interval(
            paired_excess(champion, challenger, evidence.difference, margin=self.margin), alpha=0.05
        )  # fmt: skip
        outcome: Outcome
        if excess.high <= 0:
            outcome, relation = "pass", "within"
        elif excess.low > 0:
            outcome, relation = "fail", "beyond"
        else:
            outcome, relation = "undecided", "not clear of"
        why = (
            f"{self.metric} per unit on {self.on} rows: challenger {challenger.mean:.4f}, champion "
            f"{champion.mean:.4f}, difference {difference.estimate:+.4f} [{difference.low:+.4f}, "
            f"{difference.high:+.4f}]; less the margin of {self.margin * champion.mean:.4f}: "
            f"{excess.estimate:+.4f} [{excess.low:+.4f}, {excess.high:+.4f}], {relation} it"
        )
        return GateReport(repr(self), outcome, why, evidence, difference)
