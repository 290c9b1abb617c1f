"""What has a trial seen so far, in as few numbers as a verdict needs?

Everything is counted per unit: many requests of one unit are one observation, so a talkative unit cannot decide alone.
"""

from __future__ import annotations

import msgspec
import numpy as np

from leaven.events.columns import Column, Examples, Pairs, Predictions
from leaven.experiments.ab_evidence import ABEvidence
from leaven.stats.metrics import METRICS
from leaven.stats.moments import Moments, moments, unit_means


class ArmEvidence(msgspec.Struct, frozen=True):
    """One arm: units seen, units that met a failure, and the loss per unit on mature labels."""

    units: int = 0
    failed_units: int = 0
    requests: int = 0
    failures: int = 0
    loss: Moments = Moments()


class ShadowEvidence(msgspec.Struct, frozen=True):
    """A shadow beside the champion: answers compared, failures, and the paired loss difference per unit."""

    pairs: int = 0
    failures: int = 0
    units: int = 0
    failed_units: int = 0
    flips: int = 0  # pairs on different sides of 0.5 (binary tasks)
    absolute_difference: Moments = Moments()  # of the two answers, per pair
    champion_seconds: float = 0.0
    shadow_seconds: float = 0.0
    champion_loss: Moments = Moments()  # per unit, mature labels
    challenger_loss: Moments = Moments()  # of the same units
    loss_difference: Moments = Moments()  # challenger minus champion, per unit, mature labels


class CanaryEvidence(msgspec.Struct, frozen=True):
    """The two arms of a canary step."""

    champion: ArmEvidence = ArmEvidence()
    canary: ArmEvidence = ArmEvidence()


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


def shadow_evidence(pairs: Pairs, metric: str) -> ShadowEvidence:
    """Return what these pairs say about the shadow."""
    live = pairs.live.predictions
    failed = np.isnan(pairs.shadow_answer)
    both = ~failed & ~np.isnan(live.answer)
    champion, shadow = live.answer[both], pairs.shadow_answer[both]
    mature = both & pairs.live.labels.mature & ~np.isnan(pairs.live.labels.value)
    unit, label = live.unit[mature], pairs.live.labels.value[mature]
    theirs = unit_means(unit, _losses(metric, label, live.answer[mature]))
    ours = unit_means(unit, _losses(metric, label, pairs.shadow_answer[mature]))
    return ShadowEvidence(
        pairs=len(pairs),
        failures=int(failed.sum()),
        units=_distinct(live.unit),
        failed_units=_distinct(live.unit[failed]),
        flips=int(((champion >= 0.5) != (shadow >= 0.5)).sum()),
        absolute_difference=moments(np.abs(champion - shadow)),
        champion_seconds=float(live.seconds[both].sum()),
        shadow_seconds=float(pairs.shadow_seconds[both].sum()),
        champion_loss=moments(theirs),
        challenger_loss=moments(ours),
        loss_difference=moments(ours - theirs),
    )


def canary_evidence(examples: Examples, metric: str) -> CanaryEvidence:
    """Return what these live examples say about champion and canary; rows of other arms are left out."""
    arm = examples.predictions.arm
    return CanaryEvidence(
        champion=arm_evidence(examples.take(arm == "champion"), metric),
        canary=arm_evidence(examples.take(arm == "canary"), metric),
    )


def failed(served: Predictions) -> Column:
    """Return which rows an arm failed on, shape (rows,), bool; an exposure has no answer, and is no failure."""
    return np.isnan(served.answer) & ~served.exposed


def unit_days(examples: Examples) -> UnitDays:
    """Return how many units these live examples show, day by day (UTC)."""
    served = examples.predictions
    day, failures = served.at.astype("datetime64[D]").astype(int).tolist(), failed(served).tolist()
    rows = list(zip(day, served.unit.tolist(), failures, strict=True))
    return UnitDays(len({row[:2] for row in rows}), len({row[:2] for row in rows if row[2]}))


def arm_evidence(examples: Examples, metric: str) -> ArmEvidence:
    """Return what these live examples, all of one arm, say about it."""
    served = examples.predictions
    failures = failed(served)
    judged = examples.take(~np.isnan(served.answer)).mature()
    losses = _losses(metric, judged.labels.value, judged.predictions.answer)
    return ArmEvidence(
        units=_distinct(served.unit),
        failed_units=_distinct(served.unit[failures]),
        requests=len(examples),
        failures=int(failures.sum()),
        loss=moments(unit_means(judged.predictions.unit, losses)),
    )


def _losses(metric: str, label: Column, answer: Column) -> Column:
    row_loss = METRICS[metric].row_loss
    assert row_loss is not None  # stages refuse other metrics
    return row_loss(label, answer)


def _distinct(unit: Column) -> int:
    return len(set(unit.tolist()))
