"""What did an update learn, what did it forget, and what does it say differently?

Kept with every gate decision, whatever the loop's gates are: each step looks harmless, and only the row of them shows a
model that forgets.
"""

from __future__ import annotations

import msgspec
import numpy as np

from leaven.events.labels import Task
from leaven.gates.churn import decisions_changed
from leaven.gates.gate import Check, Rows
from leaven.stats.answers import apart, given
from leaven.stats.intervals import Interval, mean_interval
from leaven.stats.metrics import METRICS, default_metric
from leaven.stats.moments import moments, unit_means

DECIDES_AT = 0.5


class Losses(msgspec.Struct, frozen=True):
    """Mean loss per unit of both versions on the same rows, and their difference, paired by unit."""

    rows: int
    challenger: float
    champion: float
    difference: Interval  # challenger minus champion: below 0, the challenger is better


class Forgetting(msgspec.Struct, frozen=True):
    """Fresh and past rows side by side; None where there are no rows that both answered.

    `backward_transfer` is how the loss on past rows changed: above 0, something was forgotten.
    """

    metric: str
    fresh: Losses | None
    past: Losses | None
    backward_transfer: Interval | None
    churn_decisions: float | None  # share of fresh rows that are decided otherwise (at 0.5); None for a number
    churn_answers: float | None  # mean distance of the answers to fresh rows


def forgetting(check: Check, *, metric: str, task: Task) -> Forgetting | None:
    """Return what a challenger learnt and forgot against the champion; None without a champion.

    Args:
        check: The rows, with both versions' answers; rows that one of them failed on are left out.
        metric: A loss of single rows.
        task: Kind of the label.
    """
    if check.fresh.champion is None:
        return None
    fresh, past = _losses(check.fresh, metric), _losses(check.past, metric)
    told = _answered(check.fresh)
    ours, theirs = check.fresh.challenger[told], check.fresh.champion[told]
    decided = decisions_changed(ours, theirs, DECIDES_AT)
    return Forgetting(
        metric, fresh, past,
        backward_transfer=None if past is None else past.difference,
        churn_decisions=float(decided.mean()) if task != "regression" and len(decided) else None,
        churn_answers=float(apart(ours, theirs).mean()) if len(ours) else None,
    )  # fmt: skip


def row_loss_metric(metrics: tuple[str, ...], task: Task) -> str:
    """Return the first of `metrics` that is a loss of single rows, or the task's usual one."""
    for name in metrics:
        if name in METRICS and METRICS[name].row_loss is not None:
            return name
    return default_metric(task)


def _losses(rows: Rows, metric: str) -> Losses | None:
    told = _answered(rows)
    if rows.champion is None or not told.any():
        return None
    row_loss = METRICS[metric].row_loss
    assert row_loss is not None
    label, unit = rows.examples.labels.value[told], rows.examples.predictions.unit[told]
    ours = unit_means(unit, row_loss(label, rows.challenger[told]))
    theirs = unit_means(unit, row_loss(label, rows.champion[told]))
    difference = mean_interval(moments(ours - theirs), alpha=0.05)
    return Losses(int(told.sum()), float(ours.mean()), float(theirs.mean()), difference)


def _answered(rows: Rows) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    if rows.champion is None or not len(rows.champion):
        return np.zeros(len(rows.challenger), dtype=bool)
    answered: np.ndarray[tuple[int], np.dtype[np.bool_]] = given(rows.challenger) & given(rows.champion)
    return answered
