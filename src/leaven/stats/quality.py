"""How good are a model's answers, where the rows of one unit are alike?

Every metric here is a ratio of two totals, so what is kept of it per unit adds up and `ratio_estimate` gives its value
with a variance that counts units. The one that is no such ratio, ROC AUC, has a module of its own (`clustered_auc`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from leaven.errors import BadDefinition
from leaven.stats.comoments import Comoments, comoments
from leaven.stats.metrics import METRICS
from leaven.stats.moments import numbered

Floats = NDArray[np.float64]
Totals = tuple[Floats, Floats]


@dataclass(frozen=True, slots=True)
class Quality:
    """A metric as the ratio of two numbers per row, summed over rows."""

    name: str
    higher_is_better: bool
    parts: Callable[[Floats, Floats, float], Totals]  # label, answer, threshold -> numerator, denominator per row


def quality_sums(
    name: str,
    unit: NDArray[np.object_] | Sequence[str],
    label: Floats,
    answer: Floats,
    *,
    threshold: float = 0.5,
) -> Comoments:
    """Return what must be kept of a metric: numerator and denominator per unit. Disjoint units add up.

    `ratio_estimate` makes the metric of it; precision is NaN where nothing was answered positive.

    Args:
        name: One of `QUALITIES`.
        unit: Shape (rows,): whom the row is about.
        label: Shape (rows,), 0 or 1 for a class, else the value; no NaN.
        answer: Shape (rows,), probability of class 1, or the value.
        threshold: From which probability on an answer counts as positive.
    Raises:
        BadDefinition: there is no such metric.
    """
    if name not in QUALITIES:
        raise BadDefinition("metric", f"{name!r} is none that adds up over units", f"There are {', '.join(QUALITIES)}.")
    which, units = numbered(unit)
    parts = QUALITIES[name].parts(label, answer, threshold)
    numerator, denominator = (np.bincount(which, weights=part, minlength=units).astype(np.float64) for part in parts)
    return comoments(numerator, denominator)


def _accuracy(label: Floats, answer: Floats, threshold: float) -> Totals:
    return _number((label > 0.5) == (answer >= threshold)), np.ones(len(label))


def _precision(label: Floats, answer: Floats, threshold: float) -> Totals:
    positive = answer >= threshold
    return _number(positive & (label > 0.5)), _number(positive)


def _recall(label: Floats, answer: Floats, threshold: float) -> Totals:
    true = label > 0.5
    return _number(true & (answer >= threshold)), _number(true)


def _f1(label: Floats, answer: Floats, threshold: float) -> Totals:
    true, positive = _number(label > 0.5), _number(answer >= threshold)
    return 2 * true * positive, true + positive


def _mean(row_loss: Callable[[Floats, Floats], Floats]) -> Callable[[Floats, Floats, float], Totals]:
    return lambda label, answer, threshold: (row_loss(label, answer), np.ones(len(label)))


def _number(truth: NDArray[np.bool_]) -> Floats:
    return truth.astype(np.float64)


QUALITIES: dict[str, Quality] = {
    quality.name: quality
    for quality in (
        Quality("accuracy", True, _accuracy),
        Quality("precision", True, _precision),
        Quality("recall", True, _recall),
        Quality("f1", True, _f1),
        *(
            Quality(metric.name, metric.higher_is_better, _mean(metric.row_loss))
            for metric in METRICS.values()
            if metric.row_loss is not None
        ),
    )
}
