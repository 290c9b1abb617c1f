"""What the lake answers, against a plain Python reading of the same events, and that it never changes its mind."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leaven.duration import instant, micros
from leaven.events import Happens, Label
from leaven.events.columns import Matched
from leaven.events.source import Marks, Span

from .builders import (
    LATE,
    NOON,
    a_label,
    a_lake,
    a_prediction,
    a_source,
    commit,
    examples,
    minutes,
)  # fmt: skip

units = st.sampled_from(["a", "b", "c"])
moments = st.integers(0, 300).map(minutes)


@st.composite
def stories(draw):
    """Some predictions and exposures, and feedback by id, by unit, late, early, repeated and of other names."""
    served = [
        a_prediction(
            draw(st.sampled_from([f"p{i}", f"p{i}", "p0"])),
            at=draw(moments),
            unit=draw(units),
            role=draw(st.sampled_from(["live", "live", "exposure", "shadow"])),
        )
        for i in range(draw(st.integers(1, 12)))
    ]
    heard = [
        a_label(
            draw(st.none() | st.sampled_from([event.id for event in served]) | st.just("unknown")),
            draw(st.none() | st.integers(0, 30).map(float)),
            at=draw(moments), received=draw(moments), unit=draw(st.none() | units),
            id=f"f{draw(st.integers(0, 15))}", name=draw(st.sampled_from(["arr_delay", "arr_delay", "other"])),
            kind=draw(st.sampled_from(["label", "event", "correction"])),
        )
        for _ in range(draw(st.integers(0, 15)))
    ]  # fmt: skip
    return served, heard


def plain_reading(served, heard, span, rule, as_of):
    """The same question answered row by row: ids of the predictions, labels, maturity."""
    until = micros(as_of)

    def live_in(start, end):
        kept = {}
        for event in served:
            if event.role != "shadow" and micros(start) <= event.at < micros(end) and event.at <= until:
                kept.setdefault(event.id, event)
        return sorted(kept.values(), key=lambda event: (event.at, event.id))

    live, around = live_in(span.start, span.end), live_in(span.start, span.end + rule.window)
    told = {}
    for order, piece in enumerate(heard):
        if piece.name == rule.name and piece.received_at <= until and piece.at >= micros(span.start):
            key = (piece.received_at, order)
            if piece.id not in told or key < told[piece.id][0]:
                told[piece.id] = (key, piece)
    matched = []
    for _, piece in told.values():
        if piece.prediction is not None:
            about = [event for event in live if event.id == piece.prediction and event.at <= piece.at]
        elif piece.unit is not None:
            before = [event for event in around if event.unit == piece.unit and event.at <= piece.at]
            latest = {event.role: event for event in before}.values()  # a prediction and an exposure
            about = [
                event for event in latest if event in live and instant(piece.at) - instant(event.at) <= rule.window
            ]
        else:
            about = []
        matched += [(live.index(event), piece) for event in about]
    matched.sort(key=lambda pair: (pair[0], pair[1].at, pair[1].received_at, pair[1].id))

    def times(values):
        return np.array(values, dtype="datetime64[us]")

    feedback = Matched(
        np.array([row for row, _ in matched], dtype=np.int64),
        times([piece.at for _, piece in matched]), times([piece.received_at for _, piece in matched]),
        np.array([piece.name for _, piece in matched], dtype=object),
        np.array([piece.kind for _, piece in matched], dtype=object),
        np.array([np.nan if piece.value is None else piece.value for _, piece in matched], dtype=np.float64),
    )  # fmt: skip
    labels = rule.resolve(times([event.at for event in live]), feedback, as_of=as_of)
    return [event.id for event in live], labels


@settings(max_examples=25)
@given(
    story=stories(), start=st.integers(0, 100), length=st.integers(1, 250), as_of=st.integers(0, 500),
    rule=st.sampled_from([LATE, Label("arr_delay", within="30m", take="first"), Happens("arr_delay", within="1h")]),
)  # fmt: skip
def test_the_lake_answers_as_a_plain_reading_of_the_events_does(story, start, length, as_of, rule):
    served, heard = story
    span = Span(minutes(start), minutes(start + length))
    folder = Path(tempfile.mkdtemp())
    try:
        lake = a_lake(folder)
        commit(lake, *served, *heard)
        read = a_source(lake).examples(span, rule, as_of=minutes(as_of))
        expected_ids, expected = plain_reading(served, heard, span, rule, minutes(as_of))
        assert read.predictions.id.tolist() == expected_ids
        np.testing.assert_array_equal(read.labels.value, expected.value)
        np.testing.assert_array_equal(read.labels.mature, expected.mature)
        lake.close()
    finally:
        shutil.rmtree(folder)


def test_a_loop_without_tables_has_no_examples(tmp_path):
    lake = a_lake(tmp_path)
    source = a_source(lake)
    assert len(examples(lake)) == 0
    assert len(source.pairs(Span(NOON, minutes(9)), "2", LATE, as_of=minutes(9))) == 0
    assert source.marks() == Marks(0, 0)
    assert source.first() is None
    assert lake.loops() == []
    assert lake.stats("flights").predictions.rows == 0


def test_predictions_come_back_as_they_were_logged(tmp_path):
    lake = a_lake(tmp_path)
    failed = a_prediction("b", at=minutes(1), arm="canary", answer=None, error="it broke", features=None, unit="v")
    commit(lake, failed, a_prediction("a", at=minutes(1), propensity=0.25, seconds=0.5))
    read = examples(lake).predictions
    assert read.id.tolist() == ["a", "b"]
    assert read.at.tolist() == [minutes(1).replace(tzinfo=None)] * 2
    assert read.unit.tolist() == ["u", "v"]
    assert read.arm.tolist() == ["champion", "canary"]
    assert read.error.tolist() == [None, "it broke"]
    assert read.propensity.tolist() == [0.25, 1.0]
    np.testing.assert_array_equal(read.answer, [0.5, np.nan])
    assert read.features["carrier"].tolist() == ["UA", None]
    np.testing.assert_array_equal(read.features["dep_hour"], [7.0, np.nan])


def test_a_row_logged_twice_counts_once_and_the_first_wins(tmp_path):
    lake = a_lake(tmp_path)
    commit(lake, a_prediction("p", answer=0.1), a_label("p", 1.0, id="f", received=minutes(2), at=minutes(1)))
    commit(lake, a_prediction("p", answer=0.9), a_label("p", 99.0, id="f", received=minutes(3), at=minutes(1)))
    read = examples(lake, rule=Label("arr_delay", within="2h"))
    assert read.predictions.answer.tolist() == [0.1]
    assert read.labels.value.tolist() == [1.0]


def test_feedback_on_a_unit_speaks_of_its_latest_prediction_before(tmp_path):
    lake = a_lake(tmp_path)
    served = [a_prediction(f"p{minute}", at=minutes(minute)) for minute in (0, 10, 20)]
    commit(
        lake, *served, a_prediction("other", at=minutes(12), unit="v"),
        a_label(None, 1.0, unit="u", at=minutes(15)), a_label(None, 2.0, unit="u", at=minutes(10)),
        a_label(None, 3.0, unit="u", at=minutes(300)), a_label(None, 4.0, unit="nobody", at=minutes(15)),
    )  # fmt: skip
    rule = Label("arr_delay", within="1h")
    read = examples(lake, rule=rule)
    assert dict(zip(read.predictions.id, read.labels.value.tolist(), strict=True))["p10"] == 1.0
    assert np.isnan(read.labels.value).sum() == 3
    # A span that ends between a prediction and the next does not take the next one's feedback.
    early = examples(lake, rule=rule, end=minutes(5))
    assert np.isnan(early.labels.value).all()


def test_an_exposure_is_read_once_has_no_answer_and_takes_no_label_from_a_prediction(tmp_path):
    lake = a_lake(tmp_path)
    met = {"role": "exposure", "arm": "canary", "answer": None, "features": None}
    commit(lake, a_prediction("p", at=minutes(0)), a_prediction("e", at=minutes(5), **met))
    commit(lake, a_prediction("e", at=minutes(30), **met))  # a worker that was restarted writes it down again
    commit(
        lake, a_prediction("q", at=minutes(40), unit="v"),
        a_label(None, 1.0, unit="u", at=minutes(35)), a_label("e", 2.0, at=minutes(34)),
        a_label("q", 3.0, at=minutes(50)),
    )  # fmt: skip
    read = examples(lake, rule=Label("arr_delay", within="1h"))
    assert read.predictions.id.tolist() == ["p", "e", "q"]
    assert read.predictions.at.tolist()[1] == minutes(5).replace(tzinfo=None)
    assert read.predictions.exposed.tolist() == [False, True, False]
    assert read.labels.value.tolist() == [1.0, 1.0, 3.0]  # what is said of the unit counts for both
    assert read.predicted().predictions.id.tolist() == ["p", "q"]


def test_nothing_from_after_the_moment_asked_about_is_seen(tmp_path):
    lake = a_lake(tmp_path)
    commit(
        lake,
        a_prediction("p1"),
        a_prediction("p2", at=minutes(30)),
        a_label("p1", 20.0, at=minutes(1), received=minutes(60)),
    )
    before, after = examples(lake, as_of=minutes(20)), examples(lake, as_of=minutes(60))
    assert before.predictions.id.tolist() == ["p1"]
    assert np.isnan(before.labels.value).all()
    assert after.labels.value.tolist()[0] == 1.0
    assert not after.labels.mature.any()
    assert examples(lake, as_of=minutes(120)).labels.mature.tolist() == [True, False]


def test_pairs_hold_the_shadows_answers_beside_the_live_ones(tmp_path):
    lake = a_lake(tmp_path)
    commit(
        lake, a_prediction("p1"), a_prediction("p2", at=minutes(1)), a_prediction("p3", at=minutes(2)),
        a_prediction("p1", role="shadow", version="2", answer=0.7, seconds=0.25, features=None),
        a_prediction("p2", role="shadow", version="2", answer=None, error="it broke", at=minutes(3)),
        a_prediction("p3", role="shadow", version="3", answer=0.9), a_label("p1", 20.0),
    )  # fmt: skip
    pairs = a_source(lake).pairs(Span(NOON, minutes(600)), "2", LATE, as_of=minutes(600))
    assert pairs.live.predictions.id.tolist() == ["p1", "p2"]
    np.testing.assert_array_equal(pairs.shadow_answer, [0.7, np.nan])
    assert pairs.shadow_error.tolist() == [None, "it broke"]
    assert pairs.shadow_seconds.tolist() == [0.25, 0.001]
    assert pairs.live.labels.value.tolist()[0] == 1.0
    assert len(examples(lake)) == 3  # shadows are no examples


def test_the_first_prediction_is_the_oldest_live_one(tmp_path):
    lake = a_lake(tmp_path)
    commit(lake, a_prediction("s", role="shadow", at=minutes(-3000)), a_prediction("p2", at=minutes(5)))
    commit(lake, a_prediction("p1", at=minutes(-60)))
    assert a_source(lake).first() == minutes(-60)


@pytest.mark.parametrize(
    ("first", "later", "read"),
    [
        (1, 0.5, [1.0, 0.5]),
        (0.5, 1, [0.5, 1.0]),
        (1, "a", ["1", "a"]),
        ("a", 1, ["a", "1"]),
        (True, 0.5, [1.0, 0.5]),
        (1, True, [1.0, 1.0]),
        (2**60, 0.5, [2.0**60, 0.5]),
        (2**63, 1, [2.0**63, 1.0]),
        (None, "a", [None, "a"]),
    ],
)
def test_a_feature_may_change_its_type_and_old_rows_stay_readable(tmp_path, first, later, read):
    lake = a_lake(tmp_path)
    for order in ((first, later), (later, first)):
        loop = f"l{order.index(first)}"
        for i, value in enumerate(order):
            commit(lake, a_prediction(f"p{i}", loop=loop, at=minutes(i), features={"x": value}))
        source = a_source(lake, loop)
        found = source.examples(Span(NOON, minutes(9)), LATE, as_of=minutes(9)).predictions.features["x"].tolist()
        assert found == (read if order == (first, later) else read[::-1])


feature_names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)


@settings(max_examples=12)
@given(names=st.lists(feature_names, min_size=1, max_size=8, unique=True))
def test_features_of_any_name_keep_apart(names):
    names += [name.upper() for name in names] + [name.lower() for name in names] + ["a.b", "a$long", "a~b", "%41"]
    given_features = {name: float(i) for i, name in enumerate(dict.fromkeys(names))}
    with tempfile.TemporaryDirectory() as folder:
        lake = a_lake(Path(folder))
        commit(lake, a_prediction(features=given_features))
        read = examples(lake).predictions.features
        assert {name: column.tolist()[0] for name, column in read.items()} == given_features
        lake.close()


def test_a_table_with_reader_features_is_refused(tmp_path):
    from leaven.storage.delta import TableNotReadable

    lake = a_lake(tmp_path)
    commit(lake, a_prediction())
    log = tmp_path / "lake" / "flights" / "predictions" / "_delta_log"
    (log / f"{2:020d}.json").write_text(
        '{"protocol":{"minReaderVersion":3,"minWriterVersion":7,"readerFeatures":["deletionVectors"],'
        '"writerFeatures":["deletionVectors"]}}\n'
    )
    with pytest.raises(TableNotReadable, match="deletionVectors"):
        examples(a_lake(tmp_path))


def test_a_large_question_stays_within_its_memory(tmp_path):
    from leaven.storage.lake import Lake

    lake = Lake(str(tmp_path / "lake"), memory="60MB")
    features = {f"x{i}": "some text that takes room " * 4 for i in range(8)}
    for part in range(5):
        commit(lake, *(a_prediction(f"p{part}-{i}", at=minutes(i / 1000), features=features | {"y": f"{part}-{i}"})
                       for i in range(8000)))  # fmt: skip
    read = examples(lake)
    assert len(set(read.predictions.features["y"].tolist())) == 40_000
    lake.close()
    assert not list((tmp_path / "lake" / ".spill").glob("*/*"))
