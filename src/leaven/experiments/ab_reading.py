"""How does the challenger stand by one metric?"""

from __future__ import annotations

import math
from dataclasses import dataclass

from leaven.experiments.ab_evidence import ARMS, CHALLENGER, CHAMPION, ABEvidence
from leaven.experiments.ab_metrics import Failures, Gauge
from leaven.experiments.analysis import pair_of
from leaven.experiments.measures import Cell, Kept
from leaven.stats.bayesian import USUAL
from leaven.stats.comoments import Comoments
from leaven.stats.comparison import Rule, Wholes, relative_bounds
from leaven.stats.confidence_sequence import mixture, one_sided_evidence
from leaven.stats.estimate import Estimate
from leaven.stats.quantiles import QuantileCounts
from leaven.stats.shrinkage import shrunk

LEAST = 100  # units of each arm, below which nothing is said of it


@dataclass(frozen=True, slots=True)
class Reading:
    """One metric of both arms."""

    gauge: Gauge
    control: Estimate
    arm: Estimate
    wholes: Wholes | None = None  # for the ratio of the two

    @property
    def known(self) -> bool:
        """Whether there is anything to judge: enough units in both arms, and numbers that differ among them."""
        enough = min(self.control.n, self.arm.n) >= LEAST
        return enough and math.isfinite(self.gain) and math.isfinite(self.error) and self.error > 0

    @property
    def alike(self) -> bool:
        """Whether there are enough units and not one differs: in a replay, every answer takes no time."""
        enough = min(self.control.n, self.arm.n) >= LEAST
        return enough and self.gain == 0 and self.control.variance == self.arm.variance == 0

    @property
    def gain(self) -> float:
        """The challenger's value less the champion's, positive where that is better."""
        difference = self.arm.value - self.control.value
        return -difference if self.gauge.measure.lower_is_better else difference

    @property
    def error(self) -> float:
        """Standard error of the difference; NaN where there is none."""
        return math.sqrt(max(0.0, self.control.variance + self.arm.variance))

    def harm(self, *, alpha: float, planned: int) -> float:
        """Return the evidence, valid at every look, that the challenger is worse; 1 / alpha is enough."""
        if not self.known:
            return 0.0
        spread = mixture(min(2 * alpha, 0.999), planned)
        return float(one_sided_evidence(-self.gain / self.error, self.control.n + self.arm.n, spread=spread))

    def better(self, rule: Rule) -> bool:
        """Whether the whole interval lies on the good side."""
        return self.gain > _critical(rule, self) * self.error

    def within(self, margin: float, rule: Rule) -> bool:
        """Whether it is shown to be worse by no more than the margin, a share of the champion's value.

        The margin of failures is absolute: it stays clear where nothing fails.
        """
        if isinstance(self.gauge.metric, Failures):
            return self.gain + margin > _critical(rule, self) * self.error
        control, arm, covariance = self.wholes or (self.control, self.arm, 0.0)
        low, high = relative_bounds(control, arm, rule, covariance=covariance)
        if low is None or high is None:
            return False
        return high < margin if self.gauge.measure.lower_is_better else low > -margin

    def beyond(self, margin: float) -> bool:
        """Whether it is worse by more than the margin, as far as one can tell."""
        absolute = isinstance(self.gauge.metric, Failures)
        return -self.gain > margin * (1.0 if absolute else abs(self.control.value))

    def said(self, rule: Rule | None = None) -> str:
        """Return the numbers, with the interval of `rule` or else the standard error, and the shrunk difference."""
        difference = self.arm.value - self.control.value
        champion, challenger = self._shown(self.control), self._shown(self.arm)
        text = f"{self.gauge.name}: challenger {challenger}, champion {champion}, difference {difference:+.4g}"
        if not self.known:
            return text
        half = math.inf if rule is None else _critical(rule, self) * self.error
        spread = (
            f" ± {self.error:.2g}" if math.isinf(half) else f" [{difference - half:+.4g}, {difference + half:+.4g}]"
        )
        return f"{text}{spread}, shrunk {self.shrunk:+.4g}"

    def _shown(self, estimate: Estimate) -> str:
        if isinstance(self.gauge.metric, Failures):  # what was seen, not what it was raised to
            return f"{round(estimate.value * (estimate.n + 2) - 1):,} of {estimate.n:,} units"
        return f"{estimate.value:.4g} ({estimate.n:,} units)"

    @property
    def shrunk(self) -> float:
        """The difference drawn towards none: what is left of it, knowing how large differences usually are."""
        usual = USUAL * abs(self.control.value)
        difference = self.arm.value - self.control.value
        return shrunk(difference, self.error, usual=usual) if usual > 0 else difference


def reading(gauge: Gauge, evidence: ABEvidence, *, of: str | None = None) -> Reading:
    """Return how a metric stands, in one slice or over all units."""
    found = (cell for cell in evidence.sums.cells if cell.measure == gauge.name and cell.slice == of)
    cell = next(found, Cell(gauge.name, of, {CHAMPION: Comoments(), CHALLENGER: Comoments()}))
    if isinstance(gauge.metric, Failures):
        return Reading(gauge, _rate(cell.arms[CHAMPION]), _rate(cell.arms[CHALLENGER]))
    if all(_timeless(cell.arms[arm]) for arm in ARMS):
        nothing = [Estimate(0.0, 0.0, cell.arms[arm].count) for arm in ARMS]
        return Reading(gauge, nothing[0], nothing[1])
    pair = pair_of(cell, gauge.measure, CHAMPION, CHALLENGER)
    wholes = None if pair.wholes is None else (*_cautious(pair.wholes[0], pair.wholes[1]), pair.wholes[2])
    return Reading(gauge, *_cautious(pair.control, pair.arm), wholes)


def _cautious(control: Estimate, arm: Estimate) -> tuple[Estimate, Estimate]:
    """Both with the larger of two errors of their difference: each arm's own, or as if both spread alike.

    A small arm in which something rare has not happened yet seems to know its mean to the last digit; where the arms do
    not differ, its units spread as the others do. With even shares the two errors are the same.
    """
    if min(control.n, arm.n) < 2 or not math.isfinite(control.variance + arm.variance):
        return control, arm
    spread = control.variance * control.n * (control.n - 1) + arm.variance * arm.n * (arm.n - 1)
    alike = spread / (control.n + arm.n - 2)
    if alike / control.n + alike / arm.n <= control.variance + arm.variance:
        return control, arm
    return Estimate(control.value, alike / control.n, control.n), Estimate(arm.value, alike / arm.n, arm.n)


def _timeless(kept: Kept) -> bool:
    """Whether all rows lie at or below the lowest edge, which is 0."""
    return isinstance(kept, QuantileCounts) and 0 < kept.rows == kept.below[0]


def _rate(kept: Kept) -> Estimate:
    """A rare share, known with some error even where nothing was seen.

    Source:
        Agresti and Caffo (2000): one success and one failure more in each arm.
    """
    assert isinstance(kept, Comoments)
    seen = kept.count * kept.centres[0] if kept.count else 0.0
    rate = (seen + 1) / (kept.count + 2)
    return Estimate(rate, rate * (1 - rate) / (kept.count + 2), kept.count)


def _critical(rule: Rule, of: Reading) -> float:
    v0, v1 = of.control.variance, of.arm.variance
    parts = v0 * v0 / (of.control.n - 1) + v1 * v1 / (of.arm.n - 1)
    return rule.critical((v0 + v1) ** 2 / parts if parts > 0 else math.inf, of.control.n + of.arm.n)
