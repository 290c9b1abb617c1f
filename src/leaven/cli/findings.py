"""Does this loop fit this data?"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from leaven.cli.leaks import leaks
from leaven.cli.sample import Column, Sample, days_between
from leaven.controller.history import HistoryLog
from leaven.curation.snapshot import define_snapshot, read_holdout, read_snapshot
from leaven.duration import instant
from leaven.events.columns import Examples
from leaven.events.source import Marks, Span
from leaven.experiments import ABTest
from leaven.experiments.ab_reading import LEAST
from leaven.experiments.trial import steps_of
from leaven.gates import NotWorse
from leaven.loop import Feature, Loop
from leaven.stats.metrics import default_metric
from leaven.storage.history_file import History
from leaven.storage.tabular import quoted

Level = Literal["ok", "note", "problem"]
_SQL_TYPES = {"category": "VARCHAR", "text": "VARCHAR", "float": "DOUBLE", "int": "BIGINT", "bool": "BOOLEAN"}
_MANY_CATEGORIES = 1000
_TOLD = 5  # classes that are told by name, the most frequent ones


class Finding(msgspec.Struct, frozen=True):
    """One thing that was looked at; a problem must be mended before the loop can work, a note should be read."""

    level: Level
    about: str
    text: str


def column_findings(loop: Loop, sample: Sample) -> Iterator[Finding]:
    """Yield whether each feature, the label and the unit are there, with values that fit."""
    missing = [f.name for f in loop.features if f.name not in sample.columns]
    there = [feature for feature in loop.features if feature.name in sample.columns]
    if missing:
        had = ", ".join(sample.columns)
        yield Finding("problem", "features", f"the data has no column {', '.join(missing)}; it has {had}")
    found = [each for feature in there for each in _feature_findings(feature, sample.columns[feature.name], sample)]
    yield from found
    if not missing and not any(finding.level == "problem" for finding in found):
        yield Finding("ok", "features", f"{len(there)} features are there and fit their types")
    if loop.label.name not in sample.columns:
        yield Finding("problem", "label", f"the data has no column {loop.label.name}")
    else:
        tells = leaks(sample, loop.label.name, [feature.name for feature in there])
        for name, why in tells.items():
            yield Finding("note", name, f"is it known when the prediction is made? {why}")
    yield _unit_finding(loop, sample)


def _feature_findings(feature: Feature, column: Column, sample: Sample) -> Iterator[Finding]:
    name = quoted(feature.name)
    wrong = f"{name} IS NOT NULL AND TRY_CAST({name} AS {_SQL_TYPES[feature.type]}) IS NULL"
    unfit = int(sample.value(f"count(*) FILTER ({wrong})"))
    if unfit:
        shown = sample.value(f"any_value({name}) FILTER ({wrong})")
        yield Finding("problem", feature.name, f"{unfit} values are no {feature.type}, such as {shown!r}")
    if not column.known:
        yield Finding("problem", feature.name, "it is missing in every row")
        return
    if feature.required and column.missing:
        yield Finding("problem", feature.name, f"it is required, and missing in {column.missing:.1%} of the rows")
    elif column.missing > 0.5:
        yield Finding("note", feature.name, f"it is missing in {column.missing:.1%} of the rows")
    if column.distinct < 2:
        yield Finding("note", feature.name, "it is the same in every row, so it tells nothing")
    elif feature.type == "category" and column.distinct > _MANY_CATEGORIES:
        yield Finding("note", feature.name, f"{column.distinct} categories are many; each needs examples of its own")


def _unit_finding(loop: Loop, sample: Sample) -> Finding:
    if loop.unit not in sample.columns:
        return Finding("note", "unit", f"{loop.unit!r} is no column, so each row counts as a unit of its own here")
    unit = sample.columns[loop.unit]
    if unit.distinct < 100:
        return Finding("note", "unit", f"{unit.distinct} different {loop.unit} are few to split traffic by")
    gaps = f"; it is missing in {unit.missing:.1%} of the rows" if unit.missing else ""
    each = sample.rows / unit.distinct
    return Finding("ok", "unit", f"{unit.distinct} different {loop.unit}, {each:.1f} rows each{gaps}")


def outcome_findings(loop: Loop, history: History) -> Iterator[Finding]:
    """Yield what the outcomes are, how many there are, and whether they come within the label's window."""
    told = ~np.isnan(history.outcome) & ~np.isnat(history.label_at)
    if told.any():
        yield from _delay_findings(loop, (history.label_at - history.at)[told])
    labelled = _everything(loop, history).mature()
    share, values = len(labelled) / max(len(history), 1), labelled.labels.value
    if not len(labelled):
        yield Finding("problem", "label", f"no row has a {loop.label.name} within {_length(loop.label.window)}")
        return
    if loop.label.task == "binary":
        shape = f"{values.mean():.1%} of these are 1"
    elif loop.classes:
        shares = np.bincount(values.astype(np.intp), minlength=len(loop.classes)) / len(values)
        order = np.argsort(-shares, kind="stable").tolist()
        shape = ", ".join(f"{loop.classes[place]} {shares[place]:.1%}" for place in order[:_TOLD])
        shape += f", the others {shares[order[_TOLD:]].sum():.1%}" if len(order) > _TOLD else ""
        if absent := [name for name, share in zip(loop.classes, shares, strict=True) if not share]:
            yield Finding("note", "label", f"no row is {', '.join(absent)}: a model cannot learn what it never saw")
    else:
        low, middle, high = np.quantile(values, [0.05, 0.5, 0.95])
        shape = f"half are below {middle:.4g}, 90 % between {low:.4g} and {high:.4g}"
    level: Level = "problem" if values.min() == values.max() else "ok"
    yield Finding(level, "label", f"{share:.1%} of {len(history)} rows have a label; {shape}")


