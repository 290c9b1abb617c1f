"""What can be sent is; what cannot is refused before anything has been."""

from __future__ import annotations

import json
import pickle
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import numpy as np
import pytest

from leaven.client import BadCall, GatewayUnavailable, Refused, Report, SpoolFailed, SpoolFull, UnreadableReply
from leaven.client.requests import address_of, assign_request, feedback_request, predict_requests, sent_report
from leaven.gateway.feedback import read_feedback


def predict(*given: Any) -> Any:
    """The one request for a few rows."""
    ((request, _),) = predict_requests(*given)
    return request


def test_a_row_s_values_are_written_as_the_json_they_are():
    row = {"i": np.int64(3), "f": np.float32(0.5), "b": np.bool_(True), "s": "é\n", "none": None, "nan": float("nan"),
           "nn": np.float64("nan"), "d": Decimal("1.5"), "big": 2**63 - 1}  # fmt: skip
    body = json.loads(predict("flights", [row], ["N1"], "k").body)
    assert body == {
        "rows": [{"i": 3, "f": 0.5, "b": True, "s": "é\n", "none": None, "nan": None, "nn": None, "d": 1.5,
                  "big": 2**63 - 1}],
        "unit": "N1",
    }  # fmt: skip


def test_an_assignment_is_asked_for_with_what_is_known_of_the_unit():
    asked = assign_request("prompts", "u1", context={"n": np.int64(3), "nan": float("nan")}, expose=False)
    assert json.loads(asked.body) == {
        "loop": "prompts",
        "unit": "u1",
        "context": {"n": 3, "nan": None},
        "expose": False,
    }
    assert json.loads(assign_request("prompts", "u1").body) == {"loop": "prompts", "unit": "u1"}


def test_units_go_with_rows():
    rows = [{"x": 1}, {"x": 2}]
    assert json.loads(predict("m", rows, ["a", None], "k").body)["units"] == ["a", None]
    assert "units" not in json.loads(predict("m", rows, [None, None], "k").body)


def test_many_rows_are_asked_for_in_parts_each_under_a_key_of_its_own():
    rows, units = [{"x": n} for n in range(2_500)], [str(n) for n in range(2_500)]
    requests = predict_requests("m", rows, units, "k")
    assert [(dict(request.headers)["idempotency-key"], count) for request, count in requests] == [
        ("k-0", 1_000), ("k-1", 1_000), ("k-2", 500),
    ]  # fmt: skip
    bodies = [json.loads(request.body) for request, _ in requests]
    assert [row for body in bodies for row in body["rows"]] == rows
    assert [unit for body in bodies for unit in body["units"]] == units


def test_a_loop_s_name_cannot_leave_its_place_in_the_path():
    assert predict("a/b ?#é", [{}], [None], "k").path == "/v1/models/a%2Fb%20%3F%23%C3%A9/predict"


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: predict("m", [{"x": object()}], [None], "k"), "rows: "),
        (lambda: predict("m", [{"x": np.zeros(3)}], [None], "k"), "rows: "),
        (lambda: predict("m", [{"x": "\ud800"}], [None], "k"), "rows: "),
        (lambda: predict("m", [{"x": 1}], ["a", "b"], "k"), "units: 2 units for 1 rows"),
        (lambda: predict("m", [{"x": 1}], [None], "a\r\nhost: b"), "key: "),
        (lambda: assign_request("m", "\ud800"), "unit: "),
        (lambda: assign_request("m", ""), "unit: it is empty"),
        (lambda: assign_request("m", "u", context={"x": object()}), "context: "),
        (lambda: address_of("localhost:8080"), "url: "),
        (lambda: address_of("ftp://host"), "url: "),
        (lambda: address_of("http://host:port"), "url: "),
        (lambda: address_of("http://me:secret@host"), "url: it carries a user name"),
        (lambda: address_of("http://host/a\r\nb"), "url: "),
    ],
)
def test_what_cannot_be_sent_is_refused(call: Any, says: str):
    with pytest.raises(BadCall) as refused:
        call()
    assert str(refused.value).startswith(says)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    ("url", "host", "port", "secure", "prefix"),
    [
        ("http://gw", "gw", 80, False, ""),
        ("https://gw/ml/", "gw", 443, True, "/ml"),
        ("http://[::1]:8080", "::1", 8080, False, ""),
    ],
)
def test_a_url_says_where_to_connect(url: str, host: str, port: int, secure: bool, prefix: str):
    found = address_of(url)
    assert (found.host, found.port, found.secure, found.prefix) == (host, port, secure, prefix)


def a_report(**changes: Any) -> Report:
    return Report(**({"name": "delay", "prediction_id": "p", "value": 3} | changes))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"value": float("nan")}, "r.value: nan is not finite"),
        ({"value": [1]}, "r.value: [1] is no number"),
        ({"prediction_id": None}, "r.prediction_id: it names neither"),
        ({"name": ""}, "r.name: it is empty"),
        ({"at": datetime(2026, 1, 1)}, "r.at: 2026-01-01 00:00:00 has no time zone"),
    ],
)
def test_a_report_that_the_gateway_would_refuse_is_not_sent(changes: Any, says: str):
    with pytest.raises(BadCall) as refused:
        sent_report("m", a_report(**changes), where="r", fresh_id="f")
    assert str(refused.value).startswith(says)


def test_the_gateway_reads_of_a_report_what_was_said():
    at = datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=UTC)
    said = a_report(unit="u", value=np.float64(2.5), kind="correction", at=at, source="ops")
    body = feedback_request([sent_report("m", said, where="r", fresh_id="f")]).body
    (event,) = read_feedback(body, loops=["m"], now=1_700_000_000_000_000, new_id=lambda: "not this")
    assert (event.loop, event.id, event.name, event.prediction, event.unit) == ("m", "f", "delay", "p", "u")
    assert (event.value, event.kind, event.source) == (2.5, "correction", "ops")
    assert event.at == 1_767_323_045_000_678


@pytest.mark.parametrize(
    "error",
    [
        BadCall("a", "b", "c"),
        GatewayUnavailable("http://gw", "no connection", 4, 1.0),
        Refused(401, "no token"),
        UnreadableReply("http://gw", "Hello"),
        SpoolFull("folder", 10, 10),
        SpoolFailed("folder", "no space"),
    ],
)
def test_errors_survive_the_way_between_processes(error: Exception):
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), again.args) == (type(error), str(error), error.args)
