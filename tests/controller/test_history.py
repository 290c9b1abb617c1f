"""A past that is served stretch by stretch reads like a log."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import pytest

from leaven.controller.history import HistoryLog
from leaven.events import Happens, Label
from leaven.events.source import Marks, Span
from leaven.experiments.assignment import POSITIONS, position
from leaven.experiments.routing import RoutingTable, ShadowRoute, arms_for
from leaven.storage.history_file import History
from tests.controller.pasts import a_loop, a_past, day

RULE = Label("bought", above=0.5, within="6h")
ALL = Span(day(0), day(99))


class Says:
    """A model that answers with one number."""

    def __init__(self, answer):
        self.value = answer

    def answer(self, columns):
        return np.full(len(columns["x"]), self.value)


MODELS = {"1": Says(0.1), "2": Says(0.2), "3": Says(np.inf)}


def a_table(*, share=0.0, shadow=None, challenger="2"):
    arms = arms_for(("1", "a"), (challenger, "b") if share else None, share=share)
    shadows = () if shadow is None else (ShadowRoute(*shadow),)
    return RoutingTable("shop", 1, 0, a_loop().schema, "salt", arms, shadows)


def test_nothing_is_there_before_it_has_passed():
    log = HistoryLog(a_past(10))
    assert (log.marks(), len(log.examples(ALL, RULE, as_of=day(10)))) == (Marks(0, 0), 0)
    log.serve(day(3), None, MODELS.__getitem__)
    examples = log.examples(ALL, RULE, as_of=day(10))
    assert len(examples) == log.marks().predictions > 300
    assert examples.predictions.at.max() < np.datetime64("2026-01-04")
    assert set(examples.predictions.arm.tolist()) == {"imported"}


def test_each_unit_gets_the_arm_of_its_position_and_the_arms_version_answers():
    log = HistoryLog(a_past(10))
    log.serve(day(10), a_table(share=0.3), MODELS.__getitem__)
    served = log.examples(ALL, RULE, as_of=day(20)).predictions
    for unit, arm, version, answer, propensity in zip(
        served.unit, served.arm, served.version, served.answer, served.propensity, strict=True
    ):
        canary = position(unit, salt="salt") < 0.3 * POSITIONS
        assert (arm, version, answer) == (("canary", "2", 0.2) if canary else ("champion", "1", 0.1))
        assert propensity == pytest.approx(0.3 if canary else 0.7)
    assert 0.15 < np.mean(served.arm == "canary") < 0.45


def test_an_answer_that_is_no_number_is_a_failure_of_its_arm():
    log = HistoryLog(a_past(10))
    log.serve(day(10), a_table(share=0.3, challenger="3"), MODELS.__getitem__)
    served = log.examples(ALL, RULE, as_of=day(20)).predictions
    failed = np.isnan(served.answer)
    assert (served.arm[failed] == "canary").all()
    assert failed.sum() == (served.arm == "canary").sum()
    assert set(served.error[failed].tolist()) == {"the answer is no number"}
    assert set(served.error[~failed].tolist()) == {None}


def test_a_shadow_answers_only_while_it_is_routed_and_only_its_share():
    log = HistoryLog(a_past(10))
    log.serve(day(2), a_table(), MODELS.__getitem__)
    log.serve(day(4), a_table(shadow=("2", "b", POSITIONS // 2)), MODELS.__getitem__)
    log.serve(day(6), a_table(), MODELS.__getitem__)
    pairs = log.pairs(ALL, "2", RULE, as_of=day(20))
    at = pairs.live.predictions.at
    assert np.datetime64("2026-01-03") <= at.min() <= at.max() < np.datetime64("2026-01-05")
    assert all(position(unit, salt="salt") < POSITIONS // 2 for unit in pairs.live.predictions.unit)
    assert set(pairs.shadow_answer) == {0.2}
    assert set(pairs.live.predictions.answer) == {0.1}
    assert len(log.pairs(ALL, "9", RULE, as_of=day(20))) == 0
    assert len(log.pairs(Span(day(4), day(9)), "2", RULE, as_of=day(20))) == 0


def test_time_does_not_go_back():
    log = HistoryLog(a_past(10))
    log.serve(day(5), a_table(), MODELS.__getitem__)
    before = log.examples(ALL, RULE, as_of=day(20)).predictions.version.tolist()
    log.serve(day(3), a_table(share=0.9), MODELS.__getitem__)
    assert log.examples(ALL, RULE, as_of=day(20)).predictions.version.tolist() == before


def test_a_label_is_known_from_its_own_time_and_final_once_its_window_has_closed():
    past = a_past(10)
    log = HistoryLog(past)
    log.serve(day(10), None, MODELS.__getitem__)
    for as_of in (day(4), day(6.3)):
        examples = log.examples(ALL, RULE, as_of=as_of)
        told = np.datetime64(as_of.replace(tzinfo=None))
        known = ~np.isnat(past.label_at) & (past.label_at <= told)
        assert np.array_equal(np.isnan(examples.labels.value), ~known)
        assert np.array_equal(examples.labels.value[known], past.outcome[known])
        assert np.array_equal(examples.labels.mature, past.at + np.timedelta64(timedelta(hours=6)) <= told)


def test_a_thing_that_does_not_happen_in_time_did_not_happen():
    past = a_past(5)
    happened = np.where(past.outcome > 0, 1.0, np.nan)  # as `read_history` gives it for an event
    log = HistoryLog(History(past.at, past.label_at, happened, past.unit, past.features))
    log.serve(day(5), None, MODELS.__getitem__)
    labels = log.examples(ALL, Happens("bought", within="6h"), as_of=day(9)).labels
    assert np.array_equal(labels.value, (~np.isnan(happened) & ~np.isnat(past.label_at)).astype(float))


def test_what_is_read_under_marks_stays_the_same_as_time_goes_on():
    log = HistoryLog(a_past(10))
    log.serve(day(4), a_table(), MODELS.__getitem__)
    marks = log.marks()
    before = log.examples(ALL, RULE, as_of=day(4), marks=marks)
    log.serve(day(8), a_table(), MODELS.__getitem__)
    after = log.examples(ALL, RULE, as_of=day(4), marks=marks)
    assert before.predictions.id.tolist() == after.predictions.id.tolist()
    assert np.array_equal(before.labels.value, after.labels.value, equal_nan=True)
