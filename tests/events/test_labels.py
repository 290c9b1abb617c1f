"""Label rules against a plain reading of their docstrings, row by row."""

from collections import Counter
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from leaven.events import Happens, Label
from leaven.events.columns import Matched

ZERO = datetime(2024, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)

# One piece of feedback: row, minutes after the prediction, minutes from there to its arrival, name, kind, value.
pieces = st.tuples(
    st.integers(0, 3),
    st.integers(-30, 150),
    st.integers(0, 200),
    st.sampled_from(["y", "y", "y", "other"]),
    st.sampled_from(["label", "label", "event", "correction"]),
    st.sampled_from([0.0, 1.0, 1.0, 2.0, 5.0, None]),
)
# Two pieces of one moment have no first and last, so a log of unequal moments is asked for.
logs = st.lists(pieces, max_size=14, unique_by=lambda piece: (piece[0], piece[1]))
now = st.integers(0, 500)


def at(minutes):
    return np.datetime64((ZERO + timedelta(minutes=minutes)).replace(tzinfo=None), "us")


PREDICTED = np.array([at(60 * row) for row in range(4)])


def matched(log):
    times = [(60 * row + age, 60 * row + age + travel) for row, age, travel, *_ in log]
    return Matched(
        row=np.array([piece[0] for piece in log], dtype=np.int64),
        at=np.array([at(happened) for happened, _ in times], dtype="datetime64[us]"),
        received_at=np.array([at(arrived) for _, arrived in times], dtype="datetime64[us]"),
        name=np.array([piece[3] for piece in log], dtype=object),
        kind=np.array([piece[4] for piece in log], dtype=object),
        value=np.array([np.nan if piece[5] is None else piece[5] for piece in log], dtype=np.float64),
    )


def arrived(log, row, as_of):
    """Feedback on `y` of this row that had arrived, oldest first: (minutes after the prediction, kind, value)."""
    mine = [piece for piece in log if piece[0] == row and piece[3] == "y" and 60 * row + piece[1] + piece[2] <= as_of]
    return sorted((age, kind, value) for _, age, _, _, kind, value in mine)


def plain_label(rule, log, row, as_of):
    heard = [(age, kind, value) for age, kind, value in arrived(log, row, as_of) if value is not None]
    corrections = [value for age, kind, value in heard if kind == "correction" and age >= 0]
    reports = [value for age, _, value in heard if 0 <= age <= 60]
    # A correction that fell into the window is a report like others, and wins anyway.
    if corrections:
        found = corrections[-1]
    elif not reports:
        return None
    elif rule.take == "majority":
        most = max(Counter(reports).values())
        found = next(value for value in reversed(reports) if Counter(reports)[value] == most)
    else:
        found = reports[0] if rule.take == "first" else reports[-1]
    if rule.above is not None:
        return float(found > rule.above)
    return float(found < rule.below) if rule.below is not None else found


def plain_happening(log, row, as_of):
    heard = arrived(log, row, as_of)
    corrections = [value for age, kind, value in heard if kind == "correction" and value is not None and age >= 0]
    if corrections:
        return float(corrections[-1] > 0)
    if any(0 <= age <= 60 for age, kind, _ in heard if kind != "correction"):
        return 1.0
    return 0.0 if 60 * row + 60 <= as_of else None


def resolved(rule, log, as_of):
    labels = rule.resolve(PREDICTED, matched(log), as_of=ZERO + timedelta(minutes=as_of))
    return [None if np.isnan(value) else value for value in labels.value.tolist()]


@given(logs, now, st.sampled_from(["last", "first", "majority"]), st.sampled_from([{}, {"above": 1}, {"below": 2}]))
def test_a_label_is_what_its_rule_says_row_by_row(log, as_of, take, bound):
    rule = Label("y", within="1h", take=take, **bound)
    assert resolved(rule, log, as_of) == [plain_label(rule, log, row, as_of) for row in range(4)]


@given(logs, now)
def test_a_happening_is_what_its_rule_says_row_by_row(log, as_of):
    assert resolved(Happens("y", within="1h"), log, as_of) == [plain_happening(log, row, as_of) for row in range(4)]


@given(logs, now, st.sampled_from([Label("y", within="1h"), Happens("y", within="1h")]))
def test_a_label_is_mature_once_its_window_has_closed_whatever_came(log, as_of, rule):
    labels = rule.resolve(PREDICTED, matched(log), as_of=ZERO + timedelta(minutes=as_of))
    assert labels.mature.tolist() == [60 * row + 60 <= as_of for row in range(4)]
    assert labels.closes_at.tolist() == (PREDICTED + np.timedelta64(HOUR)).tolist()


@given(
    logs,
    now,
    now,
    st.sampled_from([Label("y", within="1h"), Label("y", within="1h", take="majority"), Happens("y", within="1h")]),
)
def test_what_was_known_at_a_moment_does_not_change_with_what_arrives_later(log, as_of, later, rule):
    known = [piece for piece in log if 60 * piece[0] + piece[1] + piece[2] <= as_of]
    late = [piece for piece in log if piece not in known and 60 * piece[0] + piece[1] + piece[2] <= as_of + later]
    assert resolved(rule, known, as_of) == resolved(rule, known + late, as_of)


@given(logs, now, st.permutations(range(14)), st.sampled_from(["last", "first", "majority"]))
def test_the_order_in_the_log_does_not_matter(log, as_of, order, take):
    rule = Label("y", within="1h", take=take)
    shuffled = [log[i] for i in order if i < len(log)]
    assert resolved(rule, shuffled, as_of) == resolved(rule, log, as_of)


@pytest.mark.parametrize("rule", [Label("y", within="1h"), Happens("y", within="1h")])
def test_both_ends_of_the_window_are_in_it(rule):
    ends = [
        (0, 0, 0, "y", "label", 1.0),
        (1, 60, 0, "y", "label", 1.0),
        (2, 61, 0, "y", "label", 1.0),
        (3, -1, 0, "y", "label", 1.0),
    ]
    assert resolved(rule, ends, 500)[:2] == [1.0, 1.0]
    assert resolved(rule, ends, 500)[2:] in ([None, None], [0.0, 0.0])


def test_a_persons_correction_wins_however_late():
    log = [(0, 10, 0, "y", "label", 5.0), (0, 140, 0, "y", "correction", 1.0), (0, 20, 0, "y", "label", 5.0)]
    assert resolved(Label("y", within="1h"), log, 500)[0] == 1.0
    assert resolved(Label("y", within="1h"), log, 100)[0] == 5.0


def test_ties_of_a_majority_go_to_the_value_reported_last():
    log = [
        (0, 1, 0, "y", "label", 2.0),
        (0, 2, 0, "y", "label", 5.0),
        (0, 3, 0, "y", "label", 5.0),
        (0, 4, 0, "y", "label", 2.0),
    ]
    assert resolved(Label("y", within="1h", take="majority"), log, 500)[0] == 2.0


def test_no_predictions_and_no_feedback_are_no_labels():
    empty = Label("y", within="1h", take="majority").resolve(PREDICTED[:0], matched([]), as_of=ZERO)
    assert len(empty.value) == len(empty.mature) == 0
