"""Does the log tell the requests that matter, and not drown in them?"""

from __future__ import annotations

import logging

import pytest

from leaven.events.records import PredictionServed
from leaven.gateway.notes import Notes
from tests.storage.builders import a_prediction

SCOPE = {"method": "POST", "path": "/v2/models/flights/infer"}


def told(caplog: pytest.LogCaptureFixture) -> list[dict[str, object]]:
    return [{"message": record.getMessage(), **getattr(record, "leaven_about", {})} for record in caplog.records]


def test_only_what_failed_or_was_slow_is_told(caplog: pytest.LogCaptureFixture):
    notes = Notes(slow=1.0, timer=lambda: 100.0)
    records: list[PredictionServed] = [a_prediction("p1", error="so"), a_prediction("p2")]
    with caplog.at_level(logging.INFO, logger="leaven.gateway.notes"):
        notes.told(SCOPE, 200, 0.1, records)
        notes.told(SCOPE, 400, 0.1, ())
        notes.told(SCOPE, 503, 0.1, records)
        notes.told(SCOPE, 200, 1.5, ())
    failed, slow = told(caplog)
    assert failed == {"message": "a request failed", **SCOPE, "status": 503, "seconds": 0.1, "prediction": "p1",
                      "loop": "flights", "version": "1", "arm": "champion", "error": "so", "rows": 2}  # fmt: skip
    assert (slow["message"], slow["seconds"]) == ("a request was slow", 1.5)


def test_at_debug_every_request_is_told(caplog: pytest.LogCaptureFixture):
    notes = Notes(slow=1.0, timer=lambda: 100.0)
    with caplog.at_level(logging.DEBUG, logger="leaven.gateway.notes"):
        notes.told(SCOPE, 200, 0.1, [a_prediction("p1")])
    assert told(caplog)[0]["prediction"] == "p1"


def test_a_flood_of_failures_is_told_a_few_times_a_second_and_counted(caplog: pytest.LogCaptureFixture):
    now = [100.0]
    notes = Notes(slow=1.0, timer=lambda: now[0])
    with caplog.at_level(logging.INFO, logger="leaven.gateway.notes"):
        for _ in range(1_000):
            notes.told(SCOPE, 503, 0.1, ())
        now[0] += 1.0
        notes.told(SCOPE, 503, 0.1, ())
    assert len(told(caplog)) == 12
    assert told(caplog)[10]["message"] == "990 more requests failed or were slow"
