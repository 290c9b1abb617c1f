"""What does the log say of a loop that a trial must be planned by?"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Literal

import msgspec
import numpy as np

from leaven.events.columns import Column, Examples, column_time
from leaven.events.hearing import Hearing
from leaven.events.labels import LabelRule
from leaven.events.source import ExampleSource, Span
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
    losses: dict[int, Moments]  # of the latest 7, 14, … of the days: means over fewer days are noisier
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
    when, unit, loss, answers = _losses(known, metric)
    end = column_time(earlier.end)
    by_days = {each: when >= end - np.timedelta64(each, "D") for each in _stretches(days)}
    losses = {each: moments(unit_means(unit[recent], loss[recent])) for each, recent in by_days.items()}
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
    """A week, two, four, …; and all days."""
    weeks = [7 << n for n in range(8) if 7 << n < days]
    return [*weeks, days]


def _losses(known: Examples, metric: str) -> tuple[Column, Column, Column, Literal["served", "constant"]]:
    """Time, unit and loss of each row; and whose answers these are the losses of."""
    row_loss = METRICS[metric].row_loss
    assert row_loss is not None  # callers name a loss of single rows
    answered = known.take(~np.isnan(known.predictions.answer))
    if len(answered) or not len(known):
        loss = row_loss(answered.labels.value, answered.predictions.answer)
        return answered.predictions.at, answered.predictions.unit, loss, "served"
    label = known.labels.value
    loss = row_loss(label, np.full(len(label), label.mean()))
    return known.predictions.at, known.predictions.unit, loss, "constant"


def _delays(heard: Column) -> tuple[float, float, float] | None:
    if not len(heard):
        return None
    half, most, nearly_all = np.quantile(heard, _SHARES).tolist()
    return half, most, nearly_all
