"""Does an arm harm the units that it serves, whenever one looks?

Both arms are seen side by side, in the same hours, and by units. The error `alpha` is split once: 5 % of it for first
failures, 30 % for failures, 15 % for slowness, 50 % for the loss. Each rule holds at every look, so the sum of the four
bounds the chance that an arm that is no worse is ever called harmful.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from leaven.experiments.evidence import ArmEvidence
from leaven.stats.anytime import difference_bounds, effective_answers
from leaven.stats.failures import more_failures_evidence
from leaven.stats.intervals import Interval
from leaven.stats.log_counts import bin_of
from leaven.stats.moments import Moments
from leaven.stats.slowness import slower_evidence

FIRST_FAILURES, FAILURES, SLOWNESS, LOSS = 0.05, 0.30, 0.15, 0.50  # of alpha


@dataclass(frozen=True, slots=True)
class Limits:
    """How far is too far.

    Args:
        share: The arm's share of the units of both, in (0, 1), constant while the evidence was gathered.
        alpha: The chance to call an arm harmful that is none, over all looks.
        fail_fast: So many first failures, all of them the arm's, are enough; None, and no number is.
        slower: The tolerated factor on times; None, and no time is too long.
        slow: Seconds that are never called slow.
        margin: The tolerated loss, a share of the reference's.
        min_units: Units with mature labels that each arm must have before losses are compared.
        units: Effective answers of both arms at which losses are told apart best.
    """

    share: float
    alpha: float = 0.05
    fail_fast: int | None = 5
    slower: float | None = 1.5
    slow: float = 0.02
    margin: float = 0.25
    min_units: int = 50
    units: int = 500


def harm(
    reference: ArmEvidence, arm: ArmEvidence, limits: Limits, *, metric: str, names: tuple[str, str]
) -> str | None:
    """Return why `arm` is harmful, or None while it is not known to be.

    Args:
        reference: What the arm is compared with.
        arm: The arm.
        limits: How far is too far.
        metric: Name of the loss.
        names: Of both, as the reason calls them.
    """
    broken = (
        _first_failures(reference, arm, limits, names)
        or _more_failures(reference, arm, limits, names)
        or _slower(reference, arm, limits, names)
    )
    if broken is not None or min(reference.loss.count, arm.loss.count) < limits.min_units:
        return broken
    losses = compare_losses(reference, arm, limits)
    return f"{losses.told(metric, names)}: worse than the margin" if losses.worse else None


@dataclass(frozen=True, slots=True)
class Losses:
    """The losses of two arms per unit, on mature labels, with bounds that hold at every look."""

    reference: Moments
    arm: Moments
    margin: float  # a share of the reference's mean
    difference: Interval  # arm minus reference
    beyond: Interval  # the same less the margin

    @property
    def worse(self) -> bool:
        """Whether the arm's is shown to be higher, and by more than the margin as far as one can tell."""
        return self.difference.low > 0 and self.beyond.estimate > 0

    @property
    def within(self) -> bool:
        """Whether the arm's is shown to be within the margin."""
        return self.beyond.high <= 0

    def told(self, metric: str, names: tuple[str, str]) -> str:
        """Return both in words; `names` are those of reference and arm."""
        bounds, beyond = self.difference, self.beyond
        return (
            f"{metric} per unit: {names[1]} {self.arm.mean:.4f} ({self.arm.count} units), {names[0]} "
            f"{self.reference.mean:.4f} ({self.reference.count} units), difference {bounds.estimate:+.4f} "
            f"[{bounds.low:+.4f}, {bounds.high:+.4f}]; less the margin of {self.margin * self.reference.mean:.4f}: "
            f"{beyond.estimate:+.4f} [{beyond.low:+.4f}, {beyond.high:+.4f}]"
        )


def compare_losses(reference: ArmEvidence, arm: ArmEvidence, limits: Limits) -> Losses:
    """Return how the losses compare; each bound errs with probability at most half of `alpha`, over all looks."""
    answers = sum(effective_answers(each.loss, each.row_loss) for each in (reference, arm))

    def bounds(tolerated: Moments) -> Interval:
        return difference_bounds(
            tolerated, arm.loss, alpha=limits.alpha * LOSS, planned=limits.units, answers=answers
        )  # fmt: skip

    beyond = bounds(reference.loss.scaled(1 + limits.margin))
    return Losses(reference.loss, arm.loss, limits.margin, bounds(reference.loss), beyond)


def _first_failures(reference: ArmEvidence, arm: ArmEvidence, limits: Limits, names: tuple[str, str]) -> str | None:
    """Without statistics, but that all of the first are the arm's by chance only with the power of its share."""
    failed = arm.failed_units
    if limits.fail_fast is None or reference.failures or failed < limits.fail_fast:
        return None
    if limits.share**failed > limits.alpha * FIRST_FAILURES:
        return None
    return f"{failed} {names[1]} units met a failure, no {names[0]} unit did"


def _more_failures(reference: ArmEvidence, arm: ArmEvidence, limits: Limits, names: tuple[str, str]) -> str | None:
    if not arm.failed_units:
        return None
    found = float(more_failures_evidence(reference.failed_units, arm.failed_units, share=limits.share))
    enough = 1 / (limits.alpha * FAILURES)
    if found < enough:
        return None
    return (
        f"{arm.failed_units} of {arm.units} {names[1]} units met a failure, {reference.failed_units} of "
        f"{reference.units} {names[0]} units did (evidence {found:.3g}, {enough:.3g} is enough)"
    )


def _slower(reference: ArmEvidence, arm: ArmEvidence, limits: Limits, names: tuple[str, str]) -> str | None:
    if limits.slower is None:
        return None
    if not arm.seconds.from_bin(np.array([bin_of(limits.slow)]))[0]:
        return None  # as nearly always: spares the rest
    found = slower_evidence(
        reference.seconds, arm.seconds, share=limits.share, factor=limits.slower, least=limits.slow
    )  # fmt: skip
    enough = 1 / (limits.alpha * SLOWNESS)
    if found < enough:
        return None
    theirs, ours = (
        ", ".join(f"{1000 * each.seconds.quantile(q):.3g}" for q in (0.5, 0.95)) for each in (reference, arm)
    )
    return (
        f"first answers take the {names[1]} {ours} ms (median, 95th percentile of {arm.seconds.total} units), the "
        f"{names[0]} {theirs} ms ({reference.seconds.total} units): slower by more than the factor {limits.slower:g} "
        f"(evidence {found:.3g}, {enough:.3g} is enough)"
    )
