"""Which salt does a trial begin with, and what says that it deals fairly?"""

from __future__ import annotations

from datetime import datetime, timedelta

import numpy as np

from leaven.controller import state
from leaven.controller.parts import Parts
from leaven.events.columns import Column, Examples
from leaven.events.source import ExampleSource, Span
from leaven.experiments.self_test import SelfTest, self_test
from leaven.experiments.trial import steps_of
from leaven.loop import Loop
from leaven.registry import loops
from leaven.stats.answers import given
from leaven.stats.metrics import METRICS, default_metric
from leaven.stats.moments import unit_means

MOST_ROWS = 20_000
_LENGTHS = [timedelta(hours=hours) for hours in (6, 24, 96, 384, 672)]  # each read is at most four times the last


def salt_for(parts: Parts, loop: Loop, trial_id: str, *, now: datetime, step: int) -> SelfTest:
    """Return the test of the salts that a trial could have, on the latest units whose labels are mature.

    It depends on the log as of `now` and on the trial before, so it says the same when it is asked again.
    """
    with parts.database.read() as connection:
        own = loops.loop(connection, loop.name).salt
        before = next((one for one in state.latest_trials(connection, loop.name, limit=2) if one.id != trial_id), None)
    previous = None if before is None else before.salt or f"{own}/{before.id}"
    units, losses = _units(loop, latest(parts.source(loop.name), loop, now=now))
    shares = [each.share for _, each in steps_of(loop.rollout)[step:]]
    return self_test(units, losses, salt=f"{own}/{trial_id}", shares=shares, previous=previous)


def latest(source: ExampleSource, loop: Loop, *, now: datetime) -> Examples:
    """Return the newest examples whose windows have closed, at most `MOST_ROWS` and none older than four weeks."""
    end, first = now - loop.label.window, source.first()
    found = None
    for length in _LENGTHS:
        found = source.examples(Span(end - length, end), loop.label, as_of=now)
        if len(found) >= MOST_ROWS or first is None or first >= end - length:
            break
    assert found is not None
    rows = len(found)
    return found if rows <= MOST_ROWS else found.take(np.arange(rows - MOST_ROWS, rows))


def _units(loop: Loop, examples: Examples) -> tuple[list[str], Column]:
    """The units, each once, and the mean loss of each under whoever was champion; NaN where it has none."""
    units = np.unique(examples.predictions.unit.astype(str))
    judged = examples.mature()
    judged = judged.take((judged.predictions.arm == "champion") & given(judged.predictions.answer))
    row_loss = METRICS[default_metric(loop.label.task)].row_loss
    assert row_loss is not None  # a task's own metric is a loss of single rows
    unit = judged.predictions.unit.astype(str)
    losses = np.full(len(units), np.nan)
    means = unit_means(unit, row_loss(judged.labels.value, judged.predictions.answer))
    losses[np.searchsorted(units, np.unique(unit))] = means
    return units.tolist(), losses
