"""Would the challenger have answered as well, had it been asked?

The challenger answers beside the champion, unseen. Both answered the same request, so their losses are compared pair by
pair, which takes far fewer labels than comparing two groups of users.
"""

from __future__ import annotations

from dataclasses import KW_ONLY
from datetime import timedelta

from leaven.duration import duration
from leaven.errors import BadDefinition
from leaven.experiments.evidence import Evidence
from leaven.experiments.showing import Shown, agreement_rows, bounded_row, failure_row, seconds_rows
from leaven.experiments.side_by_side import ShadowEvidence, shadow_evidence
from leaven.experiments.stage import Step, Traffic
from leaven.experiments.verdict import Verdict, check_stage_metric
from leaven.stats.anytime import effective_answers, mean_bounds
from leaven.stats.failures import more_failures_evidence
from leaven.stats.intervals import Interval
from leaven.stats.moments import Moments, paired_excess
from leaven.values import value

_FAILURES = 0.1  # of alpha; the loss gets the rest
_FEWEST_FAILED = 10  # units, before a share of failures is called one


@value
class Shadow:
    """Shadows a share of the units for at least `length`, and judges once enough of their labels are mature.

    - A challenger is passed once its loss is shown to exceed the champion's by no more than `margin`, a share of the
      champion's loss. One that is beyond the margin is passed with probability at most `alpha`.
    - It is stopped, at any time, once it is shown to be beyond the margin, or to fail on more than `failures` of the
      units. One that is within both is stopped with probability at most `alpha`: a tenth of it for failures.
    - With `decides`, it is promoted, at any time and past all further stages, once its loss is shown to be lower than
      the champion's. One that is no better is promoted so with probability at most `alpha`. This is as good as an A/B
      test only where the outcome does not depend on the answer that was served: the loop has to say so, by
      `outcome_depends_on_prediction=False`.

    All of it holds however often one looks, where units are independent of each other: rows of one unit need not be.
    Losses are told apart best at about `units` labelled answers.
    """

    length: str
    _: KW_ONLY
    share: float = 1.0
    metric: str | None = None
    margin: float = 0.05
    failures: float = 0.01
    min_units: int = 100
    units: int = 500
    decides: bool = False
    patience: str = "14d"
    alpha: float = 0.05

    def __post_init__(self) -> None:
        duration(self.length, where="Shadow(…)")
        duration(self.patience, where="Shadow(patience=…)")
        check_stage_metric("Shadow(metric=…)", self.metric)
        if not 0 < self.share <= 1:
            raise BadDefinition("Shadow(share=…)", f"{self.share!r} is no share", "Give more than 0, up to 1.")
        if not 0 < self.alpha < 1 or not self.margin >= 0 or self.min_units < 2 or self.units < 1:
            raise BadDefinition(
                repr(self), "a bound is out of range", "Keep 0 < alpha < 1, margin >= 0, min_units >= 2, units >= 1."
            )
        if not 0 <= self.failures < 1:
            raise BadDefinition("Shadow(failures=…)", f"{self.failures!r} is no share", "Give 0 or more, below 1.")

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

    def show(self, step: Step, evidence: Evidence, *, look: int, metric: str) -> tuple[Shown, ...]:
        """Return the rows of evidence that a person reads."""
        assert isinstance(evidence, ShadowEvidence)
        bounds = self._bounds(evidence.loss_difference, evidence, self.alpha)
        loss = bounded_row(metric, "shadow", evidence.champion_loss, evidence.challenger_loss, bounds)
        failed = failure_row((0, evidence.units), (evidence.failed_units, evidence.units), "shadow")
        times = seconds_rows(evidence.champion_seconds, evidence.shadow_seconds, "shadow")
        return (loss, failed, *agreement_rows(evidence), *times)

    def judge(self, step: Step, evidence: Evidence, *, elapsed: timedelta, look: int, metric: str) -> Verdict:
        """Return the verdict on the pairs seen so far."""
        assert isinstance(evidence, ShadowEvidence)
        broken = self._broken(evidence)
        if broken is not None:
            return broken
        over, seen = elapsed >= step.at_most, evidence.loss_difference.count
        if seen < self.min_units:
            early = f", shadowed for {elapsed} of {step.at_least}" if elapsed < step.at_least else ""
            why = f"{seen} units with mature labels are fewer than the {self.min_units} it takes{early}"
            return Verdict("give_up" if over else "hold", why)
        return self._compared(evidence, elapsed >= step.at_least, over, metric)

    def _broken(self, evidence: ShadowEvidence) -> Verdict | None:
        """Stop a shadow that fails for so many units that no margin is needed to see it."""
        failed, units = evidence.failed_units, evidence.units
        if failed < _FEWEST_FAILED or failed <= self.failures * units:
            return None
        if self.failures:
            # As if failed units were an arm that the tolerated share of the units is drawn into.
            found = float(more_failures_evidence(units - failed, failed, share=self.failures))
            if found < 1 / (self.alpha * _FAILURES):
                return None
        return Verdict("stop", f"the shadow failed for {failed} of {units} units", looked=True)

    def _compared(self, evidence: ShadowEvidence, ripe: bool, over: bool, metric: str) -> Verdict:
        champion, challenger = evidence.champion_loss, evidence.challenger_loss
        excess = paired_excess(champion, challenger, evidence.loss_difference, margin=self.margin)
        passing = self._bounds(excess, evidence, self.alpha)
        numbers = (
            f"{metric} on {passing.n} units, pair by pair: challenger {challenger.mean:.4f}, champion "
            f"{champion.mean:.4f}; less the margin of {self.margin * champion.mean:.4f} the difference is "
            f"{passing.estimate:+.4f} [{passing.low:+.4f}, {passing.high:+.4f}]"
        )
        if self.decides:
            better = self._bounds(evidence.loss_difference, evidence, self.alpha)
            if better.high < 0:
                why = f"{numbers}; the challenger's loss is lower, by {-better.estimate:.4f} [{-better.high:.4f}, "
                return Verdict("promote", f"{why}{-better.low:.4f}]", looked=True)
        if self._bounds(excess, evidence, self.alpha * (1 - _FAILURES)).low > 0:
            return Verdict("stop", f"{numbers}: worse than the margin", looked=True)
        if ripe and passing.high <= 0:
            return Verdict("advance", f"{numbers}: within the margin", looked=True)
        if over:
            return Verdict("give_up", f"{numbers}: not enough evidence after {self.patience}", looked=True)
        return Verdict("hold", f"{numbers}: not enough evidence yet", looked=True)

    def _bounds(self, sample: Moments, evidence: ShadowEvidence, alpha: float) -> Interval:
        answers = effective_answers(evidence.loss_difference, evidence.row_loss_difference)
        return mean_bounds(sample, alpha=alpha, planned=self.units, answers=answers)
