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
    losses = {days: moments(means_of(rng, visits[-days:].sum(0))) for days in (7, 14, 28)}
    return losses, unit_curve(*np.nonzero(visits), days=28)


@pytest.mark.parametrize("mde", [0.06, 0.035])
def test_a_test_of_that_size_has_its_power_in_those_days(the_log, mde):
    """400 tests, as long as was said and with whoever comes then; tolerance: 3 standard errors."""
    sized = size_by_log(*the_log, Plan(mde))
    assert sized.lasts.days is not None
    assert 7 <= sized.lasts.days <= 28
    rng, found, came = np.random.default_rng(2), [], []
    for _ in range(400):
        per_unit = means_of(rng, rng.binomial(sized.lasts.days, HABIT, PEOPLE))
        arm = rng.random(len(per_unit)) < 0.5
        a, b = moments(per_unit[arm] + mde), moments(per_unit[~arm])
        z = (a.mean - b.mean) / math.sqrt(a.variance / a.count + b.variance / b.count)
        found.append(abs(z) > 1.96)
        came.append(len(per_unit))
    assert np.mean(came) == pytest.approx(sized.total, rel=0.05) or sized.lasts.days == 7
    assert np.mean(found) >= 0.8 - 3 * math.sqrt(0.16 / 400)


def test_a_short_test_is_not_planned_with_the_calm_of_a_long_one(the_log):
    """A person's mean over a month is less noisy than over a week: planned by it, a week's test finds too little."""
    losses, curve = the_log
    by_month = units_for_means(math.sqrt(losses[28].variance), Plan(0.08))
    assert size_by_log(losses, curve, Plan(0.08)).control > 1.5 * by_month


def test_days_are_those_of_the_curve_and_never_less_than_a_week_or_two_windows():
    curve = UnitCurve(tuple(range(50, 1_450, 50)), once=1_400, twice=0)  # 50 newcomers a day, who never come back
    assert days_on_curve(500, curve).days == 10
    assert days_on_curve(500, curve, share=0.5).days == 20
    assert days_on_curve(500, curve, window=3.5).days == 14
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


def test_more_looks_and_smaller_effects_take_no_fewer_units_and_days(the_log):
    plain = [size_by_log(*the_log, Plan(mde)) for mde in (0.1, 0.05, 0.03)]
    assert all(a.total < b.total and (a.lasts.days or 0) <= (b.lasts.days or 9e9) for a, b in pairwise(plain))
    assert plain[1].total < size_by_log(*the_log, Plan(0.05), times=1.2).total < 1.2 * plain[1].total + 2
