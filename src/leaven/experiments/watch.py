"""Was it right to promote?

The challenger serves as the new champion, beside a few units that were left with the old one. Harm that is shown gives
everybody back to the old champion; where none is shown for long enough, the new one serves these units as well.
"""

from __future__ import annotations

from dataclasses import KW_ONLY
from datetime import timedelta

from leaven.duration import duration
from leaven.errors import BadDefinition
from leaven.events.columns import Examples
from leaven.events.source import Span
from leaven.experiments.evidence import Evidence, UnitDays, WatchEvidence, arm_evidence, unit_days
from leaven.experiments.harm import FIRST_FAILURES, Limits, compare_losses, harm
from leaven.experiments.routing import HOLDBACK
from leaven.experiments.showing import Shown, bounded_row, failure_row, seconds_rows
from leaven.experiments.stage import Step, Traffic
from leaven.experiments.verdict import Verdict, check_stage_metric
from leaven.stats.failures import more_failures_evidence
from leaven.values import value

_NAMES = ("holdback", "champion")


@value
class Watch:
    """Promotes, and watches the new champion for `length`, with `holdback` of the units left with the old one.

    Harm is any of these, and rolls back:

    - failures, slowness, loss on mature labels: what a canary would be stopped for (`Canary`), with the holdback in the
      champion's place; a loss has to be shown to be worse, and by more than `margin` (a share of the holdback's) as far
      as one can tell. Losses are told apart best at `planned` answers of both;
    - fail-fast: `fail_fast` or more of its units met a failure, a larger share of each day's units than could be with
      the old champion (as seen during the trial, or for a day), and no unit of the holdback did. Without a holdback
      this is the only rule.

    Over a watch of any length, a champion that is no worse is rolled back with probability at most `alpha`, split as a
    canary's; without a holdback all of it is for failures.
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
        harmful = self._harmful(evidence, metric)
        if harmful is not None:
            return harmful
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
        bounds = compare_losses(holdback, champion, self.limits).difference
        counts = (holdback.failed_units, holdback.units), (champion.failed_units, champion.units)
        return (
            bounded_row(metric, "champion", holdback.loss, champion.loss, bounds),
            failure_row(*counts, "champion"),
            *seconds_rows(holdback.seconds, champion.seconds, "champion"),
        )

    @property
    def limits(self) -> Limits:
        """How far is too far beside the holdback; for `leaven.experiments.harm`."""
        return Limits(
            1 - self.holdback, self.alpha, fail_fast=None, margin=self.margin, min_units=self.min_units,
            units=self.planned,
        )  # fmt: skip

    def _harmful(self, evidence: WatchEvidence, metric: str) -> Verdict | None:
        champion, holdback = evidence.champion, evidence.holdback
        if champion.failed_units >= self.fail_fast and not holdback.failed_units:
            broken = self._failing_more_than_before(evidence.before, evidence.days)
            if broken is not None:
                return broken
        why = harm(holdback, champion, self.limits, metric=metric, names=_NAMES) if self.holdback else None
        return None if why is None else Verdict("stop", why, looked=True)

    def _failing_more_than_before(self, before: UnitDays, now: UnitDays) -> Verdict | None:
        if not before.seen:
            return None
        alpha = self.alpha * (FIRST_FAILURES if self.holdback else 1.0)
        # Half of the error says how often the old champion may have failed at most; the other half, that this is more:
        # as if failed unit-days were an arm that such a share of all is drawn into.
        most = _highest_share(before, alpha=alpha / 2)
        if float(more_failures_evidence(now.seen - now.failed, now.failed, share=most)) < 2 / alpha:
            return None
        why = f"the new champion failed on {now.failed} of {now.seen} unit-days, the old one before on {before.failed} "
        return Verdict("stop", f"{why}of {before.seen}: on {most:.2%} of all at most", True)

    def _numbers(self, evidence: WatchEvidence, metric: str) -> str:
        champion, holdback = evidence.champion, evidence.holdback
        failed = f"{champion.failed_units} of {champion.units} units met a failure"
        if not self.holdback:
            return f"{failed}; there is no holdback to compare the loss with"
        said = f"{failed}, {holdback.failed_units} of {holdback.units} of the holdback"
        least = min(champion.loss.count, holdback.loss.count)
        if least < self.min_units:
            return f"{said}; {least} units with mature labels are fewer than the {self.min_units} that it takes"
        return f"{said}; {compare_losses(holdback, champion, self.limits).told(metric, _NAMES)}"


def _of_old_champion(traffic: Traffic) -> Examples:
    """What the old champion answered from the trial's beginning until the promotion, for a day at the least."""
    span = Span(min(traffic.opened or traffic.since, traffic.since - timedelta(days=1)), traffic.since)
    examples = traffic.source.examples(span, traffic.label, as_of=traffic.now)
    return examples.take(examples.predictions.version == traffic.champion)


def _highest_share(days: UnitDays, *, alpha: float) -> float:
    """Upper bound of the share of unit-days that fail, by Clopper and Pearson; too low with probability `alpha`."""
    from scipy.special import betaincinv

    return min(0.999, float(betaincinv(days.failed + 1, max(1, days.seen - days.failed), 1 - alpha)))
