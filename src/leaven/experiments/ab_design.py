"""What exactly does an A/B test ask, once its loop is known?"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from leaven.events.labels import LabelRule
from leaven.experiments.ab_metrics import Adjust, Gauge, rules_of


@dataclass(frozen=True, slots=True)
class Design:
    """The settings of a test with its metrics resolved: what is gathered, and what it is judged by."""

    primary: Gauge
    guardrails: tuple[Gauge, ...]
    secondary: tuple[Gauge, ...]
    units: int  # planned, of both arms
    share: float  # of the challenger
    over: timedelta
    every: timedelta
    slices: tuple[str, ...]
    protect: bool
    adjust: Adjust | None
    before: timedelta
    margin: float
    alpha: float
    at_least: timedelta
    patience: timedelta

    @property
    def gauges(self) -> tuple[Gauge, ...]:
        """All of them, the deciding one first."""
        return (self.primary, *self.guardrails, *self.secondary)

    @property
    def deciding(self) -> tuple[Gauge, ...]:
        """Those that can stop the challenger."""
        return (self.primary, *self.guardrails)

    def rules(self, label: LabelRule) -> tuple[LabelRule, ...]:
        """The label rules that a bucket waits for; `label` is the loop's own."""
        return rules_of([each.metric for each in self.gauges], label)

    def lag(self, label: LabelRule) -> timedelta:
        """How long after its end a bucket closes."""
        return self.over + max((rule.window for rule in self.rules(label)), default=timedelta(0))