def _delay_findings(loop: Loop, delay: NDArray[Any]) -> Iterator[Finding]:
    inside = float(((delay >= np.timedelta64(0, "us")) & (delay <= np.timedelta64(loop.label.window))).mean())
    early = float((delay < np.timedelta64(0, "us")).mean())
    quantiles = np.quantile(delay.astype(np.int64), [0.5, 0.99])
    median, late = (_length(timedelta(microseconds=float(each))) for each in quantiles)
    text = f"{inside:.1%} of outcomes come within {_length(loop.label.window)} (median {median}, 99 % within {late})"
    yield Finding("ok" if inside >= 0.95 else "note" if inside >= 0.5 else "problem", "label window", text)
    if early > 0.001:
        yield Finding("problem", "label window", f"{early:.1%} of outcomes are dated before their request")


def size_findings(loop: Loop, history: History) -> Iterator[Finding]:
    """Yield whether the loop's data, holdout, gates and stages get enough rows at this rate."""
    days = days_between(_moment(history, 0), _moment(history, -1))
    yield Finding("ok", "rate", f"{len(history)} rows in {days:.0f} days, {len(history) / days:,.0f} a day")
    train, holdout = split(loop, history)
    level: Level = "problem" if not len(train) else "note" if len(train) < 1000 else "ok"
    yield Finding(level, "data", f"{loop.data!r} holds {len(train)} labelled rows at the end of the file")
    needed = max((gate.min_rows for gate in loop.gates if isinstance(gate, NotWorse) and gate.on == "fresh"), default=1)
    told = f"the newest {loop.holdout} hold {len(holdout)} labelled rows"
    few = f"{told}, fewer than the {needed} that the gates need: make it longer"
    yield Finding("problem", "holdout", few) if len(holdout) < needed else Finding("ok", "holdout", told)
    yield from _stage_findings(loop, history)


