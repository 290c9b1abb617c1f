"""What an A/B test keeps of the log: whom it counts, when, once; and that it can be made again."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import msgspec
import numpy as np
import pytest

from leaven.events import Happens, Label
from leaven.experiments import ABTest, Failures, Guardrail, Latency, Outcome, Ratio
from leaven.experiments.ab_evidence import ARMS, ABEvidence
from leaven.experiments.ab_reading import reading
from leaven.stats.metrics import log_losses
from tests.experiments.ab_world import BOUGHT, a_crowd, a_world, day, seen

STARS = Label("stars", within="6h")
EVERYTHING = ABTest(
    units=1_000, guardrails=[Guardrail(Latency()), Guardrail(Failures())], slices=["country"], at_least="2d",
    secondary=["f1", "roc_auc", Outcome(STARS), Ratio(BOUGHT, Happens("stars", within="2h"), better="lower")],
)  # fmt: skip


def bought(hours: float = 1.0, value: float = 1.0):
    return {"bought": (hours, value)}


def measured(evidence: ABEvidence):
    return evidence.sums.mature["champion"], evidence.sums.mature["canary"]


@pytest.mark.parametrize("adjust", [None, "before"])
def test_evidence_gathered_day_by_day_is_the_one_made_anew_from_the_log(adjust):
    world = a_world(a_crowd(9, per_day=200))
    stage = replace(EVERYTHING, adjust=adjust)
    before = None
    # Irregular looks: none closes a bucket, or one, or several at once; at the end the plan is reached.
    for until in (2.1, 3.9, 6.7, 6.8, 9.0):
        before = seen(stage, world, until, before, since=1.0, opened=day(0.5))
        assert before == seen(stage, world, until, since=1.0, opened=day(0.5))
    assert len(before.buckets) == 6
    assert {cell.slice for cell in before.sums.cells} == {None, "country=DE", "country=FR", "country=(other)"}


def test_a_look_reads_the_stretch_of_newly_closed_buckets_only():
    world = a_world(a_crowd(6, per_day=100))
    stage = ABTest(units=200_000)
    before = seen(stage, world, 4.6)
    assert len(before.buckets) == 3  # three days, each with a day for its last unit and half a day for its labels
    world.asked.clear()
    seen(stage, world, 5.4, before)
    assert world.asked == []
    seen(stage, world, 5.6, before)
    assert set(world.asked) == {(day(3), day(5))}


def test_a_unit_counts_once_from_its_first_meeting_and_for_its_own_time_only():
    rows = [
        {"unit": "a", "day": 0.2, "answer": 0.9, "told": bought()},
        {"unit": "a", "day": 1.1, "answer": 0.1, "told": bought()},  # within its day
        {"unit": "a", "day": 1.3, "answer": 0.5, "told": bought()},  # after its day: as if it were not there
        {"unit": "b", "day": 1.4, "answer": 0.6, "told": bought(value=0)},
        {"unit": "c", "day": 2.5, "answer": 0.6, "told": bought()},  # its bucket is open at day 4.2
    ]
    evidence = seen(ABTest(), a_world(rows), 4.2)
    assert [bucket.units["champion"] for bucket in evidence.buckets] == [1, 1]
    assert evidence.units["champion"] == 3
    assert evidence.entered == (1, 1, 1, 0, 0)
    (cell,) = evidence.sums.cells
    theirs = [np.mean(log_losses(np.array([1.0, 1.0]), np.array([0.9, 0.1]))), -np.log(0.4)]
    assert cell.arms["champion"].count == 2
    assert cell.arms["champion"].centres == pytest.approx([np.mean(theirs)])
    assert cell.arms["champion"].products == pytest.approx([np.var(theirs) * 2])


def test_nothing_of_a_bucket_counts_before_its_last_label_is_final():
    rows = [{"unit": "a", "day": 0.0, "told": bought()}]
    stage = ABTest(guardrails=[Guardrail(Outcome(Label("stars", within="3d")))])
    assert len(seen(ABTest(), a_world(rows), 2.49).buckets) == 0
    assert len(seen(ABTest(), a_world(rows), 2.5).buckets) == 1
    assert len(seen(stage, a_world(rows), 4.99).buckets) == 0  # the slowest rule of all decides
    assert len(seen(stage, a_world(rows), 5.0).buckets) == 1


def test_what_comes_after_a_bucket_has_closed_changes_nothing_even_where_all_is_made_anew():
    rows = [{"unit": f"u{i}", "day": 0.5, "told": bought()} for i in range(3)]
    world = a_world(rows)
    early = seen(ABTest(), world, 2.5)
    late = a_world([*rows, {"unit": "u0", "day": 9.0, "told": bought()}])
    late.told.kind[0], late.told.received_at[0] = "correction", late.told.received_at[0] + np.timedelta64(5, "D")
    anew = seen(ABTest(), late, 9.5)
    assert anew.buckets[0].primary != early.buckets[0].primary  # u0's report came when it was too late: no label
    assert seen(ABTest(), late, 9.5, seen(ABTest(), late, 2.5)) == anew


def test_units_of_both_arms_are_left_out_and_counted():
    rows = [
        {"unit": "a", "day": 0.2, "arm": "champion", "told": bought()},
        {"unit": "a", "day": 0.3, "arm": "canary", "told": bought()},
        {"unit": "b", "day": 0.2, "arm": "champion", "told": bought()},
        {"unit": "b", "day": 2.3, "arm": "canary", "told": bought()},  # after its time: what it did before is sound
        {"unit": "c", "day": 0.2, "arm": "canary", "told": bought()},
    ]
    evidence = seen(ABTest(), a_world(rows), 4.0)
    assert evidence.crossed == 2
    assert evidence.buckets[0].units == {"champion": 1, "canary": 1}
    assert evidence.units == {"champion": 0, "canary": 3}  # by the arm met last: the one that it is dealt


def test_rows_of_other_arms_and_versions_belong_to_no_arm_of_the_trial():
    rows = [
        {"unit": "a", "day": 0.2, "arm": "pinned", "version": "2", "told": bought()},
        {"unit": "b", "day": 0.2, "arm": "champion", "version": "7", "told": bought()},
        {"unit": "c", "day": 0.2, "arm": "canary", "told": bought()},
        {"unit": "c", "day": 0.3, "arm": "pinned", "version": "1", "answer": 0.001, "told": bought()},
    ]
    evidence = seen(ABTest(), a_world(rows), 4.0)
    assert evidence.units == {"champion": 0, "canary": 1}
    assert evidence.sums.cells[0].arms["canary"].centres == pytest.approx([np.log(2)])


def test_exposures_have_outcomes_and_are_no_failures():
    rows = [{"unit": f"u{i}", "day": 0.1, "answer": np.nan, "told": bought(value=i % 2)} for i in range(4)]
    rows += [{"unit": "f", "day": 0.1, "arm": "canary", "answer": np.nan, "error": "down", "told": bought(value=1)}]
    stage = ABTest(Outcome(BOUGHT), guardrails=[Guardrail(Failures())])
    evidence = seen(stage, a_world(rows), 4.0)
    outcome, failures = evidence.sums.cells
    assert outcome.arms["champion"].centres == (0.5,)
    assert outcome.arms["canary"].centres == (1.0,)  # who met a failure got the champion's answer, and counts
    assert (failures.arms["champion"].centres, failures.arms["canary"].centres) == ((0.0,), (1.0,))
    assert evidence.failed == {"champion": 0, "canary": 1}
    losses = seen(ABTest(guardrails=[Guardrail(Failures())]), a_world(rows), 4.0)
    assert measured(losses) == (0, 0)


def test_every_metric_is_what_its_definition_says_of_the_units_that_closed():
    """Against plain loops over the rows."""
    rows = a_crowd(5, per_day=200, effect=0.1)
    evidence, design = seen(EVERYTHING, a_world(rows), 4.6), EVERYTHING.design("log_loss")
    assert len(evidence.buckets) == 3
    by_unit: dict[str, list] = {}
    for row in sorted(rows, key=lambda row: row["day"]):
        by_unit.setdefault(row["unit"], []).append(row)
    came = {unit: [r for r in mine if r["day"] < mine[0]["day"] + 1] for unit, mine in by_unit.items()}
    came = {unit: mine for unit, mine in came.items() if mine[0]["day"] < 3}
    found = {gauge.name: reading(gauge, evidence) for gauge in design.gauges}
    for arm in ARMS:
        mine = [unit for unit in came.values() if unit[0]["arm"] == arm]
        flat = [row for unit in mine for row in unit]
        told = [row for row in flat if "bought" in row["told"]]
        label = np.array([row["told"]["bought"][1] for row in told])
        positive = np.array([row["answer"] >= 0.5 for row in told])
        unit_loss = [
            np.mean(
                [log_losses(np.array([r["told"]["bought"][1]]), np.array([r["answer"]]))[0] for r in unit if r in told]
            )
            for unit in mine
            if any(r in told for r in unit)
        ]
        value = lambda name: (found[name].control if arm == "champion" else found[name].arm).value  # noqa: E731, B023
        assert value("log_loss") == pytest.approx(np.mean(unit_loss))
        assert value("f1") == pytest.approx(2 * (label * positive).sum() / (label.sum() + positive.sum()))
        assert value("stars") == pytest.approx(np.mean([np.mean([r["told"]["stars"][1] for r in u]) for u in mine]))
        assert value("bought/stars") == pytest.approx(label.sum() / len(flat))
        assert value("latency p95") == pytest.approx(np.quantile([r["seconds"] for r in flat], 0.95), rel=0.03)
        assert 0.5 < value("roc_auc") < 1
        in_fr = [unit for unit in mine if unit[0]["country"] == "FR"]
        sliced = reading(design.secondary[2], evidence, of="country=FR")
        shown = (sliced.control if arm == "champion" else sliced.arm).value
        assert shown == pytest.approx(np.mean([np.mean([r["told"]["stars"][1] for r in u]) for u in in_fr]))
        labelled = evidence.labelled[repr(BOUGHT)][arm]
        assert (labelled.units, labelled.labelled) == (len(mine), len(unit_loss))
        delays = [
            np.mean([r["told"]["bought"][0] / 24 for r in u if r in told]) for u in mine if any(r in told for r in u)
        ]
        assert labelled.days.mean == pytest.approx(np.mean(delays), rel=1e-6)


def test_slices_are_those_of_the_first_request_and_late_ones_are_pooled():
    rows = [{"unit": f"u{i}", "day": 0.1 + i / 1e4, "country": f"c{i % 25:02d}", "told": bought()} for i in range(75)]
    rows += [{"unit": "u0", "day": 0.5, "country": "elsewhere", "told": bought()}]
    rows += [{"unit": "new", "day": 1.5, "country": "late", "told": bought()}]
    rows += [{"unit": "silent", "day": 1.5, "country": None, "told": bought()}]
    evidence = seen(ABTest(slices=["country"]), a_world(rows), 4.0)
    assert evidence.slices == (*(f"country=c{i:02d}" for i in range(20)), "country=(other)")
    counts = {cell.slice: cell.arms["champion"].count for cell in evidence.sums.cells}
    assert counts == {None: 77, "country=(other)": 17} | {f"country=c{i:02d}": 3 for i in range(20)}


def test_the_past_is_the_champions_before_the_trial_opened_and_never_after():
    rows = [
        {"unit": "a", "day": 0.1, "answer": 0.2, "told": bought()},
        {"unit": "a", "day": 0.3, "answer": 0.4, "told": bought()},
        {"unit": "a", "day": 0.4, "answer": 0.9, "arm": "canary", "told": bought()},  # another version's
        {"unit": "b", "day": 0.9, "answer": 0.9, "told": bought()},  # not final when the trial opened, at day 1
        {"unit": "a", "day": 1.2, "answer": 0.9, "told": bought()},  # after that: the step began at day 1.5
        {"unit": "a", "day": 1.6, "answer": 0.5, "told": bought()},
        {"unit": "b", "day": 1.7, "arm": "canary", "answer": 0.5, "told": bought()},
    ]
    stage = ABTest(adjust="before", before="14d")
    evidence = seen(stage, a_world(rows), 4.5, since=1.5, opened=day(1))
    past = float(np.mean([-np.log(0.2), -np.log(0.4)]))
    assert evidence.imputed == {"log_loss": pytest.approx((past,))}  # of all rows there were
    (cell,) = evidence.sums.cells
    assert cell.arms["champion"].centres == pytest.approx((np.log(2), past))
    assert cell.arms["canary"].centres == pytest.approx((np.log(2), past))  # without a past: the constant


def test_a_known_past_makes_the_difference_clearer_and_does_not_move_it():
    rng = np.random.default_rng(5)
    rows = []
    for number in range(1_200):
        habit, arm = rng.normal(), ("champion", "canary")[number % 2]
        for when in (0.2, 0.6, 2.1 + rng.random()):
            late = arm if when > 1 else "champion"
            told = {"stars": (1.0, 3 + habit + 0.3 * rng.normal() + (0.2 if late == "canary" else 0))}
            rows.append({"unit": f"u{number}", "day": when + 0.01 * rng.random(), "arm": late, "told": told})
    world, outcome = a_world(rows), Outcome(STARS)
    plain, adjusted = (ABTest(outcome, adjust=adjust) for adjust in (None, "before"))
    raw, clear = (
        reading(stage.design("log_loss").primary, seen(stage, world, 6.0, since=2.0, opened=day(1)))
        for stage in (plain, adjusted)
    )
    assert clear.error < 0.5 * raw.error
    assert abs(clear.gain - 0.2) < 3 * clear.error


def test_the_score_is_the_champions_for_both_arms_on_the_first_request():
    rows = [{"unit": f"u{i}", "day": 0.1 + i / 1e3, "arm": ARMS[i % 2], "answer": 0.9, "country": f"{i}",
             "told": bought(value=i % 3)} for i in range(40)]  # fmt: skip
    rows += [{"unit": "u0", "day": 0.9, "country": "999", "told": bought()}]
    asked = []

    def answer(version, features):
        asked.append(version)
        return np.array([float(each) for each in features["country"]])

    stage = ABTest(Outcome(Label("bought", within="12h")), adjust="score")
    evidence = seen(stage, a_world(rows), 4.0, answer=answer)
    assert set(asked) == {"1"}
    (cell,) = evidence.sums.cells
    assert cell.arms["champion"].centres[1] == pytest.approx(np.mean(range(0, 40, 2)))
    assert cell.arms["canary"].centres[1] == pytest.approx(np.mean(range(1, 40, 2)))


def test_once_the_plan_is_reached_no_bucket_is_added_and_every_unit_is_still_counted():
    world = a_world(a_crowd(8, per_day=300))
    stage = ABTest(units=500, at_least="4d")
    evidence = seen(stage, world, 8.0)
    assert sum(evidence.sums.mature.values()) >= 500
    assert evidence.buckets[-1].closed_after == timedelta(days=4.5) // timedelta(microseconds=1)  # not before at_least
    assert sum(evidence.units.values()) > sum(evidence.sums.units.values())
    assert msgspec.structs.replace(seen(stage, world, 7.0), units={}, entered=()) == msgspec.structs.replace(
        evidence, units={}, entered=()
    )
