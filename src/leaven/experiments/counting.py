"""How are rows of the log counted as evidence: per unit, by kind, and never more kinds than fit on a page?"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from leaven.events.columns import Column, Predictions
from leaven.stats.answers import given
from leaven.stats.log_counts import LogCounts, log_counts
from leaven.stats.metrics import METRICS

MOST_REASONS = 8
OTHERS = "(others)"
_REASON_LENGTH = 100


def failed_rows(served: Predictions) -> NDArray[np.bool_]:
    """Return which rows an arm failed on: they have an error, or no number for an answer, and are no exposures."""
    told = np.array([error is not None for error in served.error.tolist()], dtype=bool)
    failed: NDArray[np.bool_] = told | (~given(served.answer) & ~served.exposed)
    return failed


def row_losses(metric: str, label: Column, answer: Column) -> Column:
    """Return the loss of each row."""
    loss = METRICS[metric].row_loss
    assert loss is not None  # stages refuse other metrics
    return loss(label, answer)


def distinct(unit: Column) -> int:
    """Return how many units there are."""
    return len(set(unit.tolist()))


def first_seconds(unit: Column, seconds: Column) -> LogCounts:
    """Return how long each unit's first answer took: counted once, so that a later look only adds."""
    seen: dict[str, float] = {}
    for name, took in zip(unit.tolist(), seconds.tolist(), strict=True):
        seen.setdefault(name, took)
    return log_counts(np.fromiter(seen.values(), np.float64, len(seen)))


def by_reason(errors: Iterable[str | None]) -> dict[str, int]:
    """Return how often each reason is given, the most frequent ones by name, the rest together."""
    counts: dict[str, int] = {}
    for error in errors:
        reason = (error or "the answer is no number")[:_REASON_LENGTH]
        counts[reason] = counts.get(reason, 0) + 1
    return capped(counts, MOST_REASONS)


def capped(counts: dict[str, int], most: int) -> dict[str, int]:
    """Return the `most` largest counts, largest first and then by name, and the sum of the others after them."""
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    kept, rest = dict(ordered[:most]), sum(count for _, count in ordered[most:])
    return kept | ({OTHERS: rest} if rest else {})
