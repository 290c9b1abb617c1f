"""What gates let pass, what they stop, and how often they err."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import log_loss

from leaven.errors import BadDefinition
from leaven.gates import Check, GateEvidence, GateReport, NotWorse, Sane, joint_outcome, judge_all
from leaven.gates.gate import Rows
from leaven.stats.moments import moments
from tests.curation.builders import some_examples


def rows(label, challenger, champion, **other):
    return Rows(some_examples(label, **other), np.asarray(challenger, float), champion)


def a_check(challenger, champion, label, *, past=None, **other):
    fresh = rows(label, challenger, champion, **other)
    return Check(fresh, past or rows(label, challenger, champion, **other))


def outcomes(size, *, seed=0):
    rng = np.random.default_rng(seed)
    chance = rng.random(size)
    return chance, (rng.random(size) < chance).astype(float), rng


def judged(gate, check):
    return gate.judge(gate.look(check))


def test_better_passes_worse_fails_and_little_evidence_is_undecided():
    truth, label, rng = outcomes(2_000)
    poor = np.clip(truth + rng.normal(0, 0.3, 2_000), 0.02, 0.98)
    gate = NotWorse("log_loss", margin=0.02)
    assert judged(gate, a_check(truth, poor, label)).outcome == "pass"
    assert judged(gate, a_check(poor, truth, label)).outcome == "fail"
    few = slice(0, 199)
    assert judged(gate, a_check(truth[few], poor[few], label[few])).outcome == "undecided"
    close = np.clip(truth + rng.normal(0, 0.05, 2_000), 0.02, 0.98)
    assert judged(NotWorse("log_loss", margin=0.0), a_check(close, truth, label)).outcome != "pass"


def test_the_report_says_the_losses_that_it_judged_by():
    truth, label, rng = outcomes(500)
    other = np.clip(truth + rng.normal(0, 0.1, 500), 0.02, 0.98)
    report = judged(NotWorse("log_loss"), a_check(other, truth, label))
    assert report.evidence.challenger.mean == pytest.approx(log_loss(label, other))
    assert report.evidence.champion.mean == pytest.approx(log_loss(label, np.clip(truth, 1e-7, 1 - 1e-7)))
    assert f"{log_loss(label, other):.4f}" in report.why
    assert report.interval.estimate == pytest.approx(report.evidence.challenger.mean - report.evidence.champion.mean)


def test_the_same_model_again_is_not_worse():
    truth, label, _ = outcomes(300)
    assert judged(NotWorse("log_loss", margin=0.0), a_check(truth, truth, label)).outcome == "pass"


def test_without_a_champion_there_is_nothing_to_be_worse_than():
    truth, label, _ = outcomes(10)
    assert judged(NotWorse("log_loss"), a_check(truth, None, label)).outcome == "pass"


def test_each_gate_looks_at_the_rows_it_names():
    truth, label, _rng = outcomes(1_000)
    fresh, past = rows(label, truth, truth), rows(label, 1 - truth, truth)
    assert judged(NotWorse("log_loss", on="fresh"), Check(fresh, past)).outcome == "pass"
    assert judged(NotWorse("log_loss", on="past"), Check(fresh, past)).outcome == "fail"


def test_a_unit_with_many_rows_counts_as_one():
    """One user asks 5,000 times and the challenger serves them badly: that is one observation, not proof."""
    truth, label, _ = outcomes(300)
    loud, size = np.full(5_000, 0.5), 5_300
    unit = [f"u{i}" for i in range(300)] + ["loud"] * 5_000
    label = np.concatenate([label, np.ones(5_000)])
    challenger, champion = np.concatenate([truth, loud - 0.4]), np.concatenate([truth, loud])
    report = judged(NotWorse("log_loss", margin=0.02), a_check(challenger, champion, label, unit=unit))
    assert report.evidence.rows == size
    assert report.evidence.difference.count == 301
    assert report.outcome == "undecided"


@pytest.mark.parametrize("answer", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("gate", [NotWorse("log_loss"), NotWorse("log_loss", on="past"), Sane()], ids=repr)
@pytest.mark.parametrize("has_champion", [True, False])
def test_a_single_answer_that_is_no_number_fails(answer, gate, has_champion):
    truth, label, _ = outcomes(400)
    challenger = truth.copy()
    challenger[7] = answer
    report = judged(gate, a_check(challenger, truth if has_champion else None, label))
    assert report.outcome == "fail"
    assert "no numbers" in report.why
    assert all(map(math.isfinite, (report.evidence.challenger.total, report.evidence.difference.total)))


def test_rows_at_which_the_champion_failed_are_left_out():
    truth, label, rng = outcomes(600)
    champion = np.clip(truth + rng.normal(0, 0.1, 600), 0.02, 0.98)
    whole = judged(NotWorse("log_loss"), a_check(truth[:400], champion[:400], label[:400]))
    broken = champion.copy()
    broken[400:] = np.nan
    part = judged(NotWorse("log_loss"), a_check(truth, broken, label))
    assert (part.evidence.rows, part.outcome) == (400, whole.outcome)
    assert part.interval.estimate == pytest.approx(whole.interval.estimate)


def test_a_model_that_says_the_same_to_everybody_learnt_nothing():
    truth, label, _ = outcomes(400)
    assert judged(Sane(), a_check(np.full(400, 0.3), truth, label)).outcome == "fail"
    assert judged(Sane(), a_check(truth, truth, label)).outcome == "pass"
    assert judged(Sane(), a_check(truth[:0], truth[:0], label[:0])).outcome == "undecided"
    assert judged(Sane(spread=0.5), a_check(truth, truth, label)).outcome == "fail"


reports = st.lists(st.sampled_from(["pass", "fail", "undecided"]), max_size=5)


@given(reports)
def test_one_failure_fails_and_missing_evidence_never_passes(given_outcomes):
    found = joint_outcome([GateReport("g", outcome, "", GateEvidence(0)) for outcome in given_outcomes])
    assert (found == "pass") == all(outcome == "pass" for outcome in given_outcomes)
    assert (found == "fail") == ("fail" in given_outcomes)


def test_every_gate_is_judged_and_reported_in_order():
    truth, label, _ = outcomes(400)
    gates = [Sane(), NotWorse("log_loss", min_rows=1_000), Sane(spread=9.0)]
    outcome, told = judge_all(gates, a_check(truth, truth, label))
    assert outcome == "fail"
    assert [report.outcome for report in told] == ["pass", "undecided", "fail"]
    assert [report.gate for report in told] == [repr(gate) for gate in gates]


@pytest.mark.parametrize("spread", [0.02, 0.1, 0.5], ids=lambda spread: f"differences spread by {spread}")
@pytest.mark.parametrize(
    ("excess", "passed", "failed"),
    [(0.10, (0.0, 0.025), (0.0, 0.025)), (0.30, (0.0, 0.001), (0.8, 1.0)), (-0.10, (0.8, 1.0), (0.0, 0.001))],
    ids=["just at the margin", "far beyond it", "better"],
)
def test_a_gate_errs_no_oftener_than_its_interval_says_and_sees_what_matters(spread, excess, passed, failed):
    """1,000 pairs of models on 900 units; the champion's loss is 0.5 on average, the margin 10 % of it; tolerance: 3
    standard errors. Small differences are the hard case: there the margin's own error is the larger one."""
    gate, rng, runs = NotWorse("log_loss", margin=0.1), np.random.default_rng(6), 1_000
    told = []
    for _ in range(runs):
        champion = rng.gamma(0.8, 0.5 / 0.8, 900)
        challenger = champion + excess * 0.5 + rng.normal(0, spread, 900)
        evidence = GateEvidence(900, moments(challenger), moments(champion), moments(challenger - champion))
        told.append(gate.judge(evidence).outcome)
    for outcome, (least, most) in (("pass", passed), ("fail", failed)):
        share = told.count(outcome) / runs
        assert least <= share <= most + 3 * math.sqrt(max(most * (1 - most), 0.001) / runs), outcome


@pytest.mark.parametrize("wrong", [
    lambda: NotWorse("roc_auc"), lambda: NotWorse("log_loss", on="stale"), lambda: NotWorse("log_loss", margin=-0.1),
    lambda: NotWorse("log_loss", margin=math.nan), lambda: Sane(spread=-1), lambda: Sane(spread=math.nan),
])  # fmt: skip
def test_what_is_no_gate_is_refused(wrong):
    with pytest.raises(BadDefinition):
        wrong()
