"""Answers of numbers and answers of classes, and the metrics of both."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics as independent

from leaven.stats.answers import alike, apart, decided, given, none, padded, telling
from leaven.stats.metrics import METRICS, shown_metrics


def some_classes(rows=500, classes=4, seed=0):
    rng = np.random.default_rng(seed)
    answer = rng.dirichlet(np.ones(classes), rows)
    label = np.array([rng.choice(classes, p=row) for row in answer], dtype=np.float64)
    return label, answer


def test_the_losses_of_several_classes_are_those_of_an_independent_package():
    label, answer = some_classes()
    measured = {name: METRICS[name].measure(label, answer).estimate for name in shown_metrics("multiclass")}
    truth = np.eye(4)[label.astype(int)]
    assert measured == pytest.approx(
        {
            "log_loss": independent.log_loss(label, answer, labels=[0, 1, 2, 3]),
            "brier": float(((answer - truth) ** 2).sum(axis=1).mean()),
            "error_rate": 1 - independent.accuracy_score(label, answer.argmax(axis=1)),
        }
    )


def test_two_classes_answer_what_a_probability_does_and_the_brier_score_is_twice_it():
    label, answer = some_classes(classes=2)
    yes = answer[:, 1]
    for name, factor in {"log_loss": 1, "brier": 2, "error_rate": 1}.items():
        loss = METRICS[name].row_loss
        np.testing.assert_allclose(loss(label, answer), factor * loss(label, yes), rtol=1e-9, err_msg=name)


def test_a_class_that_the_model_does_not_know_costs_what_a_probability_of_zero_does():
    label, answer = np.array([0.0, 2.0]), np.array([[0.9, 0.1], [0.5, 0.5]])
    log_loss, wrong = METRICS["log_loss"].row_loss, METRICS["error_rate"].row_loss
    np.testing.assert_allclose(log_loss(label, answer), [-np.log(0.9), -np.log(1e-7)])
    np.testing.assert_array_equal(wrong(label, answer), [0, 1])


def test_missing_answers_are_missing_whole():
    answer = np.array([[0.5, 0.5], [np.nan, np.nan]])
    assert given(answer).tolist() == [True, False]
    assert given(np.array([1.0, np.inf])).tolist() == [True, False]
    np.testing.assert_array_equal(padded(answer, 3), [[0.5, 0.5, 0.0], [np.nan] * 3])
    assert none(2, 3).shape == (2, 3)
    assert none(2, 0).shape == (2,)


def test_answers_of_fewer_classes_lie_beside_those_of_more():
    few, more = np.array([[0.2, 0.8]]), np.array([[0.2, 0.3, 0.5]])
    assert [each.shape for each in alike([few, more, np.empty(0)])] == [(1, 3), (1, 3), (0, 3)]
    np.testing.assert_allclose(apart(few, more), [0.5])  # half of 0 + .5 + .5
    np.testing.assert_allclose(apart(np.array([0.2]), np.array([0.5])), [0.3])


def test_the_distance_of_two_classes_is_that_of_the_probability():
    one, other = np.array([0.2, 0.9]), np.array([0.6, 0.7])
    both = [np.column_stack([1 - p, p]) for p in (one, other)]
    np.testing.assert_allclose(apart(*both), apart(one, other))


def test_the_decision_is_the_likeliest_class_or_the_side_of_the_threshold():
    assert decided(np.array([[0.4, 0.4, 0.2], [0.1, 0.2, 0.7]])).tolist() == [0, 2]
    assert decided(np.array([0.4, 0.5]), 0.5).tolist() == [0, 1]
    assert decided(np.empty((0, 3))).tolist() == []


def test_what_tells_most_is_the_class_that_varies_most():
    answer = np.array([[0.5, 0.5, 0.0], [0.5, 0.1, 0.4], [0.5, 0.0, 0.5]])
    np.testing.assert_array_equal(telling(answer), answer[:, 1])
