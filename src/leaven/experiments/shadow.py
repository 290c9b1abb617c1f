"""Would the challenger have answered as well, had it been asked?

The challenger answers beside the champion, unseen. Both answered the same request, so their losses are compared pair by
pair, which takes far fewer labels than comparing two groups of users.
"""

from __future__ import annotations

from dataclasses import KW_ONLY
from datetime import timedelta

from leaven.duration import duration
from leaven.errors import BadDefinition
from leaven.experiments.evidence import Evidence, ShadowEvidence, shadow_evidence
from leaven.experiments.stage import Step, Traffic
from leaven.experiments.verdict import Verdict, check_stage_metric
from leaven.stats.exact import more_failures_p_value
from leaven.stats.intervals import mean_interval
from leaven.stats.looks import alpha_at_look
from leaven.stats.moments import paired_excess
from leaven.values import value


@value
class Shadow:
    """Shadows a share of the units for at least `length`, and judges once enough of their labels are mature.

    Passes a challenger whose loss exceeds the champion's by no more than `margin`, a share of the champion's loss;
    stops one that exceeds it, or that fails on more than `failures` of the units. Each look spends its own part of
    `alpha`, so passing a challenger that is beyond the margin happens with probability at most `alpha`, however often
    one looks.
    """

    length: str
    _: KW_ONLY
    share: float = 1.0
    metric: str | None = None
    margin: float = 0.05
    failures: float = 0.01
    min_units: int = 100
    patience: str = "14d"
    alpha: float = 0.05

    def __post_init__(self) -> None:
        duration(self.length, where="Shadow(…)")
        duration(self.patience, where="Shadow(patience=…)")
        check_stage_metric("Shadow(metric=…)", self.metric)
        if not 0 < self.share <= 1:
            raise BadDefinition("Shadow(share=…)", f"{self.share!r} is no share", "Give more than 0, up to 1.")
        if not 0 < self.alpha < 1 or not self.margin >= 0 or self.min_units < 2 or not 0 <= self.failures < 1:
            raise BadDefinition(
                repr(self), "a bound is out of range", "Keep 0 < alpha < 1, margin >= 0, min_units >= 2, failures < 1."
            )

    def steps(self) -> tuple[Step, ...]:
        """Return the one step."""
        return (Step("shadow", self.share, duration(self.length), duration(self.patience)),)

    @property
    def evidence(self) -> type[ShadowEvidence]:
        """What it is judged by."""
        return ShadowEvidence

    def observe(self, step: Step, traffic: Traffic, before: Evidence | None) -> ShadowEvidence:
        """Return what the log says of this step, read anew."""
        return shadow_evidence(traffic.shadowed(), traffic.metric)

    def judge(self, step: Step, evidence: Evidence, *, elapsed: timedelta, look: int, metric: str) -> Verdict:
        """Return the verdict on the pairs seen so far."""
        assert isinstance(evidence, ShadowEvidence)
        broken = self._broken(evidence)
        if broken is not None:
            return broken
        seen = evidence.loss_difference.count
        if elapsed < step.at_least:
            return Verdict("hold", f"shadowed for {elapsed} of {step.at_least}, {evidence.pairs} answers compared")
        if seen < self.min_units:
            why = f"{seen} units with mature labels are fewer than the {self.min_units} it takes"
            return Verdict("give_up" if elapsed >= step.at_most else "hold", why)
        return self._compared(evidence, elapsed >= step.at_most, look, metric)

    def _broken(self, evidence: ShadowEvidence) -> Verdict | None:
        """Stop a shadow that fails for so many units that no margin is needed to see it."""
        if evidence.failed_units < 10 or evidence.failed_units <= self.failures * evidence.units:
            return None
        # Against a champion that failed for the tolerated share of as many units.
        tolerated = (round(self.failures * evidence.units), evidence.units)
        if more_failures_p_value(tolerated, (evidence.failed_units, evidence.units)) > self.alpha / 100:
            return None
        return Verdict("stop", f"the shadow failed for {evidence.failed_units} of {evidence.units} units", looked=False)

    def _compared(self, evidence: ShadowEvidence, last: bool, look: int, metric: str) -> Verdict:
        # Twice the one-sided error: the bound that decides is one end of a two-sided interval.
        champion, challenger = evidence.champion_loss, evidence.challenger_loss
        beyond = paired_excess(champion, challenger, evidence.loss_difference, margin=self.margin)
        interval = mean_interval(beyond, alpha=2 * alpha_at_look(self.alpha, look))
        numbers = (
            f"{metric} on {interval.n} units, pair by pair: challenger {challenger.mean:.4f}, champion "
            f"{champion.mean:.4f}; less the margin of {self.margin * champion.mean:.4f} the difference is "
            f"{interval.estimate:+.4f} [{interval.low:+.4f}, {interval.high:+.4f}] (look {look})"
        )
        if interval.high <= 0:
            return Verdict("advance", f"{numbers}: within the margin", looked=True)
        if interval.low > 0:
            return Verdict("stop", f"{numbers}: worse than the margin", looked=True)
        if last:
            return Verdict("give_up", f"{numbers}: not enough evidence after {self.patience}", looked=True)
        return Verdict("hold", f"{numbers}: not enough evidence yet", looked=True)
