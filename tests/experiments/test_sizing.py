"""Does a test that is sized by the log find what it must, in the days that were named?"""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest

from leaven.errors import BadDefinition
from leaven.experiments.sizing import size_by_log
from leaven.stats.moments import moments
from leaven.stats.size import Plan, days_on_curve, smallest_effect, units_for_means
from leaven.stats.unit_curve import UnitCurve, unit_curve

PEOPLE, HABIT, BETWEEN, WITHIN = 4_000, 0.12, 0.1, 0.6  # visits a day; spread of persons, and of a person's visits


def means_of(rng, visits):
    """Each person's mean over so many visits, of those who came: persons differ a little, their visits by a lot."""
    visits = visits[visits > 0]
    return 1 + BETWEEN * rng.normal(size=len(visits)) + WITHIN / np.sqrt(visits) * rng.normal(size=len(visits))


@pytest.fixture(scope="module")
def the_log():
    rng = np.random.default_rng(1)
    visits = rng.random((28, PEOPLE)) < HABIT
    stretches = {days: visits.reshape(-1, days, PEOPLE).sum(1).ravel() for days in (1, 7, 14, 28)}
    losses = {days: moments(means_of(rng, counts)) for days, counts in stretches.items()}
    return losses, unit_curve(*np.nonzero(visits), days=28)


@pytest.mark.parametrize(("mde", "over"), [(0.06, 1), (0.055, 7)])
def test_a_test_of_that_size_has_its_power_in_those_days(the_log, mde, over):
    """400 tests, each unit measured from its first visit on; tolerance: 3 standard errors."""
    sized = size_by_log(*the_log, Plan(mde), over=over)
    assert sized.lasts.days is not None
    assert 7 <= sized.lasts.days <= 35
    rng, found, came = np.random.default_rng(2), [], []
    for _ in range(400):
        arrived = (rng.geometric(HABIT, PEOPLE) <= sized.lasts.days - over).sum()
        per_unit = means_of(rng, 1 + rng.binomial(over - 1, HABIT, arrived))
        arm = rng.random(len(per_unit)) < 0.5
        a, b = moments(per_unit[arm] + mde), moments(per_unit[~arm])
        z = (a.mean - b.mean) / math.sqrt(a.variance / a.count + b.variance / b.count)
        found.append(abs(z) > 1.96)
        came.append(len(per_unit))
    assert np.mean(came) >= 0.97 * sized.total
    assert np.mean(found) >= 0.8 - 3 * math.sqrt(0.16 / 400)


def test_units_that_are_measured_for_a_day_are_not_planned_with_the_calm_of_a_month(the_log):
    by_day, by_month = (size_by_log(*the_log, Plan(0.06), over=over) for over in (1, 28))
    assert by_day.control > 2 * by_month.control
    assert by_day.sd == pytest.approx(math.hypot(BETWEEN, WITHIN), rel=0.02)
    between = size_by_log(*the_log, Plan(0.06), over=10)
    assert by_month.sd < between.sd < by_day.sd


def test_days_are_those_of_the_curve_and_never_less_than_a_week_or_two_windows():
    curve = UnitCurve(tuple(range(50, 1_450, 50)), once=1_400, twice=0)  # 50 newcomers a day, who never come back
    assert days_on_curve(500, curve).days == 10
    assert days_on_curve(500, curve, share=0.5).days == 20
    assert days_on_curve(500, curve, window=3.5).days == 14
    assert days_on_curve(500, curve, window=3.5, over=7).days == 21
    assert days_on_curve(20, curve).days == 7
    assert days_on_curve(20, curve, window=9.5).days == 19
    far = days_on_curve(5_000, curve)
    assert far.soonest is not None
    assert far.soonest <= (far.days or 0) <= (far.latest or math.inf)
    with pytest.raises(BadDefinition, match="no share"):
        days_on_curve(1, curve, share=0)


def test_where_fewer_units_come_than_are_wanted_there_are_no_days():
    nobody_new = UnitCurve((100,) * 28, once=0, twice=0)
    lasting = days_on_curve(101, nobody_new)
    assert (lasting.days, lasting.soonest, lasting.latest) == (None, None, None)


def test_the_smallest_effect_is_the_one_that_those_units_are_the_size_for():
    units = units_for_means(1.0, Plan(0.1))
    assert smallest_effect(0.1, units, units / 4) == pytest.approx(0.2)
    assert units_for_means(1.0, Plan(smallest_effect(0.1, units, 5_000))) == pytest.approx(5_000, rel=1e-3)
    assert smallest_effect(0.1, units, 0) == math.inf


def test_more_looks_and_smaller_effects_take_more_units_and_no_fewer_days(the_log):
    plain = [size_by_log(*the_log, Plan(mde)) for mde in (0.1, 0.05, 0.03)]
    assert all(a.total < b.total and (a.lasts.days or 0) <= (b.lasts.days or 9e9) for a, b in pairwise(plain))
    assert size_by_log(*the_log, Plan(0.05), times=1.2).total == pytest.approx(1.2 * plain[1].total, abs=3)


def test_no_stretch_and_no_time_to_measure_are_refused(the_log):
    for losses, over in (({}, 1.0), (the_log[0], 0.0)):
        with pytest.raises(BadDefinition, match="no stretch"):
            size_by_log(losses, the_log[1], Plan(0.05), over=over)
