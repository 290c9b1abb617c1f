"""Whichever worker a scrape reaches, it tells of all of them, in a form that Prometheus' own parser reads."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from leaven.gateway.counters import Counters
from leaven.gateway.metrics import SharedFacts, exposition
from tests.gateway.installations import Installation, a_flight, gateway_on


def read(text: str) -> dict[str, list[tuple[dict[str, str], float]]]:
    """Samples by name, as Prometheus would take them."""
    found: dict[str, list[tuple[dict[str, str], float]]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, []).append((dict(sample.labels), sample.value))
    return found


def facts(worker: str, **changes: Any) -> dict[str, Any]:
    counters = Counters(worker=worker, log=lambda: {"queued": 2, "dropped_disk": 3, "sync_us": 1_500_000})
    counters.took(("a", "champion", "1"), 0.003)
    counters.took(("a", "champion", "1"), 30.0)
    counters.requests[200] += 2
    return {"models": [], "requests_under_way": 1, "shadow_rows_pending": 0, **counters.as_facts({}), **changes}


def test_a_histogram_adds_up():
    samples = read(exposition([facts("w")]))
    buckets = {labels["le"]: count for labels, count in samples["leaven_request_seconds_bucket"]}
    assert (buckets["0.0025"], buckets["0.005"], buckets["10.0"], buckets["+Inf"]) == (0, 1, 1, 2)
    ((labels, total),) = samples["leaven_request_seconds_sum"]
    assert (labels["loop"], labels["arm"], labels["version"], total) == ("a", "champion", "1", 30.003)


def test_counts_of_the_log_carry_their_reason_and_unit():
    samples = read(exposition([facts("w")]))
    assert samples["leaven_log_dropped_total"] == [({"worker": "w", "reason": "disk"}, 3)]
    assert samples["leaven_log_sync_seconds_total"] == [({"worker": "w"}, 1.5)]
    assert samples["leaven_log_queued"] == [({"worker": "w"}, 2)]


def test_names_may_hold_anything():
    loop = 'a"\\\nb'
    models = [{"loop": loop, "version": "1", "calls": 1, "rows": 2, "shared": 0, "waiting": 0}]
    ((labels, _),) = read(exposition([facts("w", models=models)]))["leaven_model_calls_total"]
    assert labels["loop"] == loop


def test_a_worker_tells_of_the_others_until_they_are_gone(tmp_path: Path):
    one, two = SharedFacts(tmp_path, "1-a"), SharedFacts(tmp_path, "2-b")
    one.put(facts("1-a"))
    two.put(facts("2-b"))
    assert [other["worker"] for other in one.others()] == ["2-b"]
    long_ago = time.time() - 60
    os.utime(tmp_path / "2-b.json", (long_ago, long_ago))
    assert one.others() == []
    assert not (tmp_path / "2-b.json").exists()
    two.put(facts("2-b"))
    (tmp_path / "2-b.json").write_bytes(b'{"worker": ')
    assert one.others() == []


def test_requests_at_all_workers_are_counted_whichever_is_asked(installation: Installation):
    installation.publish(champion="1")
    with gateway_on(installation.settings, workers=2) as gateway:
        for _ in range(40):
            assert gateway.infer(a_flight()).status == 200
        end = time.monotonic() + 60
        while True:
            samples = read(gateway.ask("GET", "/metrics").body.decode())
            counted = sum(count for labels, count in samples["leaven_predictions_total"])
            if counted == 40 and len(samples["leaven_requests_under_way"]) == 2:
                break
            assert time.monotonic() < end, samples["leaven_predictions_total"]
            time.sleep(0.1)
    assert sum(count for _, count in samples["leaven_request_seconds_count"]) == 40
    assert all(labels["loop"] == "flights" for labels, _ in samples["leaven_predictions_total"])
    assert {"leaven_log_lag_seconds", "leaven_log_backlog_bytes", "leaven_model_rows_total"} <= samples.keys()
