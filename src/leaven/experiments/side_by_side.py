"""What did the shadow say beside the champion?

The two are compared answer by answer from the first hour on, and by their losses once labels are mature.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
import numpy as np

from leaven.events.columns import Column, Pairs
from leaven.experiments.counting import OTHERS, by_reason, capped, distinct, row_losses
from leaven.stats.answers import apart, decided, given
from leaven.stats.log_counts import LogCounts, bin_of, log_counts
from leaven.stats.metrics import METRICS
from leaven.stats.moments import Moments, moments, unit_means

MOST_FEATURES, MOST_VALUES = 10, 12
_MISSING = "(missing)"


class Segment(msgspec.Struct, frozen=True):
    """The pairs with one value of a feature."""

    pairs: int = 0
    flips: int = 0  # on different sides of 0.5; 0 where answers are no probabilities
    apart: float = 0.0  # sum of the distances between the two answers


class ShadowEvidence(msgspec.Struct, frozen=True):
    """A shadow beside the champion: answers compared, failures, times, and the paired loss difference per unit."""

    pairs: int = 0
    failures: int = 0
    units: int = 0
    failed_units: int = 0
    flips: int = 0  # pairs on different sides of 0.5; 0 where answers are no probabilities
    absolute_difference: Moments = Moments()  # of the two answers, per pair
    champion_loss: Moments = Moments()  # per unit, mature labels
    challenger_loss: Moments = Moments()  # of the same units
    loss_difference: Moments = Moments()  # challenger minus champion, per unit, mature labels
    row_loss_difference: Moments = Moments()  # of the rows that `loss_difference` is made of
    higher: LogCounts = LogCounts()  # by how much the shadow's answer is higher, pairs where it is; equal ones as 0
    lower: LogCounts = LogCounts()  # by how much it is lower, pairs where it is
    champion_seconds: LogCounts = LogCounts()  # per pair
    shadow_seconds: LogCounts = LogCounts()
    reasons: dict[str, int] = {}  # failures by reason
    segments: dict[str, dict[str, Segment]] = {}  # by feature and value: the categories of the loop

    @property
    def compared(self) -> int:
        """Pairs in which both answered."""
        return self.absolute_difference.count

    @property
    def agreement(self) -> float:
        """Share of the compared pairs on the same side of 0.5; NaN where nothing is compared."""
        return 1 - self.flips / self.compared if self.compared else np.nan

    def within(self, tolerance: float) -> float:
        """Return the share of the compared pairs whose answers differ by no more than `tolerance`, to within 14 %."""
        if not self.compared:
            return np.nan
        both = self.higher + self.lower
        return 1 - int(both.from_bin(np.array([bin_of(max(tolerance, 1e-9))]))[0]) / self.compared


def shadow_evidence(pairs: Pairs, metric: str) -> ShadowEvidence:
    """Return what these pairs say about the shadow, for the loss `metric`."""
    live = pairs.live.predictions
    failed = ~given(pairs.shadow_answer)
    both = ~failed & given(live.answer)
    champion, shadow = live.answer[both], pairs.shadow_answer[both]
    # Classes have no order: how far the answers lie apart counts as higher.
    distance = apart(champion, shadow)
    higher = shadow - champion if champion.ndim == shadow.ndim == 1 else distance
    flipped = _flipped(champion, shadow, metric)
    mature = both & pairs.live.labels.mature & ~np.isnan(pairs.live.labels.value)
    unit, label = live.unit[mature], pairs.live.labels.value[mature]
    theirs = row_losses(metric, label, live.answer[mature])
    ours = row_losses(metric, label, pairs.shadow_answer[mature])
    unit_theirs, unit_ours = unit_means(unit, theirs), unit_means(unit, ours)
    return ShadowEvidence(
        pairs=len(pairs),
        failures=int(failed.sum()),
        units=distinct(live.unit),
        failed_units=distinct(live.unit[failed]),
        flips=int(flipped.sum()),
        absolute_difference=moments(distance),
        champion_loss=moments(unit_theirs),
        challenger_loss=moments(unit_ours),
        loss_difference=moments(unit_ours - unit_theirs),
        row_loss_difference=moments(ours - theirs),
        higher=log_counts(higher[higher >= 0]),
        lower=log_counts(-higher[higher < 0]),
        champion_seconds=log_counts(live.seconds[both]),
        shadow_seconds=log_counts(pairs.shadow_seconds[both]),
        reasons=by_reason(pairs.shadow_error[failed]),
        segments={name: _segments(column[both], flipped, distance) for name, column in _categories(live.features)},
    )


def _flipped(champion: Column, shadow: Column, metric: str) -> Column:
    if METRICS[metric].tasks == ("regression",):
        return np.zeros(len(champion), dtype=bool)
    flipped: Column = decided(champion) != decided(shadow)
    return flipped


def _categories(features: Mapping[str, Column]) -> list[tuple[str, Column]]:
    """The first few features that hold text, by name."""
    return [(name, features[name]) for name in sorted(features) if features[name].dtype == object][:MOST_FEATURES]


def _segments(column: Column, flipped: Column, apart: Column) -> dict[str, Segment]:
    """The most frequent values of a feature, and the others together."""
    values = [_MISSING if value is None else str(value) for value in column.tolist()]
    counts: dict[str, int] = {}
    for value in values:
        counts[value] = counts.get(value, 0) + 1
    kept = capped(counts, MOST_VALUES)
    number = {name: place for place, name in enumerate(kept)}
    where = np.fromiter((number.get(value, number.get(OTHERS, 0)) for value in values), np.intp, len(values))
    flips = np.bincount(where, weights=flipped, minlength=len(kept))
    sums = np.bincount(where, weights=apart, minlength=len(kept))
    pairs = np.bincount(where, minlength=len(kept))
    return {name: Segment(int(pairs[at]), int(flips[at]), float(sums[at])) for name, at in number.items()}


class Spread(msgspec.Struct, frozen=True):
    """Three quantiles; None where nothing was counted."""

    low: float | None
    middle: float | None
    high: float | None


class Flipping(msgspec.Struct, frozen=True):
    """A segment whose answers change sides."""

    feature: str
    value: str
    pairs: int
    share: float  # of these pairs


class Report(msgspec.Struct, frozen=True):
    """What a person wants to know of a shadow before its labels are mature."""

    pairs: int
    compared: int  # pairs in which both answered
    failures: int
    reasons: dict[str, int]
    agreement: float | None  # share of the compared pairs on the same side of 0.5
    difference: Spread  # shadow minus champion: 5 %, 50 % and 95 %
    champion_seconds: Spread  # 50 %, 95 % and 99 %
    shadow_seconds: Spread
    flipping: tuple[Flipping, ...]  # segments of at least 20 pairs, the worst first


_TOLD, _FEWEST_PAIRS = 5, 20


def report(evidence: ShadowEvidence) -> Report:
    """Return the comparison in a form to be read; sizes are right to within 14 %."""
    flipping = [
        Flipping(feature, value, segment.pairs, segment.flips / segment.pairs)
        for feature, values in evidence.segments.items()
        for value, segment in values.items()
        if segment.flips and segment.pairs >= _FEWEST_PAIRS
    ]
    return Report(
        evidence.pairs,
        evidence.compared,
        evidence.failures,
        evidence.reasons,
        evidence.agreement if evidence.compared else None,
        Spread(*(_difference(evidence, q) for q in (0.05, 0.5, 0.95))),
        _times(evidence.champion_seconds),
        _times(evidence.shadow_seconds),
        tuple(sorted(flipping, key=lambda one: (-one.share, one.feature, one.value))[:_TOLD]),
    )


def _times(seconds: LogCounts) -> Spread:
    return Spread(*(seconds.quantile(q) if seconds.total else None for q in (0.5, 0.95, 0.99)))


def _difference(evidence: ShadowEvidence, q: float) -> float | None:
    """A quantile of shadow minus champion: the lower ones come first, the largest distances before the smaller."""
    lower, higher = evidence.lower.total, evidence.higher.total
    rank = q * (lower + higher)
    if not lower + higher:
        return None
    if rank < lower:
        return -evidence.lower.quantile(1 - rank / lower)
    return evidence.higher.quantile((rank - lower) / higher) if higher else 0.0
