"""Was it right to promote?

The challenger serves as the new champion, beside a few units that were left with the old one. Harm that is shown gives
everybody back to the old champion; where none is shown for long enough, the new one serves these units as well.
"""

from __future__ import annotations

import math
from dataclasses import KW_ONLY
from datetime import timedelta

from leaven.duration import duration
from leaven.errors import BadDefinition
from leaven.events.columns import Examples
from leaven.events.source import Span
from leaven.experiments.evidence import ArmEvidence, Evidence, UnitDays, WatchEvidence, arm_evidence, unit_days
from leaven.experiments.routing import HOLDBACK
from leaven.experiments.showing import Shown, failure_row
from leaven.experiments.stage import Step, Traffic
from leaven.experiments.verdict import Verdict, check_stage_metric
from leaven.stats.confidence_sequence import one_sided_critical
from leaven.stats.failures import more_failures_evidence
from leaven.values import value

_FAIL_FAST = 0.05  # of alpha; the sequential test of failures gets the rest of its half


@value
class Watch:
    """Promotes, and watches the new champion for `length`, with `holdback` of the units left with the old one.

    Harm is any of these, and rolls back:

    - failures: more units of the new champion meet one than its share explains, by a test that may be looked at any
      time;
    - fail-fast: `fail_fast` or more of its units met a failure, a larger share of each day's units than could be with
      the old champion (as seen during the trial, or for a day), and no unit of the holdback did. Without a holdback
      this is the only rule;
    - loss on mature labels, per unit: worse than the holdback's by more than `margin` (a share of it), by a one-sided
      confidence sequence that is tightest at `planned` units of both.

    Over a watch of any length, a champion that is no worse is rolled back with probability at most `alpha`: half of it
    for failures of both kinds, half for the loss; without a holdback all of it is for failures.
    """

    length: str
    _: KW_ONLY
    holdback: float = 0.05
    metric: str | None = None
    margin: float = 0.0
    fail_fast: int = 5
    min_units: int = 50
    planned: int = 5_000
    alpha: float = 0.05

    def __post_init__(self) -> None:
        duration(self.length, where="Watch(…)")
        check_stage_metric("Watch(metric=…)", self.metric)
        if not 0 <= self.holdback <= 0.5:
            raise BadDefinition("Watch(holdback=…)", f"{self.holdback!r} is no holdback", "Give 0 up to 0.5.")
        if not 0 < self.alpha < 1 or not self.margin >= 0 or min(self.min_units, 2 * self.fail_fast, self.planned) < 2:
            raise BadDefinition(
                repr(self),
                "a bound is out of range",
                "Keep 0 < alpha < 1, margin >= 0, min_units and planned 2 or more, fail_fast 1 or more.",
            )

    def steps(self) -> tuple[Step, ...]:
        """Return the one step; its share is the holdback's."""
        length = duration(self.length)
        return (Step("watch", self.holdback, length, length),)

    @property
    def evidence(self) -> type[WatchEvidence]:
        """What it is judged by."""
        return WatchEvidence

    def observe(self, step: Step, traffic: Traffic, before: Evidence | None) -> WatchEvidence:
        """Return what the log says of the new champion, the holdback, and the old champion before the promotion."""
        served = traffic.served()
        arm, version = served.predictions.arm, served.predictions.version
        champion = served.take((arm == "champion") & (version == traffic.challenger))
        return WatchEvidence(
            champion=arm_evidence(champion, traffic.metric),
            holdback=arm_evidence(served.take(arm == HOLDBACK), traffic.metric),
            days=unit_days(champion),
            before=before.before if isinstance(before, WatchEvidence) else unit_days(_of_old_champion(traffic)),
        )

    def judge(self, step: Step, evidence: Evidence, *, elapsed: timedelta, look: int, metric: str) -> Verdict:
        """Return `stop` where harm is shown, and `advance` once the time is over without."""
        assert isinstance(evidence, WatchEvidence)
        harm = self._failing(evidence) or self._worse(evidence, metric)
        if harm is not None:
            return harm
        said = f"no harm shown in {elapsed} of {step.at_least}: {self._numbers(evidence, metric)}"
        return Verdict("advance" if elapsed >= step.at_least else "hold", said, looked=True)

    def show(self, step: Step, evidence: Evidence, *, look: int, metric: str) -> tuple[Shown, ...]:
        """Return the rows of evidence that a person reads."""
        assert isinstance(evidence, WatchEvidence)
        champion, holdback = evidence.champion, evidence.holdback
        if not self.holdback:
            before, days = evidence.before, evidence.days
            return (
                failure_row((before.failed, before.seen), (days.failed, days.seen), "champion", "failed unit-days"),
            )
        estimate, low = self._excess(evidence)
        failures = failure_row(
            (holdback.failed_units, holdback.units), (champion.failed_units, champion.units), "champion"
        )
        means = (_known(holdback.loss.mean), _known(champion.loss.mean))
        counts = (holdback.loss.count, champion.loss.count)
        return (
            Shown(metric, "champion", *means, counts, _known(estimate), _known(low), None, 1 - self.alpha / 2),
            failures,
        )

    def _failing(self, evidence: WatchEvidence) -> Verdict | None:
        failed, held = evidence.champion.failed_units, evidence.holdback.failed_units
        if not failed:
            return None
        if self.holdback:
            seen = float(more_failures_evidence(held, failed, share=1 - self.holdback))
            if seen >= 1 / (self.alpha * (0.5 - _FAIL_FAST)):
                why = f"{failed} of {evidence.champion.units} units of the new champion met a failure, {held} of "
                return Verdict("stop", f"{why}{evidence.holdback.units} of the holdback did (e = {seen:.3g})", True)
        if failed >= self.fail_fast and not held:
            return self._failing_more_than_before(evidence.before, evidence.days)
        return None

    def _failing_more_than_before(self, before: UnitDays, now: UnitDays) -> Verdict | None:
        if not before.seen:
            return None
        alpha = self.alpha * (_FAIL_FAST if self.holdback else 1.0)
        # Half of the error says how often the old champion may have failed at most; the other half, that this is more:
        # as if failed unit-days were an arm that such a share of all is drawn into.
        most = _highest_share(before, alpha=alpha / 2)
        if float(more_failures_evidence(now.seen - now.failed, now.failed, share=most)) < 2 / alpha:
            return None
        why = f"the new champion failed on {now.failed} of {now.seen} unit-days, the old one before on {before.failed} "
        return Verdict("stop", f"{why}of {before.seen}: on {most:.2%} of all at most", True)

    def _worse(self, evidence: WatchEvidence, metric: str) -> Verdict | None:
        _, low = self._excess(evidence)
        return Verdict("stop", f"worse: {self._numbers(evidence, metric)}", True) if low > 0 else None

    def _excess(self, evidence: WatchEvidence) -> tuple[float, float]:
        """By how much the loss exceeds the holdback's and the margin, and what it exceeds it by at the least."""
        champion, held = evidence.champion.loss, evidence.holdback.loss.scaled(1 + self.margin)
        if min(champion.count, held.count) < max(2, self.min_units):
            return math.nan, -math.inf
        excess = champion.mean - held.mean
        error = math.sqrt(champion.variance / champion.count + held.variance / held.count)
        critical = one_sided_critical(champion.count + held.count, alpha=self.alpha / 2, planned=self.planned)
        return excess, excess - critical * error if error > 0 else -math.inf

    def _numbers(self, evidence: WatchEvidence, metric: str) -> str:
        champion, holdback = evidence.champion, evidence.holdback
        failed = f"{champion.failed_units} of {champion.units} units met a failure"
        if not self.holdback:
            return f"{failed}; there is no holdback to compare the loss with"
        said = f"{failed}, {holdback.failed_units} of {holdback.units} of the holdback; {metric} per unit: "
        estimate, low = self._excess(evidence)
        if math.isnan(estimate):
            least = min(champion.loss.count, holdback.loss.count)
            return f"{said}{least} units with mature labels are fewer than the {self.min_units} that a comparison takes"
        margin = f", less the margin of {self.margin * holdback.loss.mean:.4f}" if self.margin else ""
        said += f"{_mean(champion)}, holdback {_mean(holdback)}, difference{margin} {estimate:+.4f}"
        return f"{said}, at least {low:+.4f}" if math.isfinite(low) else f"{said}, too early to say more"


def _of_old_champion(traffic: Traffic) -> Examples:
    """What the old champion answered from the trial's beginning until the promotion, for a day at the least."""
    span = Span(min(traffic.opened or traffic.since, traffic.since - timedelta(days=1)), traffic.since)
    examples = traffic.source.examples(span, traffic.label, as_of=traffic.now)
    return examples.take(examples.predictions.version == traffic.champion)


def _highest_share(days: UnitDays, *, alpha: float) -> float:
    """Upper bound of the share of unit-days that fail, by Clopper and Pearson; too low with probability `alpha`."""
    from scipy.special import betaincinv

    return min(0.999, float(betaincinv(days.failed + 1, max(1, days.seen - days.failed), 1 - alpha)))


def _mean(arm: ArmEvidence) -> str:
    return f"{arm.loss.mean:.4f} ({arm.loss.count} units)"


def _known(number: float) -> float | None:
    return number if math.isfinite(number) else None