def _stage_findings(loop: Loop, history: History) -> Iterator[Finding]:
    for stage, step in steps_of(loop.rollout):
        if isinstance(stage, ABTest):
            yield _test_finding(stage, loop, history)
        if isinstance(stage, ABTest) or step.holds or step.kind == "watch":
            continue
        soon, late = (_units(history, length, step.share) for length in (step.at_least, step.at_most))
        needed = int(getattr(stage, "min_units", 1))
        about, takes = f"{step.kind} {step.share:.0%}", f"it takes {needed}"
        if late < needed:
            yield Finding(
                "problem", about, f"about {late:.0f} units in {_length(step.at_most)}, and {takes}: it would give up"
            )
        elif soon < needed:
            yield Finding(
                "note", about, f"about {soon:.0f} units in {_length(step.at_least)}, and {takes}: it will wait longer"
            )
        else:
            yield Finding("ok", about, f"about {soon:.0f} units in {_length(step.at_least)}, and {takes}")


def _test_finding(stage: ABTest, loop: Loop, history: History) -> Finding:
    """Whether an A/B test gets the units that it plans for: with labels that are final before its patience is over."""
    design = stage.design(default_metric(loop.label.task))
    usable = design.patience - design.lag(loop.label)
    came, takes = _units(history, usable, 1.0), f"it plans for {stage.units:,}"
    about = f"A/B test {stage.share:.0%}"
    if came >= stage.units:
        return Finding("ok", about, f"about {came:,.0f} units in {_length(usable)}, and {takes}")
    level: Level = "problem" if came < 2 * LEAST else "note"
    text = f"about {came:,.0f} units in the {_length(usable)} whose labels are final in time, and {takes}"
    return Finding(level, about, f"{text}: only a large effect would be found before it gives up")


def _units(history: History, length: timedelta, share: float) -> float:
    """Different units that a step of this length meets, on the latest stretch of the file."""
    begin = history.at[-1] - np.timedelta64(length)
    recent = history.unit[int(np.searchsorted(history.at, begin)) :]
    covered = min(1.0, (history.at[-1] - history.at[0]) / np.timedelta64(length)) if len(history) > 1 else 1.0
    return share * len(set(recent.tolist())) / max(float(covered), 1e-3)


def split(loop: Loop, history: History) -> tuple[Examples, Examples]:
    """Return the examples that a refresh at the end of the file learns from, and those that it keeps to judge by."""
    log, marks, end = HistoryLog(history), Marks(len(history), len(history)), _end(loop, history)
    first, until = _moment(history, 0), end - loop.label.window - loop.holdout_length
    parts = loop.data.parts(until=until, first=first)
    taken = define_snapshot(
        loop.name,
        parts,
        holdout=Span(until, until + loop.holdout_length),
        rule=loop.label,
        as_of=end,
        marks=marks,
        seed=loop.seed,
    )
    nothing = log.examples(Span(first, first), loop.label, as_of=end, marks=marks)
    return read_snapshot(taken, log, loop.label) if parts else nothing, read_holdout(taken, log, loop.label)


def _everything(loop: Loop, history: History) -> Examples:
    """All rows with their final labels."""
    end, marks = _end(loop, history), Marks(len(history), len(history))
    return HistoryLog(history).examples(Span(_moment(history, 0), end), loop.label, as_of=end, marks=marks)


def _end(loop: Loop, history: History) -> datetime:
    """The moment at which the last label of the file is final."""
    return _moment(history, -1) + timedelta(microseconds=1) + loop.label.window


def _moment(history: History, row: int) -> datetime:
    return instant(int(history.at[row].astype(np.int64)))


def _length(length: timedelta) -> str:
    """A length in its largest unit, and the one below where that says more: 2d, 2h 50min, 0s."""
    seconds, told = round(length.total_seconds()), list[str]()
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "min"), (1, "s")):
        count, rest = divmod(seconds, size)
        if count and len(told) < 2:
            told.append(f"{count}{unit}")
            seconds = rest
        elif told:
            break
    return " ".join(told) or "0s"
