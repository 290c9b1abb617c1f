"""Qualities of models against scikit-learn and statsmodels' clustered errors; the AUC of units against all pairs."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm
from sklearn.metrics import accuracy_score, f1_score, log_loss, precision_score, recall_score, roc_auc_score

from leaven.errors import BadDefinition
from leaven.stats.clustered_auc import AucCohorts, auc_cohort
from leaven.stats.comoments import Comoments
from leaven.stats.estimate import ratio_estimate
from leaven.stats.metrics import roc_auc
from leaven.stats.quality import QUALITIES, quality_sums

SKLEARN = {"accuracy": accuracy_score, "precision": precision_score, "recall": recall_score, "f1": f1_score}


def answers(units=300, *, seed=0, rows=4.0):
    """Units with rows that are alike: each has its own rate of positives and its own level of scores."""
    rng = np.random.default_rng(seed)
    unit = np.repeat(np.arange(units), 1 + rng.poisson(rows, units))
    label = (rng.random(len(unit)) < rng.beta(1, 2, units)[unit]).astype(float)
    score = label + rng.normal(size=units)[unit] + rng.normal(size=len(unit))
    return unit, label, 1 / (1 + np.exp(-score))


def estimate(name, unit, label, answer, threshold=0.5):
    return ratio_estimate(quality_sums(name, unit, label, answer, threshold=threshold))


@pytest.mark.parametrize("name", SKLEARN)
@pytest.mark.parametrize("threshold", [0.5, 0.7])
def test_every_quality_is_scikit_learns(name, threshold):
    unit, label, answer = answers()
    theirs = SKLEARN[name](label, answer >= threshold)
    assert estimate(name, unit, label, answer, threshold).value == pytest.approx(theirs, rel=1e-12)


def test_losses_are_means_over_rows():
    unit, label, answer = answers()
    assert estimate("log_loss", unit, label, answer).value == pytest.approx(log_loss(label, answer), rel=1e-12)
    assert not QUALITIES["log_loss"].higher_is_better


@pytest.mark.parametrize("name", ["accuracy", "precision", "recall"])
def test_variances_are_statsmodels_clustered_by_unit(name):
    """Oracle: least squares on a constant over the rows that count, errors clustered; its correction is taken off."""
    api = pytest.importorskip("statsmodels.api")
    unit, label, answer = answers(seed=1)
    positive, true = answer >= 0.5, label == 1
    right, counts = {
        "accuracy": (positive == true, np.full(len(unit), True)),
        "precision": (true, positive),
        "recall": (positive, true),
    }[name]
    fitted = api.OLS(right[counts].astype(float), np.ones(int(counts.sum()))).fit(
        cov_type="cluster", cov_kwds={"groups": unit[counts], "use_correction": False}
    )
    ours, units = estimate(name, unit, label, answer), len(np.unique(unit))
    assert ours.variance == pytest.approx(float(fitted.bse[0]) ** 2 * units / (units - 1), rel=1e-9)
    assert ours.n == units


def leave_one_out(statistic, unit, label, answer):
    """Oracle: the jackknife over units."""
    units = np.unique(unit)
    left = np.array([statistic(*(part[unit != one] for part in (unit, label, answer))) for one in units])
    return (len(units) - 1) / len(units) * ((left - left.mean()) ** 2).sum()


def test_the_variances_of_f1_and_auc_are_those_of_leaving_units_out():
    data = answers(120, seed=2)
    f1 = leave_one_out(lambda u, label, answer: f1_score(label, answer >= 0.5), *data)
    assert estimate("f1", *data).variance == pytest.approx(f1, rel=0.05)
    auc = leave_one_out(lambda u, label, answer: roc_auc_score(label, answer), *data)
    assert auc_cohort(*data).estimate().variance == pytest.approx(auc, rel=0.05)


def obuchowski(unit, label, answer):
    """Oracle: the variance as it is printed, with loops over units and pairs."""
    positive, negative = np.flatnonzero(label == 1), np.flatnonzero(label == 0)
    wins = np.array([[(answer[p] > answer[n]) + 0.5 * (answer[p] == answer[n]) for n in negative] for p in positive])
    auc, m, n = wins.mean(), len(positive), len(negative)
    rows = []
    for one in np.unique(unit):
        own, other = unit[positive] == one, unit[negative] == one
        rows.append((own.sum(), other.sum(), (wins.mean(axis=1)[own] - auc).sum(),
                     (wins.mean(axis=0)[other] - auc).sum()))  # fmt: skip
    ms, ns, x, y = np.array(rows).T
    i10, i01, i = (ms > 0).sum(), (ns > 0).sum(), len(rows)
    s10, s01 = i10 / ((i10 - 1) * m) * (x**2).sum(), i01 / ((i01 - 1) * n) * (y**2).sum()
    return auc, s10 / m + s01 / n + 2 * i / (i - 1) * (x * y).sum() / (m * n)


@given(st.lists(st.tuples(st.integers(0, 9), st.booleans(), st.integers(0, 5)), min_size=8, max_size=40))
def test_the_auc_of_a_cohort_and_its_variance_are_those_over_all_pairs(rows):
    unit = np.array([u for u, _, _ in rows])
    label, answer = (np.array([float(row[k]) for row in rows]) for k in (1, 2))
    ours = auc_cohort(unit, label, answer)
    if min(len(np.unique(unit[label == k])) for k in (0, 1)) < 2:
        assert ours == AucCohorts(left_out=len(np.unique(unit)))
        return
    value, variance = obuchowski(unit, label, answer)
    assert ours.estimate().value == pytest.approx(value, abs=1e-12)
    assert ours.estimate().variance == pytest.approx(max(0, variance), abs=1e-12)


def test_with_one_row_per_unit_it_is_delongs():
    _, label, answer = answers(seed=3)
    ours, theirs = auc_cohort(np.arange(len(label)), label, answer).estimate(), roc_auc(label, answer)
    assert ours.value == pytest.approx(theirs.estimate, rel=1e-12)
    assert 1.959964 * math.sqrt(ours.variance) == pytest.approx(theirs.high - theirs.estimate, rel=1e-6)


def test_sums_of_days_are_those_of_both_days_together():
    one, two = answers(100, seed=4), answers(150, seed=5)
    both = [np.concatenate(pair) for pair in zip((one[0] + 1_000, *one[1:]), two, strict=True)]
    for name in QUALITIES:
        added = quality_sums(name, *one) + quality_sums(name, *two)
        joined = quality_sums(name, *both)
        assert added.centres == pytest.approx(joined.centres)
        assert added.products == pytest.approx(joined.products)


def test_cohorts_weigh_by_their_units():
    one, two = (auc_cohort(*answers(units, seed=6)) for units in (100, 300))
    both, (a, b) = (one + two).estimate(), (one.estimate(), two.estimate())
    assert both.value == pytest.approx(0.25 * a.value + 0.75 * b.value)
    assert both.variance == pytest.approx(0.25**2 * a.variance + 0.75**2 * b.variance)
    assert both.n == 400
    assert one + AucCohorts() == one
    assert math.isnan(AucCohorts(left_out=3).estimate().value)


def test_a_quality_that_does_not_add_up_is_refused():
    with pytest.raises(BadDefinition, match="roc_auc"):
        quality_sums("roc_auc", ["a"], np.ones(1), np.ones(1))
    assert quality_sums("f1", [], np.empty(0), np.empty(0)) == Comoments()


def test_intervals_of_qualities_cover_as_often_as_they_say_where_rows_of_a_unit_are_alike():
    """Calibration: 500 trials of 3 days with 100 units each; 3 standard errors. Rows as if independent fall short.

    The true AUC is that of rows of two units: their scores differ by N(1, 4).
    """
    trials, truth = 500, {"auc": norm.cdf(1 / 2), **population()}
    covered, naive = dict.fromkeys(truth, 0), 0
    for trial in range(trials):
        days = [answers(100, seed=(trial, day)) for day in range(3)]
        found = {name: ratio_estimate(sum((quality_sums(name, *day) for day in days), Comoments()))
                 for name in SKLEARN}  # fmt: skip
        found["auc"] = sum((auc_cohort(*day) for day in days), AucCohorts()).estimate()
        for name, ours in found.items():
            covered[name] += abs(ours.value - truth[name]) <= 1.959964 * math.sqrt(ours.variance)
        rows = roc_auc(*(np.concatenate([day[k] for day in days]) for k in (1, 2)))
        naive += rows.low <= truth["auc"] <= rows.high
    for name, times in covered.items():
        assert abs(times / trials - 0.95) <= 3 * math.sqrt(0.95 * 0.05 / trials), (name, times)
    assert naive / trials < 0.9


def population():
    """The other true values, from the same distribution: P(answer >= 0.5) is that of a score above 0."""
    recall, false_alarm, rate = norm.cdf(1 / math.sqrt(2)), 0.5, 1 / 3
    precision = rate * recall / (rate * recall + (1 - rate) * false_alarm)
    return {
        "recall": recall,
        "precision": precision,
        "accuracy": rate * recall + (1 - rate) * (1 - false_alarm),
        "f1": 2 * precision * recall / (precision + recall),
    }
