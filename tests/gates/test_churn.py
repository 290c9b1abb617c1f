"""How much a challenger says differently, what it forgot, and when that stops it."""

from __future__ import annotations

import math

import numpy as np
import pytest

from leaven.errors import BadDefinition
from leaven.gates import Check, Churn
from leaven.gates.forgetting import forgetting
from leaven.stats.intervals import mean_interval
from leaven.stats.metrics import METRICS
from leaven.stats.moments import moments, unit_means
from tests.controller.pasts import a_loop
from tests.gates.test_gates import a_check, judged, outcomes, rows


def test_few_changed_decisions_pass_and_many_fail():
    truth, label, _rng = outcomes(2_000)
    one_in_ten = np.where(np.arange(2_000) % 10 == 0, 1 - truth, truth)
    assert judged(Churn(0.2), a_check(one_in_ten, truth, label)).outcome == "pass"
    assert judged(Churn(0.05), a_check(one_in_ten, truth, label)).outcome == "fail"
    assert judged(Churn(0.1), a_check(one_in_ten, truth, label)).outcome == "undecided"
    assert judged(Churn(0.0), a_check(truth, truth, label)).outcome == "pass"
    assert judged(Churn(0.2), a_check(truth[:150], truth[:150], label[:150])).outcome == "undecided"
    assert judged(Churn(0.2), a_check(one_in_ten, None, label)).outcome == "pass"
    assert judged(Churn(0.01, of="answers"), a_check(truth + 0.02, truth, label)).outcome == "fail"
    assert judged(Churn(0.03, of="answers"), a_check(truth + 0.02, truth, label)).outcome == "pass"
    broken = truth.copy()
    broken[3] = math.nan
    assert judged(Churn(0.2), a_check(broken, truth, label)).outcome == "fail"


def test_a_unit_with_many_rows_changes_once():
    truth, label, _ = outcomes(5_300)
    unit = [f"u{i}" for i in range(300)] + ["loud"] * 5_000
    changed = np.where(np.arange(5_300) >= 300, 1 - truth, truth)
    report = judged(Churn(0.2), a_check(changed, truth, label, unit=unit))
    assert report.evidence.difference.count == 301
    assert report.outcome == "pass"


def test_a_gate_errs_no_oftener_than_its_interval_says():
    """1,000 challengers that change just as much as they may, and 1,000 that change twice that."""
    rng, runs, gate = np.random.default_rng(9), 1_000, Churn(0.1)
    from leaven.gates import GateEvidence

    def told(share):
        return [
            gate.judge(GateEvidence(600, champion=moments(np.ones(600)), difference=moments(changed))).outcome
            for changed in (rng.random((runs, 600)) < share).astype(float)
        ]

    edge, far = told(0.1), told(0.2)
    slack = 3 * math.sqrt(0.025 * 0.975 / runs) + 0.005  # the t interval of a share of 600
    assert max(edge.count("pass"), edge.count("fail")) / runs <= 0.025 + slack
    assert far.count("fail") / runs > 0.99


def test_what_was_learnt_and_forgotten_is_told_pair_by_pair():
    truth, label, rng = outcomes(900)
    unit = [f"u{i % 300}" for i in range(900)]
    poor = np.clip(truth + rng.normal(0, 0.2, 900), 0.02, 0.98)
    check = Check(rows(label, truth, poor, unit=unit), rows(label, poor, truth, unit=unit))
    found = forgetting(check, metric="log_loss", task="binary")
    losses = METRICS["log_loss"].row_loss
    ours, theirs = (unit_means(unit, losses(label, answer)) for answer in (poor, truth))
    assert found.backward_transfer == mean_interval(moments(ours - theirs), alpha=0.05)
    assert found.backward_transfer.low > 0 > found.fresh.difference.high
    assert (found.past.challenger, found.past.champion) == pytest.approx((ours.mean(), theirs.mean()))
    assert found.churn_decisions == pytest.approx(((truth >= 0.5) != (poor >= 0.5)).mean())
    assert found.churn_answers == pytest.approx(np.abs(truth - poor).mean())
    assert forgetting(a_check(truth, None, label), metric="log_loss", task="binary") is None


def test_rows_that_one_of_them_failed_on_are_left_out():
    truth, label, _ = outcomes(400)
    broken = truth.copy()
    broken[:100] = math.nan
    found = forgetting(a_check(truth, broken, label), metric="log_loss", task="binary")
    assert (found.fresh.rows, found.churn_answers) == (300, 0.0)
    none = forgetting(a_check(truth, np.full(400, math.nan), label), metric="log_loss", task="binary")
    assert (none.fresh, none.past, none.backward_transfer, none.churn_answers) == (None, None, None, None)


@pytest.mark.parametrize("wrong", [
    lambda: Churn(-0.1), lambda: Churn(math.nan), lambda: Churn(of="ranks"), lambda: Churn(threshold=1.0),
])  # fmt: skip
def test_what_is_no_gate_is_refused(wrong):
    with pytest.raises(BadDefinition):
        wrong()


def test_decisions_are_for_binary_labels_only():
    from leaven.events import Label

    with pytest.raises(BadDefinition, match="does not fit a regression label"):
        a_loop(label=Label("minutes", within="6h"), gates=[Churn(0.2)], rollout=[])
    assert a_loop(label=Label("minutes", within="6h"), gates=[Churn(3.0, of="answers")], rollout=[])
