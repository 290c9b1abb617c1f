"""Feedback is read whole or refused whole, with the index and the field."""

from __future__ import annotations

import json
from typing import Any

import pytest

from leaven.events.records import FeedbackReceived
from leaven.gateway.feedback import read_feedback
from leaven.gateway.refusals import BadRequest


def read(sent: Any) -> list[FeedbackReceived]:
    body = sent if isinstance(sent, bytes) else json.dumps(sent).encode()
    return read_feedback(body, loops=["flights"], now=1_700_000_000_000_000, new_id=lambda: "fresh")


def a_report(**changes: Any) -> dict[str, Any]:
    report = {"loop": "flights", "name": "arr_delay", "prediction_id": "p", "value": 3} | changes
    return {name: value for name, value in report.items() if value != "absent"}


def test_a_report_becomes_an_event():
    sent = a_report(at="2013-01-31T23:59:00.5+01:00", kind="correction", id="f", source="ops", unit="N1")
    assert read(sent) == [
        FeedbackReceived("flights", "f", "arr_delay", 1_359_673_140_500_000, 1_700_000_000_000_000, "correction", "p",
                         "N1", 3.0, "ops")
    ]  # fmt: skip


def test_what_a_report_leaves_out_is_filled_in():
    (event,) = read(a_report(value="absent", loop="absent", model="flights"))
    assert (event.id, event.at, event.received_at, event.kind, event.value) == (
        "fresh", 1_700_000_000_000_000, 1_700_000_000_000_000, "label", None,
    )  # fmt: skip


def test_many_reports_come_in_one_request_in_order():
    assert [event.prediction for event in read({"feedback": [a_report(prediction_id=id) for id in "abc"]})] == [*"abc"]


def test_true_and_false_are_one_and_zero():
    assert [read(a_report(value=flag))[0].value for flag in (True, False)] == [1.0, 0.0]


def test_members_that_nobody_knows_are_tolerated():
    assert len(read(a_report(comment="hello"))) == 1


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"loop": "trains"}, "feedback[1].loop: no loop 'trains'"),
        ({"loop": "absent"}, "feedback[1].loop"),
        ({"name": "absent"}, "name"),
        ({"name": ""}, "feedback[1].name"),
        ({"name": 3}, "$.name"),
        ({"prediction_id": "absent"}, "feedback[1].prediction_id"),
        ({"value": "3"}, "feedback[1].value: '3' is no number"),
        ({"value": [3]}, "$.value"),
        ({"kind": "rumour"}, "$.kind"),
        ({"at": "yesterday"}, "feedback[1].at"),
        ({"at": "2013-01-31T23:59:00"}, "with an offset"),
        ({"at": 1_359_676_740}, "no time between 1971 and 2200"),  # seconds
        ({"at": 1_359_676_740_000}, "no time between 1971 and 2200"),  # milliseconds
        ({"at": 1_359_676_740_000_000_000}, "no time between 1971 and 2200"),  # nanoseconds
        ({"unit": "u" * 5000}, "feedback[1].unit"),
    ],
)
def test_one_bad_report_refuses_all_by_index_and_field(changes: dict[str, Any], says: str):
    with pytest.raises(BadRequest) as refused:
        read({"feedback": [a_report(), a_report(**changes)]})
    assert says in str(refused.value)
    assert "feedback[1]" in str(refused.value)


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"3", b"{", b"\xff", b'{"feedback": []}', b'{"feedback": 3}', b"[" * 9999]
)
def test_what_is_no_report_is_refused(body: bytes):
    with pytest.raises(BadRequest):
        read(body)
