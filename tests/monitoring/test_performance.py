"""The champion's metric, on what is final, of what this champion itself answered."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from leaven.duration import micros
from leaven.monitoring.performance import matured_span, performance
from leaven.stats.intervals import Interval
from tests.curation.builders import day, some_examples

REFERENCE = Interval(0.8, 0.75, 0.85, 0.95, 100)


def test_the_stretch_ends_where_labels_are_no_longer_open():
    span = matured_span(day(10), over=timedelta(days=3), window=timedelta(hours=36))
    assert (span.start, span.end) == (day(5.5), day(8.5))


def some(rows=400):
    rng = np.random.default_rng(0)
    label = rng.integers(0, 2, rows).astype(float)
    return label, np.clip(label * 0.3 + rng.random(rows) * 0.7, 0, 1)


def measured(examples, version="1"):
    return performance(examples, "roc_auc", version=version, now=day(9), reference=REFERENCE)


def test_the_signal_holds_the_metric_its_moment_and_what_it_was():
    label, answer = some()
    signal = measured(some_examples(label, answer=answer))
    assert signal.interval.estimate == pytest.approx(roc_auc_score(label, answer))
    assert (signal.name, signal.at, signal.reference) == ("performance:roc_auc", micros(day(9)), REFERENCE)


@pytest.mark.parametrize("spoilt", [
    {"arm": "canary"}, {"arm": "pinned"}, {"arm": "imported"}, {"version": "2"}, {"answer": np.nan},
    {"mature": False}, {"label": np.nan},
], ids=str)  # fmt: skip
def test_only_what_this_champion_answered_to_final_outcomes_counts(spoilt):
    label, answer = some()
    rows = {"label": label.copy(), "answer": answer.copy(), "arm": ["champion"] * 400, "version": ["1"] * 400,
            "mature": np.ones(400, dtype=bool)}  # fmt: skip
    for name, value in spoilt.items():
        for row in range(200, 400):
            rows[name][row] = value
            if name != "label":
                rows["label"][row] = 1 - rows["label"][row]
    signal = measured(some_examples(**rows))
    assert signal.interval.n == 200
    assert signal.interval.estimate == pytest.approx(roc_auc_score(label[:200], answer[:200]))


def test_a_champion_that_has_answered_nothing_yet_is_not_measured_by_the_one_before_it():
    label, answer = some()
    assert measured(some_examples(label, answer=answer), version="2").interval.n == 0
