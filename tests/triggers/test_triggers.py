"""When a refresh is due."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from leaven.errors import BadDefinition
from leaven.monitoring.signal import Signal
from leaven.stats.intervals import Interval
from leaven.stats.metrics import METRICS
from leaven.triggers import Drops, Every, Facts, LabelsGrow

MONDAY = datetime(2026, 3, 2, 9, 30, tzinfo=UTC)


def not_asked(*given):
    raise AssertionError("this trigger had no need to read the log")


def facts(**other):
    given = {"now": MONDAY, "has_champion": True, "last_refresh": None, "learnt_rows": 1_000,
             "matured_since_refresh": not_asked, "performance": not_asked}  # fmt: skip
    return Facts(**(given | other))


def test_a_period_fires_once_and_anew_in_the_next():
    every = Every("1d")
    assert every.fires(facts())
    midnight = MONDAY.replace(hour=0, minute=0)
    assert every.fires(facts(last_refresh=midnight)) is None
    assert every.fires(facts(last_refresh=MONDAY - timedelta(minutes=1))) is None
    assert every.fires(facts(last_refresh=midnight - timedelta(seconds=1)))
    assert "2026-03-02 00:00" in every.fires(facts()).why


@given(st.integers(0, 400), st.integers(1, 400))
def test_every_period_gets_one_refresh_however_often_and_late_one_looks(hours, step):
    """A simulation of ticks `step` hours apart over 60 days: as many refreshes as periods that were looked into."""
    every, last, fired, periods = Every("3d"), None, 0, set()
    now = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(hours=hours)
    for _ in range(60 * 24 // step + 1):
        periods.add((now - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(days=3))
        if every.fires(facts(now=now, last_refresh=last)):
            fired, last = fired + 1, now
        now += timedelta(hours=step)
    assert fired == len(periods)


@pytest.mark.parametrize(
    ("matured", "learnt", "due"),
    [(49, 1_000, False), (50, 1_000, True), (500, 1_000, True), (0, 0, False), (1, 0, True), (0, 10, False)],
)
def test_labels_have_grown_by_a_share_of_what_the_champion_learnt(matured, learnt, due):
    cause = LabelsGrow(0.05).fires(facts(learnt_rows=learnt, matured_since_refresh=lambda: matured))
    assert bool(cause) == due
    assert not due or cause.why.startswith(f"{matured} labels matured")


def test_before_the_first_champion_only_the_schedule_fires():
    nobody = facts(has_champion=False)
    assert LabelsGrow(0.05).fires(nobody) is None
    assert Drops("roc_auc", by=0.02).fires(nobody) is None
    assert Every("1d").fires(nobody)


def measured(metric, before, now):
    signal = Signal("performance", 0, now, before)
    return facts(performance=lambda name, over: signal if name == metric else not_asked())


def interval(estimate, half, n=1_000):
    return Interval(estimate, estimate - half, estimate + half, 0.95, n)


@pytest.mark.parametrize(
    ("metric", "before", "now", "due"),
    [
        ("roc_auc", 0.80, 0.70, True), ("roc_auc", 0.80, 0.79, False), ("roc_auc", 0.80, 0.90, False),
        ("log_loss", 0.40, 0.50, True), ("log_loss", 0.40, 0.30, False), ("absolute_error", 4.0, 4.3, True),
    ],
)  # fmt: skip
def test_a_drop_is_worse_whichever_way_the_metric_points(metric, before, now, due):
    cause = Drops(metric, by=0.02).fires(measured(metric, interval(before, 0.01), interval(now, 0.01)))
    assert bool(cause) == due
    assert not due or (f"{now:.4f}" in cause.why and f"{before:.4f}" in cause.why)


def test_a_drop_that_noise_could_make_does_not_fire():
    drops = Drops("roc_auc", by=0.02)
    assert drops.fires(measured("roc_auc", interval(0.8, 0.01), interval(0.72, 0.01)))
    assert drops.fires(measured("roc_auc", interval(0.8, 0.01), interval(0.72, 0.1))) is None
    assert drops.fires(measured("roc_auc", interval(0.8, 0.1), interval(0.72, 0.01))) is None


def test_a_drop_that_the_last_refresh_has_seen_does_not_fire_again():
    low = measured("roc_auc", interval(0.8, 0.01), interval(0.7, 0.01))
    drops = Drops("roc_auc", by=0.02, over="3d")
    assert drops.fires(replace(low, last_refresh=MONDAY - timedelta(days=2))) is None
    assert drops.fires(replace(low, last_refresh=MONDAY - timedelta(days=3)))


@pytest.mark.parametrize("missing", ["reference", "now", "both infinite"])
def test_what_was_not_measured_does_not_fire(missing):
    nothing = Interval(math.nan, -math.inf, math.inf, 0.95, 0)
    before = None if missing == "reference" else nothing if missing == "both infinite" else interval(0.8, 0.01)
    now = interval(0.1, 0.01) if missing == "reference" else nothing
    assert Drops("roc_auc", by=0.0).fires(measured("roc_auc", before, now)) is None


@pytest.mark.parametrize(("drop", "least", "most"), [(0.0, 0.0, 0.001), (0.05, 0.0, 0.066), (0.15, 0.95, 1.0)])
def test_a_drop_just_at_the_bound_fires_in_one_of_twenty_looks_at_most_and_a_large_one_nearly_always(drop, least, most):
    """1,000 looks; answers spread about a truth that worsened by `drop` where `by` is 0.05; 3 standard errors are .021,
    less what the calibration's own tolerance allows."""
    rng, fired = np.random.default_rng(5), 0
    log_loss = METRICS["log_loss"]
    for _ in range(1_000):
        losses = rng.gamma(2, 0.25, 1_500), rng.gamma(2, 0.25, 900) + drop
        before, now = (log_loss_interval(one) for one in losses)
        fired += Drops("log_loss", by=0.05).fires(measured("log_loss", before, now)) is not None
    assert log_loss.higher_is_better is False
    assert least <= fired / 1_000 <= most


def log_loss_interval(losses):
    from leaven.stats.intervals import mean_interval
    from leaven.stats.moments import moments

    return mean_interval(moments(losses), alpha=0.05)


@pytest.mark.parametrize("wrong", [
    lambda: Every("daily"), lambda: LabelsGrow(0), lambda: LabelsGrow(-1), lambda: LabelsGrow(math.nan),
    lambda: Drops("roc_auc", by=-0.1), lambda: Drops("roc_auc", by=math.nan), lambda: Drops("roc_auc", by=0, over="3"),
])  # fmt: skip
def test_what_is_no_trigger_is_refused(wrong):
    with pytest.raises(BadDefinition):
        wrong()


def test_a_facts_value_asks_the_log_only_when_it_must():
    assert Every("1d").fires(replace(facts(), last_refresh=MONDAY)) is None
