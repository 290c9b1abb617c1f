"""Does the challenger harm the units that it serves?"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from leaven.duration import duration
from leaven.errors import BadDefinition
from leaven.experiments.evidence import CanaryEvidence, Evidence, canary_evidence
from leaven.experiments.harm import Limits, compare_losses, harm
from leaven.experiments.showing import Shown, bounded_row, failure_row, seconds_rows
from leaven.experiments.stage import Step, Traffic
from leaven.experiments.verdict import Verdict, check_stage_metric
from leaven.values import written

_NAMES = ("champion", "canary")


@dataclass(frozen=True, init=False, repr=False)
class Canary:
    """Serves the challenger to growing shares of the units, each for at least `each`.

    Per step, on that step's own evidence, champion and canary side by side in the same hours, unit by unit:

    - fail-fast: the first `fail_fast` units that meet a failure are all the canary's (more than these where its share
      is so large that chance would do the same); an error, a timeout and an answer that is no number are failures;
    - failures: more units meet one than the canary's share of the units explains;
    - slowness: units wait for their first answer longer than `slower` times as long as the champion's; answers within
      `slow` seconds are never slow. The factor is taken up to the next of 1, 1.14, 1.31, 1.5, 1.72, 1.97, 2.25, …;
    - loss on mature labels: one that is shown to be worse, and by more than `margin` (a share of the champion's loss)
      as far as one can tell, stops it; the step is passed once the loss is shown to be within the margin.

    Every rule holds however often one looks. A challenger that is no worse is stopped with probability at most `alpha`
    per step: 5 % of it by fail-fast, 30 % by failures, 15 % by slowness, 50 % by the loss. One that is beyond the
    margin is passed with probability at most `alpha` / 2. Losses are told apart best at about `units` labelled answers
    of both arms; at a fifth or at ten times as many, bounds are a tenth wider than they could be.

    `most_units` is the budget of exposure: once the canary has answered so many different units since the trial began,
    and the step is not passed, the champion gets all units back. Between two looks it may be exceeded.
    """

    shares: tuple[float, ...]
    each: str
    metric: str | None
    margin: float
    fail_fast: int
    slower: float | None
    slow: float
    min_units: int
    units: int
    most_units: int | None
    patience: str
    alpha: float

    def __init__(
        self,
        *shares: float,
        each: str = "1d",
        metric: str | None = None,
        margin: float = 0.25,
        fail_fast: int = 5,
        slower: float | None = 1.5,
        slow: float = 0.02,
        min_units: int = 50,
        units: int = 500,
        most_units: int | None = None,
        patience: str = "14d",
        alpha: float = 0.05,
    ) -> None:
        for name, given in (
            ("shares", shares), ("each", each), ("metric", metric), ("margin", margin), ("fail_fast", fail_fast),
            ("slower", slower), ("slow", slow), ("min_units", min_units), ("units", units), ("most_units", most_units),
            ("patience", patience), ("alpha", alpha),
        ):  # fmt: skip
            object.__setattr__(self, name, given)
        duration(each, where="Canary(each=…)")
        duration(patience, where="Canary(patience=…)")
        check_stage_metric("Canary(metric=…)", metric)
        if not shares or any(not 0 < share < 1 for share in shares) or list(shares) != sorted(set(shares)):
            raise BadDefinition(
                f"Canary{shares}", "its shares are no ramp", "Give growing shares between 0 and 1, such as 0.1, 0.5."
            )
        if not 0 < alpha < 1 or not margin >= 0 or min_units < 2 or fail_fast < 1 or units < 1:
            raise BadDefinition(
                repr(self), "a bound is out of range",
                "Keep 0 < alpha < 1, margin >= 0, min_units >= 2, fail_fast >= 1, units >= 1.",
            )  # fmt: skip
        if not slow > 0 or (slower is not None and not slower >= 1) or (most_units is not None and most_units < 1):
            raise BadDefinition(
                repr(self), "a bound is out of range", "Keep slower >= 1 or None, slow > 0, most_units >= 1 or None."
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
        exposed = None if self.most_units is None else traffic.exposed()
        return canary_evidence(traffic.served(), traffic.metric, exposed=exposed)

    def limits(self, share: float) -> Limits:
        """Return how far is too far at a step of this share; for `leaven.experiments.harm`."""
        return Limits(
            share, self.alpha, self.fail_fast, self.slower, self.slow, self.margin, self.min_units, self.units
        )  # fmt: skip

    def show(self, step: Step, evidence: Evidence, *, look: int, metric: str) -> tuple[Shown, ...]:
        """Return the rows of evidence that a person reads."""
        assert isinstance(evidence, CanaryEvidence)
        champion, canary = evidence.champion, evidence.canary
        bounds = compare_losses(champion, canary, self.limits(step.share)).difference
        failed = failure_row((champion.failed_units, champion.units), (canary.failed_units, canary.units), "canary")
        times = seconds_rows(champion.seconds, canary.seconds, "canary")
        return (bounded_row(metric, "canary", champion.loss, canary.loss, bounds), failed, *times)

    def judge(self, step: Step, evidence: Evidence, *, elapsed: timedelta, look: int, metric: str) -> Verdict:
        """Return the verdict on what this step has seen so far."""
        assert isinstance(evidence, CanaryEvidence)
        champion, canary, limits = evidence.champion, evidence.canary, self.limits(step.share)
        why = harm(champion, canary, limits, metric=metric, names=_NAMES)
        if why is not None:
            return Verdict("stop", why, looked=True)
        over = elapsed >= step.at_most
        known = min(champion.loss.count, canary.loss.count) >= self.min_units
        if known:
            losses = compare_losses(champion, canary, limits)
            numbers = losses.told(metric, _NAMES)
            if elapsed >= step.at_least and losses.within:
                return Verdict("advance", f"{numbers}: within the margin", looked=True)
            lacking = f"{numbers}: not enough evidence {f'after {self.patience}' if over else 'yet'}"
        else:
            have = f"{canary.loss.count} canary and {champion.loss.count} champion units with mature labels"
            lacking = f"{have}, fewer than the {self.min_units} of each that it takes"
        if self.most_units is not None and evidence.exposed >= self.most_units:
            why = f"the canary has answered {evidence.exposed} units, and {self.most_units} are its budget; {lacking}"
            return Verdict("give_up", why, looked=known)
        return Verdict("give_up" if over else "hold", lacking, looked=known)
