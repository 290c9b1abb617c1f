"""What has a trial seen so far, in as few numbers as a verdict needs?

Everything is counted per unit: many requests of one unit are one observation, so a talkative unit cannot decide alone.
"""

from __future__ import annotations

import msgspec

from leaven.events.columns import Examples
from leaven.experiments.ab_evidence import ABEvidence
from leaven.experiments.counting import by_reason, distinct, failed_rows, first_seconds, row_losses
from leaven.experiments.side_by_side import ShadowEvidence
from leaven.stats.answers import given
from leaven.stats.log_counts import LogCounts
from leaven.stats.moments import Moments, moments, unit_means


class ArmEvidence(msgspec.Struct, frozen=True):
    """One arm: units seen, units that met a failure, how long they waited, and the loss per unit on mature labels."""

    units: int = 0
    failed_units: int = 0
    requests: int = 0
    failures: int = 0
    loss: Moments = Moments()
    row_loss: Moments = Moments()  # of the rows that `loss` is made of
    seconds: LogCounts = LogCounts()  # of each unit's first answer
    reasons: dict[str, int] = {}  # failures by reason


class CanaryEvidence(msgspec.Struct, frozen=True):
    """The two arms of a canary step."""

    champion: ArmEvidence = ArmEvidence()
    canary: ArmEvidence = ArmEvidence()
    exposed: int = 0  # units that the canary answered since the trial began


class UnitDays(msgspec.Struct, frozen=True):
    """Different units of each day, over days: how much was seen, whether it was watched for an hour or a month."""

    seen: int = 0
    failed: int = 0  # of these, that met a failure on that day


class WatchEvidence(msgspec.Struct, frozen=True):
    """A new champion, the units that were left with the old one, and how these two failed day by day."""

    champion: ArmEvidence = ArmEvidence()
    holdback: ArmEvidence = ArmEvidence()
    days: UnitDays = UnitDays()  # of the new champion
    before: UnitDays = UnitDays()  # of the old champion while the new one was being proven


Evidence = ShadowEvidence | CanaryEvidence | WatchEvidence | ABEvidence


def canary_evidence(examples: Examples, metric: str, *, exposed: int | None = None) -> CanaryEvidence:
    """Return what these live examples say about champion and canary; rows of other arms are left out.

    `exposed` are the units that the canary ever answered; those of the examples, where it is None.
    """
    arm = examples.predictions.arm
    champion, canary = (arm_evidence(examples.take(arm == name), metric) for name in ("champion", "canary"))
    return CanaryEvidence(champion, canary, canary.units if exposed is None else exposed)


def unit_days(examples: Examples) -> UnitDays:
    """Return how many units these live examples show, day by day (UTC)."""
    served = examples.predictions
    day, failures = served.at.astype("datetime64[D]").astype(int).tolist(), failed_rows(served).tolist()
    rows = list(zip(day, served.unit.tolist(), failures, strict=True))
    return UnitDays(len({row[:2] for row in rows}), len({row[:2] for row in rows if row[2]}))


def arm_evidence(examples: Examples, metric: str) -> ArmEvidence:
    """Return what these examples, all of one arm and oldest first, say about it."""
    served = examples.predictions
    failed = failed_rows(served)
    answered = ~failed & given(served.answer)  # exposures are neither
    judged = examples.take(answered).mature()
    losses = row_losses(metric, judged.labels.value, judged.predictions.answer)
    return ArmEvidence(
        units=distinct(served.unit),
        failed_units=distinct(served.unit[failed]),
        requests=len(examples),
        failures=int(failed.sum()),
        loss=moments(unit_means(judged.predictions.unit, losses)),
        row_loss=moments(losses),
        seconds=first_seconds(served.unit[answered], served.seconds[answered]),
        reasons=by_reason(served.error[failed]),
    )
