"""Metrics against scikit-learn, and the interval of the AUC against a computation over all pairs."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm
from sklearn.metrics import brier_score_loss, log_loss, mean_absolute_error, mean_squared_error, roc_auc_score

from leaven.stats.metrics import METRICS, default_metric, roc_auc, shown_metrics


def answers(rows=500, *, seed=0, ties=False):
    rng = np.random.default_rng(seed)
    label = (rng.random(rows) < 0.3).astype(float)
    answer = 1 / (1 + np.exp(-(rng.normal(size=rows) + label)))
    return label, np.round(answer, 1) if ties else answer


ORACLES = {
    "log_loss": lambda label, answer: log_loss(label, answer),
    "brier": lambda label, answer: brier_score_loss(label, answer),
    "error_rate": lambda label, answer: np.mean((answer >= 0.5) != (label == 1)),
    "roc_auc": lambda label, answer: roc_auc_score(label, answer),
    "absolute_error": lambda label, answer: mean_absolute_error(label, answer),
    "squared_error": lambda label, answer: mean_squared_error(label, answer),
}


@pytest.mark.parametrize("name", METRICS)
@pytest.mark.parametrize("seed", range(3))
def test_every_metric_is_scikit_learns(name, seed):
    label, answer = answers(seed=seed)
    assert METRICS[name].measure(label, answer).estimate == pytest.approx(ORACLES[name](label, answer), rel=1e-12)


def test_ties_count_by_half():
    label, answer = answers(ties=True)
    assert roc_auc(label, answer).estimate == pytest.approx(roc_auc_score(label, answer), rel=1e-12)


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 6)), min_size=4, max_size=40))
def test_the_auc_and_its_variance_are_those_over_all_pairs(rows):
    """Oracle: DeLong's definition with a loop over all m n pairs, no ranks."""
    label = np.array([float(positive) for positive, _ in rows])
    answer = np.array([score / 7 for _, score in rows])
    ours = roc_auc(label, answer, alpha=0.1)
    positive, negative = answer[label == 1], answer[label == 0]
    if not len(positive) or not len(negative):
        assert math.isnan(ours.estimate)
        return
    wins = np.array([[(p > n) + 0.5 * (p == n) for n in negative] for p in positive])
    assert ours.estimate == pytest.approx(wins.mean(), abs=1e-12)
    if min(len(positive), len(negative)) < 2:
        assert (ours.low, ours.high) == (-math.inf, math.inf)
        return
    variance = wins.mean(axis=1).var(ddof=1) / len(positive) + wins.mean(axis=0).var(ddof=1) / len(negative)
    assert ours.high - ours.estimate == pytest.approx(norm.ppf(0.95) * math.sqrt(variance), abs=1e-9)
    assert ours.estimate - ours.low == pytest.approx(ours.high - ours.estimate, abs=1e-12)


def test_the_interval_of_the_auc_is_as_wide_as_resampling_says():  # oracle: bootstrap, 15 % tolerance
    label, answer = answers(400)
    rng = np.random.default_rng(1)
    again = [rng.integers(0, 400, 400) for _ in range(400)]
    spread = np.std([roc_auc_score(label[index], answer[index]) for index in again])
    ours = roc_auc(label, answer)
    assert (ours.high - ours.low) / (2 * 1.959964) == pytest.approx(spread, rel=0.15)


def test_the_interval_of_the_auc_covers_as_often_as_it_says():  # calibration: 1,000 samples, 3 standard errors
    rng, truth = np.random.default_rng(2), norm.cdf(1 / math.sqrt(2))
    covered = 0
    for _ in range(1_000):
        label = np.repeat([0.0, 1.0], [150, 80])
        interval = roc_auc(label, rng.normal(size=230) + label)
        covered += interval.low <= truth <= interval.high
    assert abs(covered / 1_000 - 0.95) <= 3 * math.sqrt(0.95 * 0.05 / 1_000) + 0.01  # the normal limit, 80 positives


def test_a_certain_answer_that_is_wrong_costs_much_but_not_all():
    losses = METRICS["log_loss"].row_loss(np.array([1.0, 0.0, 1.0]), np.array([0.0, 1.0, 1.0]))
    assert losses == pytest.approx([-math.log(1e-7)] * 2 + [-math.log(1 - 1e-7)])


@pytest.mark.parametrize("name", METRICS)
def test_nothing_measured_tells_nothing(name):
    interval = METRICS[name].measure(np.empty(0), np.empty(0))
    assert math.isnan(interval.estimate)
    assert (interval.low, interval.high, interval.n) == (-math.inf, math.inf, 0)


@pytest.mark.parametrize("task", ["binary", "regression"])
def test_each_task_has_its_metrics_and_a_row_loss_of_its_own(task):
    assert METRICS[default_metric(task)].row_loss is not None
    assert default_metric(task) in shown_metrics(task)
    assert all(task in METRICS[name].tasks for name in shown_metrics(task))
    assert set(shown_metrics("binary")) | set(shown_metrics("regression")) == set(METRICS)
