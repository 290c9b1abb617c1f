"""Is a fair salt taken, and an unlucky one replaced?"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from leaven.experiments import self_test as module
from leaven.experiments.assignment import POSITIONS, position
from leaven.experiments.self_test import KNOWN_ANSWERS, SelfTest, self_test

UNITS = [f"user-{number}" for number in range(2_000)]
RNG = np.random.default_rng(11)
LOSSES = RNG.gamma(2, 0.3, len(UNITS))


def test_the_known_answers_are_those_that_other_languages_test_against():
    vectors = json.loads((Path(__file__).parent / "assignment_vectors.json").read_text())
    assert {tuple(each) for each in vectors} >= set(KNOWN_ANSWERS)


def test_a_fair_salt_is_taken_and_what_was_seen_is_what_scipy_computes():
    found = self_test(UNITS, LOSSES, salt="shop/t2", shares=[0.1, 0.5, 1.0, 0.1], previous="shop/t1")
    assert (found.passed, found.salt, len(found.tries), found.known_answers) == (True, "shop/t2", 1, True)
    places, before = (np.array([position(u, salt=salt) for u in UNITS]) for salt in ("shop/t2", "shop/t1"))
    (tried,) = found.tries
    assert [each.planned for each in tried.shares] == [0.1, 0.5]
    for each in tried.shares:
        arm = places < round(each.planned * 2**32)
        assert each.units == arm.sum()
        planned = [each.planned * len(UNITS), (1 - each.planned) * len(UNITS)]
        assert each.p_value == pytest.approx(stats.chisquare([arm.sum(), (~arm).sum()], planned).pvalue)
        assert each.alike == pytest.approx(stats.ttest_ind(LOSSES[arm], LOSSES[~arm], equal_var=False).pvalue)
        assert each.difference == pytest.approx(LOSSES[arm].mean() - LOSSES[~arm].mean())
    table = np.histogram2d(places, before, bins=[np.linspace(0, POSITIONS, 5)] * 2)[0]
    assert tried.independence == pytest.approx(stats.chi2_contingency(table).pvalue)


def test_p_values_of_fair_salts_are_even_and_hardly_any_salt_is_replaced():
    """600 trials of 500 units. Kolmogorov-Smirnov at 1e-4; a replaced first salt has probability of about 0.2 %."""
    units, losses = UNITS[:500], LOSSES[:500]
    found = [self_test(units, losses, salt=f"t{n}", shares=[0.3, 0.5], previous=f"t{n - 1}") for n in range(600)]
    firsts = [each.tries[0] for each in found]
    assert all(each.passed for each in found)
    assert sum(not each.passed for each in firsts) <= 6
    for p_values in ([t.shares[0].alike for t in firsts], [t.shares[1].alike for t in firsts],
                     [t.independence for t in firsts]):  # fmt: skip
        assert stats.kstest(p_values, "uniform").pvalue > 1e-4


def test_arms_that_differed_before_they_existed_cost_the_salt():
    place = np.array([position(unit, salt="t1") for unit in UNITS])
    unlucky = LOSSES + 0.1 * (place < POSITIONS / 2)  # a quarter of a standard deviation
    found = self_test(UNITS, unlucky, salt="t1", shares=[0.5])
    assert (found.salt, found.passed, [each.passed for each in found.tries]) == ("t1/2", True, [False, True])
    assert found.tries[0].shares[0].alike < 1e-3
    assert "salt 2, as 1 before it dealt unluckily" in found.why


def test_a_deal_like_the_last_one_costs_the_salt():
    found = self_test(UNITS, LOSSES, salt="t1", shares=[0.5], previous="t1")
    assert (found.salt, found.tries[0].independence) == ("t1/2", pytest.approx(0, abs=1e-9))


def test_units_that_are_not_dealt_as_planned_cost_the_salt():
    place = {unit: position(unit, salt="t1") for unit in UNITS}
    most = [unit for unit in UNITS if place[unit] < 0.6 * POSITIONS]  # the hash is fair; these units met it before
    found = self_test(most, np.full(len(most), np.nan), salt="t1", shares=[0.5])
    assert (found.salt, found.tries[0].passed, found.tries[1].passed) == ("t1/2", False, True)
    assert found.tries[0].shares[0].p_value < 1e-4
    assert "too few of them have a loss" in found.why


def test_after_three_unlucky_salts_the_least_unlucky_is_taken_and_that_is_said(monkeypatch):
    monkeypatch.setattr(module, "ALIKE_ALPHA", 1.1)
    found = self_test(UNITS, LOSSES, salt="t1", shares=[0.5])
    assert [each.salt for each in found.tries] == ["t1", "t1/2", "t1/3"]
    assert not found.passed
    assert found.salt == max(found.tries, key=lambda each: each.shares[0].alike).salt
    assert "none of 3 salts" in found.why


def test_where_there_is_nothing_to_test_it_passes_and_says_so():
    nothing = self_test(UNITS, LOSSES, salt="t", shares=[1.0])
    assert nothing == SelfTest("t", True, nothing.why, 2_000, 2_000, True)
    assert "nothing to deal" in nothing.why
    few = self_test(UNITS[:99], LOSSES[:99], salt="t", shares=[0.5])
    assert (few.passed, few.tries) == (True, ())
    assert "99 units seen lately are too few" in few.why
    same = self_test(UNITS, np.ones(len(UNITS)), salt="t", shares=[0.5])
    assert same.passed


def test_a_build_that_hashes_otherwise_does_not_pass(monkeypatch):
    monkeypatch.setattr(module, "KNOWN_ANSWERS", (("user-7", "", 1),))
    found = self_test(UNITS, LOSSES, salt="t", shares=[0.5])
    assert (found.passed, found.known_answers) == (False, False)


def test_it_says_the_same_every_time():
    once, again = (self_test(UNITS, LOSSES, salt="t", shares=[0.2], previous="s") for _ in range(2))
    assert once == again
