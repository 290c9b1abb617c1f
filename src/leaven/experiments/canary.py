"""Does the challenger harm the units that it serves?"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from leaven.duration import duration
from leaven.errors import BadDefinition
from leaven.experiments.evidence import CanaryEvidence, Evidence, canary_evidence
from leaven.experiments.stage import Step, Traffic
from leaven.experiments.verdict import Verdict, check_stage_metric
from leaven.stats.exact import more_failures_p_value
from leaven.stats.intervals import difference_interval
from leaven.stats.looks import alpha_at_look
from leaven.values import written

_FAIL_FAST = 0.05  # of alpha; the exact test of failures gets the rest of its half


@dataclass(frozen=True, init=False, repr=False)
class Canary:
    """Serves the challenger to growing shares of the units, each for at least `each`.

    Per step, on that step's own evidence, champion and canary side by side in the same hours:

    - fail-fast: the first `fail_fast` units that meet a failure are all the canary's (more than these where its share
      is so large that chance would do the same);
    - failures: an exact test of failed units against the champion's;
    - loss on mature labels: one that is shown to be worse, and by more than `margin` (a share of the champion's loss)
      as far as one can tell, stops it; the step is passed once the loss is shown to be within the margin.

    Over all looks of a step, a challenger that is no worse is stopped with probability at most `alpha` (half of it for
    failures of both kinds, half for the loss), and one that is beyond the margin is passed with probability at most
    `alpha` / 2.
    """

    shares: tuple[float, ...]
    each: str
    metric: str | None
    margin: float
    fail_fast: int
    min_units: int
    patience: str
    alpha: float

    def __init__(
        self,
        *shares: float,
        each: str = "1d",
        metric: str | None = None,
        margin: float = 0.25,
        fail_fast: int = 5,
        min_units: int = 50,
        patience: str = "14d",
        alpha: float = 0.05,
    ) -> None:
        for name, given in (
            ("shares", shares), ("each", each), ("metric", metric), ("margin", margin), ("fail_fast", fail_fast),
            ("min_units", min_units), ("patience", patience), ("alpha", alpha),
        ):  # fmt: skip
            object.__setattr__(self, name, given)
        duration(each, where="Canary(each=…)")
        duration(patience, where="Canary(patience=…)")
        check_stage_metric("Canary(metric=…)", metric)
        if not shares or any(not 0 < share < 1 for share in shares) or list(shares) != sorted(set(shares)):
            raise BadDefinition(
                f"Canary{shares}", "its shares are no ramp", "Give growing shares between 0 and 1, such as 0.1, 0.5."
            )
        if not 0 < alpha < 1 or not margin >= 0 or min_units < 2 or fail_fast < 1:
            raise BadDefinition(
                repr(self),
                "a bound is out of range",
                "Keep 0 < alpha < 1, margin >= 0, min_units >= 2, fail_fast >= 1.",
            )

    def __repr__(self) -> str:
        defaults: dict[str, Any] = self.__init__.__kwdefaults__  # type: ignore[misc]
        given = {name: getattr(self, name) for name in defaults}
        parts = [written(share) for share in self.shares]
        parts += [f"{name}={written(kept)}" for name, kept in given.items() if kept != defaults[name]]
        return f"Canary({', '.join(parts)})"

    def steps(self) -> tuple[Step, ...]:
        """Return one step per share."""
        return tuple(Step("canary", share, duration(self.each), duration(self.patience)) for share in self.shares)

    @property
    def evidence(self) -> type[CanaryEvidence]:
        """What it is judged by."""
        return CanaryEvidence

    def observe(self, step: Step, traffic: Traffic, before: Evidence | None) -> CanaryEvidence:
        """Return what the log says of this step, read anew."""
        return canary_evidence(traffic.served(), traffic.metric)

    def judge(self, step: Step, evidence: Evidence, *, elapsed: timedelta, look: int, metric: str) -> Verdict:
        """Return the verdict on what this step has seen so far."""
        assert isinstance(evidence, CanaryEvidence)
        champion, canary = evidence.champion, evidence.canary
        if not champion.failures and self._telling(canary.failed_units, step.share):
            return Verdict("stop", f"{canary.failed_units} canary units met a failure, no champion unit did")
        if canary.failed_units:
            p = more_failures_p_value((champion.failed_units, champion.units), (canary.failed_units, canary.units))
            if p < alpha_at_look(self.alpha * (0.5 - _FAIL_FAST), look):
                why = f"{canary.failed_units} of {canary.units} canary units met a failure, {champion.failed_units} of "
                return Verdict("stop", f"{why}{champion.units} champion units did (p = {p:.2g}, look {look})", True)
        over = elapsed >= step.at_most
        if min(champion.loss.count, canary.loss.count) < self.min_units:
            why = f"{canary.loss.count} canary units with mature labels are fewer than the {self.min_units} it takes"
            return Verdict("give_up" if over else "hold", why, looked=bool(canary.failed_units))
        return self._compared(evidence, elapsed >= step.at_least, over, look, metric)

    def _telling(self, failed_units: int, share: float) -> bool:
        """Whether so many first failures are hardly all the canary's by chance: each is, with probability `share`."""
        return failed_units >= self.fail_fast and share**failed_units <= self.alpha * _FAIL_FAST

    def _compared(self, evidence: CanaryEvidence, ripe: bool, over: bool, look: int, metric: str) -> Verdict:
        champion, canary = evidence.champion.loss, evidence.canary.loss
        # Twice the one-sided error: the bound that decides is one end of a two-sided interval.
        error = alpha_at_look(self.alpha, look)
        interval = difference_interval(champion, canary, alpha=error)
        beyond = difference_interval(champion.scaled(1 + self.margin), canary, alpha=error)
        numbers = (
            f"{metric} per unit: canary {canary.mean:.4f} ({canary.count} units), champion {champion.mean:.4f} "
            f"({champion.count} units), difference {interval.estimate:+.4f} [{interval.low:+.4f}, {interval.high:+.4f}]"
            f"; less the margin of {self.margin * champion.mean:.4f}: {beyond.estimate:+.4f} [{beyond.low:+.4f}, "
            f"{beyond.high:+.4f}] (look {look})"
        )
        if interval.low > 0 and beyond.estimate > 0:
            return Verdict("stop", f"{numbers}: worse than the margin", looked=True)
        if ripe and beyond.high <= 0:
            return Verdict("advance", f"{numbers}: within the margin", looked=True)
        if over:
            return Verdict("give_up", f"{numbers}: not enough evidence after {self.patience}", looked=True)
        return Verdict("hold", f"{numbers}: not enough evidence yet", looked=True)
