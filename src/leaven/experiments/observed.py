"""What does the log say of a loop that a trial must be planned by?"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Literal

import msgspec
import numpy as np

from leaven.events.columns import Column, Examples, column_time
from leaven.events.hearing import Hearing
from leaven.events.labels import LabelRule, Task
from leaven.events.source import ExampleSource, Span
from leaven.stats.answers import given
from leaven.stats.metrics import METRICS
from leaven.stats.moments import Moments, moments, unit_means
from leaven.stats.unit_curve import UnitCurve, unit_curve

_DAY = timedelta(days=1)
_SHARES = (0.5, 0.9, 0.99)


class Observed(msgspec.Struct, frozen=True):
    """The latest whole days of a loop, in as few numbers as a plan needs."""

    until: str  # RFC 3339
    days: int
    predictions: int  # of these days
    curve: UnitCurve  # of their units
    mature: int  # predictions of as many days, earlier by the label's window
    labelled: float | None  # share of these that have a label; None where there are none
    label: Moments  # of the labels, per unit
    metric: str
    loss: Moments  # per unit, on mature labels
    losses: dict[int, Moments]  # of the units' means over 1, 7, 14, … days, of all such stretches: fewer are noisier
    answers: Literal["served", "constant"]  # whose loss: what was served; or, where nothing was, always the mean label
    delays: tuple[float, float, float] | None  # days until the label of half, 90 %, 99 % of the labelled was heard


def observe(source: ExampleSource, rule: LabelRule, *, until: datetime, days: int, metric: str) -> Observed:
    """Return what the log says of the `days` whole days before `until`.

    Args:
        source: The loop's log.
        rule: Its label; its window is looked back further, for labels that are mature.
        until: The end; labels are as known then.
        days: How many, 1 or more.
        metric: A loss of single rows.
    """
    length = days * _DAY
    latest = source.examples(Span(until - length, until), rule, as_of=until)
    earlier = Span(until - rule.window - length, until - rule.window)
    judged = source.examples(earlier, rule, as_of=until)
    heard = source.examples(earlier, Hearing(rule), as_of=until).labels.value
    known = judged.mature()
    when, unit, loss, answers = _losses(known, metric, rule.task)
    day = (column_time(earlier.end) - when) // np.timedelta64(1, "D").astype("m8[us]")  # 0 is the last one
    losses = {each: _over(each, days, day, unit, loss) for each in _stretches(days)}
    return Observed(
        until=until.isoformat(), days=days, predictions=len(latest), curve=_curve(latest, until - length, days),
        mature=len(judged), labelled=len(known) / len(judged) if len(judged) else None,
        label=moments(unit_means(known.predictions.unit, known.labels.value)), metric=metric,
        loss=losses[days], losses=losses, answers=answers, delays=_delays(heard[~np.isnan(heard)]),
    )  # fmt: skip


def _curve(latest: Examples, start: datetime, days: int) -> UnitCurve:
    day = (latest.predictions.at - column_time(start)) // np.timedelta64(1, "D").astype("m8[us]")
    return unit_curve(day, latest.predictions.unit, days=days)


def _stretches(days: int) -> list[int]:
    """One day, a week, two, four, …; and all days."""
    weeks = [7 << n for n in range(8) if 7 << n < days]
    return sorted({1, *weeks, days})


def _over(length: int, days: int, day: Column, unit: Column, loss: Column) -> Moments:
    """The units' means over each whole stretch of so many days, all of these together."""
    stretch = day // length
    whole = stretch < days // length
    names = np.array(
        [f"{number} {name}" for number, name in zip(stretch[whole], unit[whole], strict=True)], dtype=object
    )
    return moments(unit_means(names, loss[whole]))


def _losses(known: Examples, metric: str, task: Task) -> tuple[Column, Column, Column, Literal["served", "constant"]]:
    """Time, unit and loss of each row that a champion answered, or else of all; and whose answers were taken."""
    row_loss = METRICS[metric].row_loss
    assert row_loss is not None  # callers name a loss of single rows
    answered = known.take((known.predictions.arm == "champion") & given(known.predictions.answer))
    if len(answered) or not len(known):
        loss = row_loss(answered.labels.value, answered.predictions.answer)
        return answered.predictions.at, answered.predictions.unit, loss, "served"
    label = known.labels.value
    shares = np.bincount(label.astype(np.intp)) / len(label) if task == "multiclass" else label.mean()
    loss = row_loss(label, np.tile(shares, (len(label), 1)) if task == "multiclass" else np.full(len(label), shares))
    return known.predictions.at, known.predictions.unit, loss, "constant"


def _delays(heard: Column) -> tuple[float, float, float] | None:
    if not len(heard):
        return None
    half, most, nearly_all = np.quantile(heard, _SHARES).tolist()
    return half, most, nearly_all
