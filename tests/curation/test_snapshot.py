"""A snapshot is exact, and notices when it is not any more."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import numpy as np
import pytest

from leaven.curation import AllHistory, Recent, Sample
from leaven.curation.snapshot import (
    Snapshot,
    SnapshotChanged,
    define_snapshot,
    examples_digest,
    join_examples,
    read_holdout,
    read_snapshot,
)
from leaven.events import Label
from leaven.events.columns import column_time
from leaven.events.source import Marks, Span
from tests.curation.builders import Source, day, objects, some_examples

RULE = Label("y", within="1h")


def a_snapshot(data=None, *, until=20, marks=None, source=None, **other):
    parts = (data or AllHistory()).parts(until=day(until), first=day(0))
    given = {"holdout": None, "rule": RULE, "as_of": day(40), "marks": marks or Marks(10_000, 0), "seed": 0}
    return define_snapshot("shop", parts, **(given | other))


def thirty_days():
    return some_examples(np.arange(30 * 24) % 2)


def test_windows_that_overlap_give_each_example_once_oldest_first():
    source = Source(thirty_days())
    both = read_snapshot(a_snapshot(Recent("5d") + Sample("before 2d", rows=200)), source, RULE)
    ids = both.predictions.id.tolist()
    assert len(ids) == len(set(ids)) > 200
    assert (np.diff(both.predictions.at) > np.timedelta64(0, "us")).all()
    recent = set(read_snapshot(a_snapshot(Recent("5d")), source, RULE).predictions.id.tolist())
    assert recent <= set(ids)


def test_a_part_and_its_whole_read_as_the_whole():
    source = Source(thirty_days())
    whole = read_snapshot(a_snapshot(AllHistory()), source, RULE)
    assert examples_digest(read_snapshot(a_snapshot(Recent("5d") + AllHistory()), source, RULE)) == examples_digest(
        whole
    )


def test_only_mature_examples_with_a_label_are_learnt_from():
    label = np.array([1.0, np.nan, 0.0, 1.0])
    examples = some_examples(label, mature=np.array([True, True, False, True]), days=[1, 2, 3, 4])
    assert read_snapshot(a_snapshot(), Source(examples), RULE).predictions.id.tolist() == ["p00000", "p00003"]


def test_exposures_are_not_learnt_from_and_what_was_imported_is():
    label = np.array([1.0, 0.0, 1.0, 0.0])
    examples = some_examples(
        label, answer=[0.5, np.nan, np.nan, np.nan], exposed=[False, True, True, False],
        arm=["champion", "champion", "imported", "champion"], days=[1, 2, 3, 4],
    )  # fmt: skip
    kept = ["p00000", "p00002", "p00003"]  # rows on which the model failed are rows all the same
    assert read_snapshot(a_snapshot(), Source(examples), RULE).predictions.id.tolist() == kept
    assert (
        read_holdout(a_snapshot(until=1, holdout=Span(day(1), day(9))), Source(examples), RULE).predictions.id.tolist()
        == kept
    )


def test_the_holdout_is_kept_from_the_snapshot():
    snapshot = a_snapshot(until=20, holdout=Span(day(20), day(22)))
    held = read_holdout(snapshot, Source(thirty_days()), RULE)
    assert len(held) == 48
    assert held.predictions.at.min() == column_time(day(20))
    with pytest.raises(ValueError, match="no holdout"):
        read_holdout(a_snapshot(), Source(thirty_days()), RULE)


def test_rows_appended_after_the_marks_do_not_come_in():
    examples = thirty_days()
    before = read_snapshot(a_snapshot(marks=Marks(100, 0)), Source(examples), RULE)
    assert len(before) == 100


def test_a_snapshot_that_reads_otherwise_than_when_it_was_taken_is_refused():
    source = Source(thirty_days())
    taken = msgspec.structs.replace(a_snapshot(), digest=examples_digest(read_snapshot(a_snapshot(), source, RULE)))
    assert len(read_snapshot(taken, source, RULE)) == 20 * 24
    source.examples_given.labels.value[17] = 1 - source.examples_given.labels.value[17]
    with pytest.raises(SnapshotChanged, match=r"shop.*start a new refresh"):
        read_snapshot(taken, source, RULE)


def test_a_snapshot_survives_json():
    snapshot = a_snapshot(Recent("5d") + Sample("before 5d", rows=9, by="week"), holdout=Span(day(20), day(22)))
    assert msgspec.json.decode(msgspec.json.encode(snapshot), type=Snapshot) == snapshot


def changed(examples, column, row, to):
    served, labels = examples.predictions, examples.labels
    if column == "label":
        value = labels.value.copy()
        value[row] = to
        return replace(examples, labels=replace(labels, value=value))
    if column in served.features:
        edited = served.features[column].copy()
        edited[row] = to
        return replace(examples, predictions=replace(served, features={**served.features, column: edited}))
    edited = getattr(served, column).copy()
    edited[row] = to
    return replace(examples, predictions=replace(served, **{column: edited}))


def a_few():
    features = {"x": np.array([1.0, np.nan, 3.0]), "carrier": objects(["UA", None, "B6"])}
    return some_examples([0, 1, 1], features=features)


@pytest.mark.parametrize(
    ("column", "to"),
    [("id", "other"), ("at", np.datetime64("2026-02-01")), ("unit", "other"), ("x", 9.5), ("x", np.nan),
     ("carrier", "AA"), ("carrier", None), ("label", 0.25)],
)  # fmt: skip
@pytest.mark.parametrize("row", [0, 2])
def test_the_digest_changes_with_any_cell(column, to, row):
    examples = a_few()
    assert examples_digest(changed(examples, column, row, to)) != examples_digest(examples)


def test_the_digest_changes_with_the_order_and_with_a_row_more_or_less():
    examples = a_few()
    others = [
        examples.take(np.array([1, 0, 2])),
        examples.take(np.array([0, 1])),
        examples.take(np.array([], dtype=int)),
    ]
    assert len({examples_digest(one) for one in [examples, *others]}) == 4


def test_a_value_does_not_slip_from_one_column_into_the_next():
    one = some_examples([1], features={"a": objects(["xy"]), "b": objects(["z"])})
    two = some_examples([1], features={"a": objects(["x"]), "b": objects(["yz"])})
    three = some_examples([1], features={"b": objects(["xy"]), "a": objects(["z"])})
    assert len({examples_digest(each) for each in (one, two, three)}) == 3


def test_the_digest_is_of_the_values_and_not_of_how_they_happened_to_come():
    """A column read back after compaction, or beside later rows, may come in another type."""

    def digest(column):
        return examples_digest(some_examples([0, 1, 1], features={"x": column}))

    gap = np.array([1.0, np.nan, 3.0])
    assert digest(np.array([1, 2, 3])) == digest(np.array([1.0, 2.0, 3.0])) == digest(objects([1, 2.0, 3]))
    assert digest(gap) == digest(objects([1.0, None, 3.0])) == digest(objects([1, float("nan"), 3]))
    assert digest(gap) == digest(np.array([1.0, -np.nan, 3.0]))
    assert digest(np.array([True, False, True])) == digest(np.array([1.0, 0.0, 1.0])) == digest(objects([True, 0, 1]))


def test_a_column_that_later_rows_added_leaves_the_digest_as_it_was():
    examples = a_few()
    wider = {**examples.predictions.features, "new": objects([None] * 3), "newer": np.full(3, np.nan)}
    again = replace(examples, predictions=replace(examples.predictions, features=wider))
    assert examples_digest(again) == examples_digest(examples)


def test_the_digest_is_the_same_in_every_process_and_version():  # frozen: it is kept with every version ever trained
    assert examples_digest(a_few()) == DIGEST


def test_joined_examples_have_the_columns_of_all_and_nothing_where_one_had_none():
    one = some_examples([1], features={"a": np.array([1.0])}, ids=["p"])
    two = some_examples([0], features={"b": objects(["x"])}, ids=["q"])
    joined = join_examples([one, two]).predictions
    assert joined.id.tolist() == ["p", "q"]
    assert joined.features["a"].tolist() == [1.0, None]
    assert joined.features["b"].tolist() == [None, "x"]


DIGEST = "3040b0a8bf1f0d985cfbf889209dfb4a"
