"""What did the units of one bucket do, each from when it met its arm?

Only the log of the bucket's own stretch is read, and as of the moment at which it closed: whoever makes the evidence
again, from nothing and at any later time, reads the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cached_property

import numpy as np

from leaven.events.columns import Column, Examples, Labels, Matched, Predictions, column_time
from leaven.events.labels import LabelRule, Task
from leaven.events.meetings import Newcomers
from leaven.events.source import Span
from leaven.experiments.ab_design import Design
from leaven.experiments.ab_evidence import CHALLENGER, CHAMPION
from leaven.experiments.ab_metrics import Failures, Metric, Outcome, Ratio
from leaven.experiments.stage import Traffic
from leaven.stats.answers import given
from leaven.stats.quality import QUALITIES
from leaven.values import value


@dataclass(frozen=True, slots=True)
class Rows:
    """What was served to a bucket's units within their time, oldest first, with one rule's labels."""

    which: Column  # int64, the unit's place among the newcomers
    served: Predictions
    label: Column  # float64, NaN where there is none


@dataclass
class Cohort:
    """The units of one bucket; what they did is read by label rule, when it is asked for, once."""

    design: Design
    traffic: Traffic
    number: int  # of the bucket, from 0
    came: Newcomers = field(init=False)
    _read: dict[str, Rows] = field(default_factory=dict)

    def __post_init__(self) -> None:
        whole = Span(self.traffic.since, self.until)
        entered = Span(self.start, self.start + self.design.every)
        self.came = self.traffic.source.newcomers(whole, self.arms, first_in=entered, as_of=self.closes)

    @cached_property
    def _place(self) -> dict[str, int]:
        return {unit: row for row, unit in enumerate(self.came.unit.tolist())}

    @property
    def arms(self) -> Mapping[str, str]:
        """The version behind each arm."""
        return arms_of(self.traffic)

    @property
    def start(self) -> datetime:
        """When it begins."""
        return self.traffic.since + self.number * self.design.every

    @property
    def until(self) -> datetime:
        """When its last unit's time is over."""
        return self.start + self.design.every + self.design.over

    @property
    def closes(self) -> datetime:
        """When everything about it is known."""
        return closes_at(self.design, self.traffic, self.number)

    def rows(self, rule: LabelRule | None = None) -> Rows:
        """Return what its units did, with the labels of `rule`, or the loop's own."""
        rule = self.traffic.label if rule is None else rule
        if repr(rule) not in self._read:
            read = self.traffic.source.examples(Span(self.start, self.until), rule, as_of=self.closes)
            self._read[repr(rule)] = self._own(read)
        return self._read[repr(rule)]

    def delays(self, rule: LabelRule) -> Rows:
        """Return the days until the first report about each row."""
        return self.rows(Delay(rule))

    def _own(self, examples: Examples) -> Rows:
        """The rows of its units, each from the first meeting on for as long as `over`."""
        served = examples.predictions
        which = np.array([self._place.get(unit, -1) for unit in served.unit.tolist()], dtype=np.int64)
        rows = np.flatnonzero(which >= 0)
        which = which[rows]
        age = served.at[rows] - self.came.first[which]
        kept = (age >= np.timedelta64(0, "us")) & (age < np.timedelta64(self.design.over))
        kept &= served.arm[rows] == self.came.arm[which]
        kept &= served.version[rows] == np.array([self.arms[arm] for arm in self.came.arm.tolist()], object)[which]
        return Rows(which[kept], served.take(rows[kept]), examples.labels.value[rows[kept]])


def arms_of(traffic: Traffic) -> dict[str, str]:
    """Return the version behind each arm."""
    return {CHAMPION: traffic.champion, CHALLENGER: traffic.challenger}


def closes_at(design: Design, traffic: Traffic, number: int) -> datetime:
    """Return when everything about a bucket is known."""
    return traffic.since + (number + 1) * design.every + design.lag(traffic.label)


def totals(metric: Metric, rows: Sequence[Rows], units: int) -> tuple[Column, Column, Column]:
    """Return numerator and denominator per unit, and which units have any.

    Args:
        metric: A mean, or a ratio of totals.
        rows: As `rules_of` names its rules; of any rule where it needs none.
        units: How many there are.
    """
    if isinstance(metric, Ratio):
        parts = [_summed(each, np.nan_to_num(each.label), units) for each in rows]
        known = sum(_summed(each, (~np.isnan(each.label)).astype(float), units) for each in rows)
        return parts[0], parts[-1], np.asarray(known > 0)
    (own,) = rows
    if isinstance(metric, Failures):
        hit = _summed(own, (~given(own.served.answer) & ~own.served.exposed).astype(float), units) > 0
        there = _summed(own, np.ones(len(own.which)), units) > 0
        return hit.astype(float), np.ones(units), there
    known = ~np.isnan(own.label)
    if isinstance(metric, Outcome):
        numerator, denominator = own.label[known], np.ones(int(known.sum()))
    else:
        known &= given(own.served.answer)
        numerator, denominator = QUALITIES[str(metric)].parts(own.label[known], own.served.answer[known], 0.5)
    told = Rows(own.which[known], own.served, own.label)
    counted = _summed(told, np.ones(len(told.which)), units)
    return _summed(told, numerator, units), _summed(told, denominator, units), counted > 0


def _summed(rows: Rows, numbers: Column, units: int) -> Column:
    sums: Column = np.bincount(rows.which, weights=numbers, minlength=units)
    return sums


@value
class Delay:
    """A label rule whose label is how many days the first report took that the rule counts."""

    rule: LabelRule

    @property
    def name(self) -> str:
        """The rule's."""
        return self.rule.name

    @property
    def task(self) -> Task:
        """A number."""
        return "regression"

    @property
    def window(self) -> timedelta:
        """The rule's."""
        return self.rule.window

    def resolve(self, predicted_at: Column, feedback: Matched, *, as_of: datetime) -> Labels:
        """Return the days until the first report had arrived; NaN where none came within the window."""
        labels = self.rule.resolve(predicted_at, feedback, as_of=as_of)
        late = feedback.at - predicted_at[feedback.row]
        counted = feedback.take(
            (feedback.name == self.name)
            & (feedback.received_at <= column_time(as_of))
            & (late >= np.timedelta64(0, "us"))
            & (late <= np.timedelta64(self.window))
        )
        days = np.full(len(predicted_at), np.inf)
        took = (counted.received_at - predicted_at[counted.row]) / np.timedelta64(1, "D")
        np.minimum.at(days, counted.row, took)
        return Labels(np.where(np.isinf(days), np.nan, days), labels.mature, labels.closes_at)
