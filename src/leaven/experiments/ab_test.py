"""Is the challenger better for the units that it serves?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY
from datetime import timedelta

from leaven.duration import duration
from leaven.errors import BadDefinition
from leaven.events.labels import LabelRule
from leaven.experiments.ab_design import Design
from leaven.experiments.ab_evidence import ABEvidence
from leaven.experiments.ab_judge import judged
from leaven.experiments.ab_metrics import Adjust, Guardrail, Latency, Metric, adjustable, check_metric, gauge, name_of
from leaven.experiments.ab_observe import observed
from leaven.experiments.ab_reading import LEAST
from leaven.experiments.ab_report import Report, report
from leaven.experiments.evidence import Evidence
from leaven.experiments.showing import Shown, from_result
from leaven.experiments.stage import Step, Traffic
from leaven.experiments.verdict import Verdict
from leaven.stats.metrics import default_metric
from leaven.values import value


@value
class ABTest:
    """Serves the challenger to `share` of the units and promotes it once it is shown to be better.

    A unit counts in the bucket of time (of length `every`) in which it first met its arm, with what it did in its
    first `over` from then. Only buckets that have closed are compared: their last unit's time is over, and so is the
    window of every label rule. So an arm whose labels come faster gains nothing by that.

    In this order, with the numbers told:

    - the units are not split as planned, or labels are missing in one arm more than in the other, or more than 1 % of
      the units met both arms: stopped, for no verdict can be trusted (sequential tests, 1 % each);
    - the challenger fails more often: stopped (sequential, 1 %);
    - it is shown to be worse by `metric` or a guardrail, by more than the margin as far as one can tell: stopped, at
      any look (one-sided confidence sequences, `alpha` over all of them and for ever; 1.5 % in 14 daily looks);
    - at a look (a bucket closed, after `at_least`), it is promoted if `metric` is shown to be better by a
      group-sequential test (Lan and DeMets, alpha t^3, t the share of `units` that are measured), every guardrail is
      shown to stay within its margin, and no slice is shown to be worse;
    - once all `units` are measured, or after `patience`, it is given up: not enough evidence.

    Args:
        metric: What decides: a loss or quality by name (the task's own loss, if None), or `Outcome(rule)`,
            `Ratio(rule, rule)`, `Latency(0.95)`, `Failures()`.
        units: Planned, of both arms: `leaven trial size` says how many an effect takes.
        share: Of the units, to the challenger.
        over: How long a unit is measured from when it met its arm.
        every: Length of a bucket, and so the time between two looks.
        guardrails: Metrics that must be shown not to get worse than by their margin.
        secondary: Metrics that are reported and decide nothing.
        slices: Features by whose values (as of a unit's first request) the metrics are split as well.
        protect: Whether a slice that is shown to be worse keeps the challenger from being promoted.
        adjust: What is taken out of the metric to see more with fewer units: the unit's own metric in the time
            `before` the trial (CUPED), or the champion's `score` of the unit's first request (CUPAC, of an outcome).
        before: How far back that goes.
        margin: If more than 0, the challenger need only be shown not to be worse by more than this share.
        alpha: The error, two-sided.
        at_least: No promotion sooner.
        patience: No longer than this.
    """

    metric: Metric | None = None
    _: KW_ONLY
    units: int = 8_000
    share: float = 0.5
    over: str = "1d"
    every: str = "1d"
    guardrails: Sequence[Guardrail] = ()
    secondary: Sequence[Metric] = ()
    slices: Sequence[str] = ()
    protect: bool = True
    adjust: Adjust | None = None
    before: str = "14d"
    margin: float = 0.0
    alpha: float = 0.05
    at_least: str = "7d"
    patience: str = "42d"

    def __post_init__(self) -> None:
        for name in ("guardrails", "secondary", "slices"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        for name in ("over", "every", "before", "at_least", "patience"):
            duration(getattr(self, name), where=f"ABTest({name}=…)")
        if self.metric is not None:
            check_metric("ABTest(metric)", self.metric)
        for metric in self.secondary:
            check_metric("ABTest(secondary=…)", metric)
        for guardrail in self.guardrails:
            if not isinstance(guardrail, Guardrail):
                raise BadDefinition(
                    "ABTest(guardrails=…)", f"{guardrail!r} has no margin", "Write Guardrail(metric, margin=0.02)."
                )
        self._check_bounds()
        if self.metric is not None:
            self._check_names(self.metric)

    def _check_bounds(self) -> None:
        fine = 0 < self.share < 1 and 0 < self.alpha < 1 and 0 <= self.margin < float("inf") and self.units >= 200
        if not fine or self.adjust not in (None, "before", "score"):
            raise BadDefinition(
                repr(self),
                "a bound is out of range",
                'Keep 0 < share < 1, 0 < alpha < 1, margin >= 0, units >= 200, adjust None, "before" or "score".',
            )
        smaller = min(self.share, 1 - self.share)
        if smaller * self.units < LEAST:
            raise BadDefinition(
                repr(self), f"{smaller:.3g} of {self.units:,} units are fewer than the {LEAST} that an arm takes",
                "Plan more units, or a share nearer to 0.5.",
            )  # fmt: skip
        if duration(self.at_least) > duration(self.patience):
            raise BadDefinition(repr(self), "its patience is over before at_least", "Make patience longer.")

    def _check_names(self, metric: Metric) -> None:
        """Refuse metrics that could not be told apart, and settings that do not fit the deciding one."""
        names = [name_of(each) for each in (metric, *(g.metric for g in self.guardrails), *self.secondary)]
        twice = next((name for place, name in enumerate(names) if name in names[:place]), None)
        if twice is not None:
            raise BadDefinition(repr(self), f"two metrics are called {twice!r}", "Keep one of them.")
        if self.adjust is not None and not adjustable(metric, self.adjust):
            mend = "an Outcome(…) can" if self.adjust == "score" else "a mean or a ratio can"
            raise BadDefinition(repr(self), f"{name_of(metric)} cannot be adjusted by {self.adjust!r}", f"Only {mend}.")
        if self.slices and not gauge(metric).sliced:
            raise BadDefinition(repr(self), f"{name_of(metric)} is not kept by slice", "Leave out slices=.")

    def check_fits(self, *, features: Sequence[str], label: LabelRule, answers: bool, where: str) -> None:
        """Refuse what does not fit a loop: slices that are no features, metrics of another task, too little patience.

        Args:
            features: Their names.
            label: The loop's own.
            answers: Whether its versions answer; sets of parameters do not.
            where: What to call it.
        Raises:
            BadDefinition: that is so.
        """
        unknown = [name for name in self.slices if name not in features]
        if unknown:
            raise BadDefinition(
                where, f"slices of ABTest name {unknown[0]!r}, which is no feature", f"There are {', '.join(features)}."
            )
        if self.adjust == "score" and label.task == "multiclass":
            what = "a score is one number, and versions answer the probability of each class"
            raise BadDefinition(f"{where}, ABTest", what, 'Use adjust="before", or none.')
        metric = self._primary(default_metric(label.task))
        for each in (metric, *(guardrail.metric for guardrail in self.guardrails), *self.secondary):
            check_metric(f"{where}, ABTest", each, label.task)
            if not answers and (isinstance(each, str | Latency) or self.adjust == "score"):
                what = f"{name_of(each)!r} is of answers" if self.adjust != "score" else "a score is an answer"
                raise BadDefinition(
                    where, f"{what}, and sets of parameters give none", "Use Outcome(…) or Ratio(…), and no score."
                )
        self._check_names(metric)
        design = self.design(default_metric(label.task))
        if design.every + design.lag(label) >= design.patience:
            raise BadDefinition(
                where, f"the patience of {self!r} is over before its first bucket closes", "Make patience longer."
            )

    def steps(self) -> tuple[Step, ...]:
        """Return the one step."""
        return (Step("canary", self.share, duration(self.at_least), duration(self.patience)),)

    @property
    def evidence(self) -> type[ABEvidence]:
        """What it is judged by."""
        return ABEvidence

    def observe(self, step: Step, traffic: Traffic, before: Evidence | None) -> ABEvidence:
        """Return what the log adds to what was seen before: the buckets that closed since, and counts of the others."""
        assert before is None or isinstance(before, ABEvidence)
        return observed(self.design(traffic.metric), traffic, before)

    def judge(self, step: Step, evidence: Evidence, *, elapsed: timedelta, look: int, metric: str) -> Verdict:
        """Return the verdict; which looks there were is in the evidence."""
        assert isinstance(evidence, ABEvidence)
        return judged(self.design(metric), evidence, elapsed)

    def report(self, evidence: ABEvidence, *, metric: str) -> Report:
        """Return how all metrics stand, for people; `metric` is the task's own loss."""
        return report(self.design(metric), evidence)

    def show(self, step: Step, evidence: Evidence, *, look: int, metric: str) -> tuple[Shown, ...]:
        """Return the rows of evidence that a person reads."""
        assert isinstance(evidence, ABEvidence)
        lines = self.report(evidence, metric=metric).lines
        return tuple(from_result(line.result, level=1 - self.alpha) for line in lines)

    def design(self, metric: str) -> Design:
        """Return the settings with the metrics resolved; `metric` is the task's own loss."""
        return Design(
            gauge(self._primary(metric), adjust=self.adjust),
            tuple(gauge(each.metric, margin=each.margin, adjust=self.adjust) for each in self.guardrails),
            tuple(gauge(each, adjust=self.adjust) for each in self.secondary),
            self.units, self.share, duration(self.over), duration(self.every), tuple(self.slices), self.protect,
            self.adjust, duration(self.before), self.margin, self.alpha, duration(self.at_least),
            duration(self.patience),
        )  # fmt: skip

    def _primary(self, metric: str) -> Metric:
        return metric if self.metric is None else self.metric
