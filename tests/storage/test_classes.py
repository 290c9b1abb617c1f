"""Answers of several classes, and labels that name one, in the lake."""

from __future__ import annotations

import numpy as np
import pytest

from leaven.errors import BadDefinition
from leaven.events import Label
from leaven.events.source import Span
from leaven.storage.hand_labels import read_labels
from leaven.storage.history_file import read_history

from .builders import NOON, a_label, a_lake, a_prediction, a_source, commit, examples, minutes
from .test_importing import a_file, a_loop, a_row, bring

KIND = Label("kind", classes=["cat", "dog", "fox"], within="2h")


def test_probabilities_are_read_as_they_were_logged_wherever_they_lie(tmp_path):
    lake = a_lake(tmp_path)
    commit(lake, a_prediction("numbers", at=minutes(0), answer=0.25))  # before the label had classes
    commit(
        lake, a_prediction("two", at=minutes(1), answer=(0.25, 0.75)), a_label("two", 1.0, name="kind", at=minutes(9))
    )
    commit(
        lake, a_prediction("three", at=minutes(2), answer=(0.5, 0.2, 0.3)),
        a_prediction("failed", at=minutes(3), answer=None, error="it broke"),
        a_label("two", 1.0, name="kind", at=minutes(9)), a_label("three", 2.0, name="kind", at=minutes(9)),
    )  # fmt: skip
    read = examples(lake, rule=KIND, as_of=minutes(10**4))
    nothing = [np.nan] * 3
    np.testing.assert_array_equal(read.predictions.answer, [nothing, [0.25, 0.75, 0], [0.5, 0.2, 0.3], nothing])
    np.testing.assert_array_equal(read.labels.value, [np.nan, 1, 2, np.nan])
    assert not read.predictions.exposed.any()  # the first is to be learnt from all the same
    assert read.predictions.error.tolist() == ["it answered for another kind of label", None, None, "it broke"]
    earlier = examples(lake, rule=KIND, as_of=minutes(10**4), end=minutes(1))
    np.testing.assert_array_equal(earlier.predictions.answer, [0.25])


def test_a_label_that_becomes_a_number_again_is_read_as_numbers(tmp_path):
    lake = a_lake(tmp_path)
    commit(lake, a_prediction("classes", at=minutes(0), answer=(0.25, 0.75)))
    commit(lake, a_prediction("number", at=minutes(1), answer=0.5))
    read = examples(lake, as_of=minutes(10**4))
    np.testing.assert_array_equal(read.predictions.answer, [np.nan, 0.5])
    assert read.predictions.error.tolist() == ["it answered for another kind of label", None]
    assert not read.predictions.exposed.any()


def test_shadows_of_several_classes_stand_beside_the_live_answers(tmp_path):
    lake = a_lake(tmp_path)
    commit(
        lake, a_prediction("a", answer=(0.25, 0.75)), a_prediction("b", at=minutes(1), answer=(0.5, 0.5)),
        a_prediction("a", role="shadow", arm="shadow", version="2", answer=(0.1, 0.2, 0.7)),
        a_prediction("b", at=minutes(1), role="shadow", arm="shadow", version="2", answer=None, error="late"),
    )  # fmt: skip
    pairs = a_source(lake).pairs(Span(NOON, minutes(60)), "2", KIND, as_of=minutes(10**4))
    np.testing.assert_array_equal(pairs.shadow_answer, [[0.1, 0.2, 0.7], [np.nan] * 3])
    assert pairs.shadow_error.tolist() == [None, "late"]


@pytest.mark.parametrize("column", ["string", "number"])
def test_a_file_of_the_past_names_classes(tmp_path, column):
    classes = ["cat", "dog", "fox"] if column == "string" else ["7", "8", "9"]
    loop = a_loop(label=Label("kind", classes=classes, within="36h"))
    rows = [a_row(0, kind=classes[2]), a_row(1, kind=classes[0]), a_row(2, kind=""), a_row(3, kind=classes[1])]
    lake, path = a_lake(tmp_path), a_file(tmp_path, rows)
    report = bring(lake, path, loop)
    assert (report.predictions, report.feedback, report.unlabelled) == (4, 3, 1)
    read = examples(lake, rule=loop.label, as_of=minutes(10**4))
    np.testing.assert_array_equal(read.labels.value, [2, 0, np.nan, 1])
    history = read_history(path, loop, time="at", label_time="landed")
    np.testing.assert_array_equal(history.outcome, [2, 0, np.nan, 1])


def test_a_class_that_the_loop_does_not_know_is_told(tmp_path):
    loop = a_loop(label=Label("kind", classes=["cat", "dog"], within="36h"))
    path = a_file(tmp_path, [a_row(0, kind="cat"), a_row(1, kind="hen"), a_row(2, kind="dog")])
    report = bring(a_lake(tmp_path), path, loop)
    assert report.predictions == 2
    assert report.rejected == {"the label is none of the classes": 1}
    with pytest.raises(BadDefinition, match="in 1 rows the label 'kind' is none of the classes cat, dog"):
        read_history(path, loop, time="at", label_time="landed")


def test_people_label_by_name(tmp_path):
    lake, loop = a_lake(tmp_path), a_loop(label=KIND)
    commit(lake, a_prediction("a", answer=(0.2, 0.3, 0.5)), a_prediction("b", at=minutes(1), answer=(0.2, 0.3, 0.5)))
    told = tmp_path / "told.csv"
    told.write_text("prediction,value\na,fox\nb,hen\n")
    found = read_labels(lake, loop, told, source="ana", now=int(minutes(90).timestamp() * 1e6))
    assert [(label.prediction, label.value) for label in found.labels] == [("a", 2.0)]
    assert [bad.kind for bad in found.rejected] == ["the value is none of the classes"]
