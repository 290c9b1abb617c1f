"""Labels that are in part a teacher's answers: what is mixed, who may ask for it, and what it says."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from leaven.errors import BadDefinition
from leaven.events import Label
from leaven.learners import ScikitLearn, XGBoost
from leaven.training import Distill
from leaven.training.distilling import mixed_labels
from leaven.training.plans import check_plan
from leaven.values import from_written
from tests.controller.pasts import a_loop
from tests.training.test_plans import a_history


def test_the_label_is_a_weighted_mean_and_the_outcome_where_the_teacher_is_silent():
    label, answer = np.array([1.0, 0.0, 1.0]), np.array([0.6, 0.2, np.nan])
    np.testing.assert_allclose(mixed_labels(label, answer, weight=0.25), [0.9, 0.05, 1.0])
    np.testing.assert_allclose(mixed_labels(label, answer, weight=1.0), [0.6, 0.2, 1.0])


def test_it_fits_from_scratch_and_says_whose_answers_it_learns():
    first = Distill().choose(a_history(has_parent=False))
    assert (first.mode, first.distil, first.why) == (
        "fit", 0.0, "fitted from scratch; there is no champion to learn from yet",
    )  # fmt: skip
    later = Distill(weight=0.75).choose(a_history(teacher=4))
    assert (later.mode, later.distil) == ("fit", 0.75)
    assert later.why == "fitted from scratch, to labels of which 75% are what version 4 (champion) answers"
    assert "are what version 7 answers" in Distill("7").choose(a_history(teacher=7)).why


def test_a_label_of_two_classes_needs_a_learner_that_takes_shares():
    plain = ScikitLearn(LogisticRegression())
    with pytest.raises(BadDefinition, match=r"labels rows by answers between 0 and 1, and ScikitLearn takes 0 or 1"):
        a_loop(plan=Distill(), learner=plain)
    assert a_loop(plan=Distill(), learner=XGBoost(5))
    check_plan(Distill(), plain, task="regression", where="here")
    assert a_loop(plan=Distill(), learner=plain, label=Label("bought", within="6h"), gates=[], rollout=[])


def test_several_classes_are_refused_for_now():
    with pytest.raises(BadDefinition, match=r"a multiclass label has several\. Use plan=Stateless"):
        check_plan(Distill(), XGBoost(5), task="multiclass", where="here")


@pytest.mark.parametrize("given", [{"weight": 0}, {"weight": 1.5}, {"weight": True}, {"teacher": ""}, {"teacher": 7}])
def test_settings_out_of_range_are_refused(given):
    with pytest.raises(BadDefinition, match="Distill"):
        Distill(**given)


def test_it_prints_the_expression_that_makes_it():
    for plan in (Distill(), Distill("7", weight=0.25)):
        assert from_written(repr(plan), {"Distill": Distill}) == plan
