"""An A/B test over the lake sees what it sees over the same events in memory."""

from __future__ import annotations

from datetime import timedelta

from leaven.experiments import ABTest, Failures, Guardrail, Latency, Outcome
from tests.experiments.ab_world import ARM, BOUGHT, a_crowd, a_world, day, seen
from tests.storage.builders import a_label, a_lake, a_prediction, a_source, commit


def test_the_lake_gives_the_evidence_that_the_events_give(tmp_path):
    rows = sorted(a_crowd(5, per_day=60), key=lambda row: row["day"])
    rows[150] |= {"answer": None, "error": "down"}
    events = []
    for place, row in enumerate(rows):
        at, arm = day(row["day"]), row["arm"]
        events.append(
            a_prediction(
                f"p{place:06d}", at=at, unit=row["unit"], arm=arm, version=ARM[arm], answer=row["answer"],
                error=row.get("error"), seconds=row["seconds"], features={"country": row["country"]},
            )
        )  # fmt: skip
        for name, (hours, value) in row["told"].items():
            late = at + timedelta(hours=hours)
            events.append(a_label(f"p{place:06d}", value, at=late, name=name, id=f"{name}{place}"))
    stage = ABTest(
        Outcome(BOUGHT), units=100_000, slices=["country"], secondary=["log_loss", "roc_auc"],
        guardrails=[Guardrail(Failures()), Guardrail(Latency())], adjust="before",
    )  # fmt: skip
    lake = a_lake(tmp_path)
    commit(lake, *events)
    rows[150]["answer"] = float("nan")
    world, source = a_world(rows), a_source(lake)
    first = seen(stage, source, 4.0, since=1.0, opened=day(1))
    assert first == seen(stage, world, 4.0, since=1.0, opened=day(1))
    whole = seen(stage, source, 5.0, first, since=1.0, opened=day(1))
    assert whole == seen(stage, world, 5.0, since=1.0, opened=day(1))
    assert (len(first.buckets), len(whole.buckets)) == (1, 2)
    lake.close()
