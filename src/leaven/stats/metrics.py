"""How good were these answers?"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from leaven.events.labels import Task
from leaven.stats.answers import decided, padded
from leaven.stats.intervals import Interval, mean_interval
from leaven.stats.moments import moments

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Metric:
    """A way to score answers against labels; `row_loss` is None where a single row has no score of its own."""

    name: str
    tasks: tuple[Task, ...]
    higher_is_better: bool
    row_loss: Callable[[Floats, Floats], Floats] | None

    def measure(self, label: Floats, answer: Floats, *, alpha: float = 0.05) -> Interval:
        """Return the metric's value with its interval, rows taken as independent.

        Args:
            label: Shape (rows,), 0 or 1 for a binary task, the place of the class for one of several; no NaN.
            answer: Shape (rows,), probability of class 1, or the value; of several classes, shape (rows, classes).
        """
        if self.row_loss is None:
            return roc_auc(label, answer, alpha=alpha)
        return mean_interval(moments(self.row_loss(label, answer)), alpha=alpha)


def log_losses(label: Floats, answer: Floats) -> Floats:
    """Return minus the log of the probability given to what happened, per row; answers are kept off 0 and 1."""
    if answer.ndim == 2:
        told: Floats = -np.log(np.clip(_probability_of(label, answer), 1e-7, 1 - 1e-7))
        return told
    sure = np.clip(answer, 1e-7, 1 - 1e-7)
    losses: Floats = -np.where(label > 0.5, np.log(sure), np.log1p(-sure))
    return losses


def brier_losses(label: Floats, answer: Floats) -> Floats:
    """Return the squared distance of the probability from what happened, per row; of several classes, the sum of them.

    Source:
        Brier (1950), whose score is the sum over the classes; with two classes half of it is usual, and is given here.
    """
    if answer.ndim == 2:
        p = _probability_of(label, answer)
        sums: Floats = (answer**2).sum(axis=1) - p**2 + (1 - p) ** 2
        return sums
    squares: Floats = (answer - label) ** 2
    return squares


def errors(label: Floats, answer: Floats) -> Floats:
    """Return 1 where the likelier class by the answer is not the one that happened, per row."""
    happened = label if answer.ndim == 2 else label > 0.5
    wrong: Floats = (decided(answer) != happened).astype(np.float64)
    return wrong


def _probability_of(label: Floats, answer: Floats) -> Floats:
    """What each answer gave to the class that happened; 0 to one that the model does not know."""
    place = label.astype(np.intp)
    return padded(answer, int(place.max(initial=-1)) + 1)[np.arange(len(label)), place]


def absolute_errors(label: Floats, answer: Floats) -> Floats:
    """Return the distance of the answer from the value, per row."""
    distances: Floats = np.abs(answer - label)
    return distances


def squared_errors(label: Floats, answer: Floats) -> Floats:
    """Return the squared distance of the answer from the value, per row."""
    return brier_losses(label, answer)


def roc_auc(label: Floats, answer: Floats, *, alpha: float = 0.05) -> Interval:
    """Return the chance that a positive outranks a negative, ties by half, with its interval.

    Source:
        DeLong, DeLong and Clarke-Pearson (1988), by the midranks of Sun and Xu (2014): with m positives, n negatives,
        AUC = (sum of positives' ranks - m (m + 1) / 2) / (m n); variance = var(v10) / m + var(v01) / n.
    """
    positive = label > 0.5
    m, n = int(positive.sum()), int((~positive).sum())
    if not m or not n:
        return Interval(math.nan, -math.inf, math.inf, 1 - alpha, len(label))
    auc, v10, v01 = auc_components(positive, answer)
    if min(m, n) < 2:
        return Interval(auc, -math.inf, math.inf, 1 - alpha, len(label))
    from scipy.special import ndtri

    half = float(-ndtri(alpha / 2)) * math.sqrt(v10.var(ddof=1) / m + v01.var(ddof=1) / n)
    return Interval(auc, auc - half, auc + half, 1 - alpha, len(label))


def auc_components(positive: NDArray[np.bool_], answer: Floats) -> tuple[float, Floats, Floats]:
    """Return the AUC, each positive's share of negatives below it, each negative's share of positives above it.

    Args:
        positive: Shape (rows,): whether it is one; there are some of both kinds.
        answer: Shape (rows,), any score; ties count by half.
    Source:
        Sun and Xu (2014), by midranks; DeLong's v10 and v01, whose means are the AUC.
    """
    ranks, m = _midranks(answer), int(positive.sum())
    v10 = (ranks[positive] - _midranks(answer[positive])) / (len(answer) - m)
    v01 = 1 - (ranks[~positive] - _midranks(answer[~positive])) / m
    return float(v10.mean()), v10, v01


def _midranks(values: Floats) -> Floats:
    """Ranks from 1, equal values sharing the mean of theirs."""
    _, which, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks: Floats = np.cumsum(counts) - (counts - 1) / 2
    return ranks[which]


METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("log_loss", ("binary", "multiclass"), False, log_losses),
        Metric("brier", ("binary", "multiclass"), False, brier_losses),
        Metric("error_rate", ("binary", "multiclass"), False, errors),
        Metric("roc_auc", ("binary",), True, None),
        Metric("absolute_error", ("regression",), False, absolute_errors),
        Metric("squared_error", ("regression",), False, squared_errors),
    )
}


def default_metric(task: Task) -> str:
    """Return the metric that judges a task where the owner names none."""
    return "absolute_error" if task == "regression" else "log_loss"


def shown_metrics(task: Task) -> tuple[str, ...]:
    """Return the metrics that reports show for a task."""
    return tuple(name for name, metric in METRICS.items() if task in metric.tasks)
