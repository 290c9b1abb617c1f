"""What is counted of a trial, per unit and on final labels."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from leaven.experiments.counting import failed_rows
from leaven.experiments.evidence import CanaryEvidence, arm_evidence, canary_evidence
from leaven.experiments.side_by_side import Segment, ShadowEvidence, report, shadow_evidence
from leaven.experiments.trial import evidence_digest
from leaven.stats.log_counts import LogCounts, log_counts
from leaven.stats.metrics import METRICS
from leaven.stats.moments import Moments
from tests.curation.builders import objects, some_examples, some_pairs

row = st.tuples(
    st.sampled_from(["champion", "canary", "pinned", "imported"]),
    st.sampled_from("abcd"),  # unit
    st.sampled_from([0.0, 1.0, np.nan]),  # label
    st.sampled_from([0.1, 0.5, 0.9, np.nan]),  # answer, NaN where the arm failed
    st.booleans(),  # mature
)


@given(st.lists(row, max_size=25))
def test_the_arms_evidence_is_what_counting_by_hand_gives(rows):
    """Oracle: one dictionary per arm, row by row."""
    arms, units, labels, answers, mature = zip(*rows, strict=False) if rows else ((), (), (), (), ())
    evidence = canary_evidence(
        some_examples(labels, answer=answers, unit=units, arm=arms, mature=np.array(mature, dtype=bool)), "brier"
    )
    for arm, ours in (("champion", evidence.champion), ("canary", evidence.canary)):
        mine = [one for one in rows if one[0] == arm]
        failed = [one for one in mine if np.isnan(one[3])]
        losses = {}
        for _, unit, label, answer, done in mine:
            if done and not np.isnan(label) and not np.isnan(answer):
                losses.setdefault(unit, []).append((answer - label) ** 2)
        means = [np.mean(each) for each in losses.values()]
        assert (ours.requests, ours.failures) == (len(mine), len(failed))
        assert (ours.units, ours.failed_units) == (len({o[1] for o in mine}), len({o[1] for o in failed}))
        assert ours.loss.count == len(means)
        assert ours.loss.total == pytest.approx(sum(means))
        assert ours.loss.spread == pytest.approx(len(means) and len(means) * np.var(means), abs=1e-12)


@given(st.lists(st.tuples(row, st.sampled_from([0.2, 0.5, 0.8, np.nan])), max_size=25))
def test_the_shadows_evidence_is_what_counting_by_hand_gives(rows):
    lives, shadow = [one for one, _ in rows], [answer for _, answer in rows]
    _, units, labels, answers, mature = zip(*lives, strict=False) if lives else ((), (), (), (), ())
    pairs = some_pairs(labels, answers, shadow, unit=units, mature=np.array(mature, dtype=bool))
    ours = shadow_evidence(pairs, "brier")
    both = [(live, s) for live, s in rows if not np.isnan(s) and not np.isnan(live[3])]
    losses = {}
    for (_, unit, label, answer, done), s in both:
        if done and not np.isnan(label):
            losses.setdefault(unit, []).append(((answer - label) ** 2, (s - label) ** 2))
    means = np.array([np.mean(each, axis=0) for each in losses.values()]).reshape(-1, 2)
    assert (ours.pairs, ours.failures) == (len(rows), sum(np.isnan(s) for s in shadow))
    assert (ours.units, ours.failed_units) == (len(set(units)), len({u for (_, u, *_), s in rows if np.isnan(s)}))
    assert ours.flips == sum((live[3] >= 0.5) != (s >= 0.5) for live, s in both)
    assert ours.absolute_difference.total == pytest.approx(sum(abs(live[3] - s) for live, s in both))
    for kept, theirs in ((ours.champion_loss, means[:, 0]), (ours.challenger_loss, means[:, 1]),
                         (ours.loss_difference, means[:, 1] - means[:, 0])):  # fmt: skip
        assert kept.count == len(means)
        assert kept.total == pytest.approx(theirs.sum())
        assert kept.spread == pytest.approx(len(means) and len(means) * theirs.var(), abs=1e-12)


def test_a_row_failed_if_it_has_an_error_or_no_number_for_an_answer():
    answers, errors = [0.5, np.nan, 0.5, np.nan], [None, "no number", "late", "late"]
    examples = some_examples(np.zeros(4), answer=answers)
    served = replace(examples.predictions, error=objects(errors), seconds=np.array([0.1, 0.2, 0.3, 0.4]))
    ours = arm_evidence(replace(examples, predictions=served), "brier")
    assert (ours.failures, ours.failed_units, ours.loss.count) == (3, 3, 1)
    assert ours.reasons == {"late": 2, "no number": 1}
    assert ours.seconds == log_counts(np.array([0.1]))


def test_of_each_unit_the_first_answer_is_timed():
    examples = some_examples(np.zeros(4), unit=list("abab"))
    served = replace(examples.predictions, seconds=np.array([0.1, 5.0, 9.0, 9.0]))
    assert arm_evidence(replace(examples, predictions=served), "brier").seconds == log_counts(np.array([0.1, 5.0]))


def test_the_two_answers_are_compared_by_size_by_side_and_by_segment():
    champion, shadow = [0.4, 0.6, 0.2, 0.5, 0.3], [0.6, 0.7, 0.1, 0.5, np.nan]
    features = {"carrier": objects(["AA", "AA", None, "UA", "UA"]), "hour": np.arange(5.0)}
    pairs = some_pairs(np.zeros(5), champion, shadow, features=features)
    pairs = replace(pairs, shadow_error=objects([None] * 4 + ["ArmDown: gone"]), shadow_seconds=np.full(5, 0.04))
    ours = shadow_evidence(pairs, "brier")
    assert (ours.compared, ours.flips, ours.agreement, ours.reasons) == (4, 1, 0.75, {"ArmDown: gone": 1})
    assert [ours.within(tolerance) for tolerance in (0.0, 0.12, 0.3)] == [0.25, 0.75, 1.0]
    assert (ours.higher.total, ours.lower.total) == (3, 1)
    assert ours.higher.quantile(1.0) == pytest.approx(0.2, rel=0.15)
    assert ours.segments == {
        "carrier": {"AA": Segment(2, 1, pytest.approx(0.3)), "(missing)": Segment(1, 0, pytest.approx(0.1)),
                    "UA": Segment(1, 0, 0.0)}
    }  # fmt: skip
    assert ours.shadow_seconds.quantile(0.5) == pytest.approx(0.04, rel=0.15)
    assert ours.champion_seconds == LogCounts(4)  # no time at all
    values = [0.5] * 5
    assert shadow_evidence(some_pairs(values, champion, shadow), "absolute_error").flips == 0


def test_the_report_reads_as_the_pairs_are():
    rng = np.random.default_rng(3)
    champion, shadow = rng.random(4_000), rng.random(4_000)
    carrier = objects(np.where(rng.random(4_000) < 0.3, "AA", "UA").tolist())
    shadow = np.where(carrier == "AA", champion, shadow)
    pairs = some_pairs(np.zeros(4_000), champion, shadow, features={"carrier": carrier})
    pairs = replace(pairs, shadow_seconds=rng.lognormal(-3, 1, 4_000))
    told = report(shadow_evidence(pairs, "brier"))
    assert (told.pairs, told.compared, told.failures) == (4_000, 4_000, 0)
    assert told.agreement == pytest.approx(((champion >= 0.5) == (shadow >= 0.5)).mean())
    theirs = np.quantile(shadow - champion, [0.05, 0.5, 0.95])
    ours = (told.difference.low, told.difference.middle, told.difference.high)
    assert ours == pytest.approx(theirs.tolist(), rel=0.15, abs=0.01)
    assert told.shadow_seconds.high == pytest.approx(np.quantile(pairs.shadow_seconds, 0.99), rel=0.15)
    assert [(one.feature, one.value) for one in told.flipping] == [("carrier", "UA")]
    assert told.flipping[0].share == pytest.approx(0.5, abs=0.05)
    nothing = report(ShadowEvidence())
    assert (nothing.agreement, nothing.difference.middle, nothing.champion_seconds.low) == (None, None, None)


def test_rare_values_are_counted_together():
    carriers = [f"c{number % 40:02}" for number in range(100)]
    pairs = some_pairs(np.zeros(100), np.full(100, 0.4), np.full(100, 0.6), features={"c": objects(carriers)})
    segments = shadow_evidence(pairs, "brier").segments["c"]
    assert list(segments) == [f"c{number:02}" for number in range(12)] + ["(others)"]
    assert sum(each.pairs for each in segments.values()) == sum(each.flips for each in segments.values()) == 100


def test_an_exposure_is_a_request_and_no_failure():
    met = some_examples([1.0, 0.0, 1.0, np.nan], answer=[np.nan, np.nan, 0.5, np.nan], unit=list("abcc"),
                        exposed=[True, False, False, True], arm="canary")  # fmt: skip
    assert failed_rows(met.predictions).tolist() == [False, True, False, False]
    canary = canary_evidence(met, "brier").canary
    assert (canary.requests, canary.failures, canary.units, canary.failed_units) == (4, 1, 3, 1)
    assert canary.loss.count == 1


def test_the_loss_is_that_of_the_metric_that_is_named():
    label, answer = np.array([0.0, 1.0]), np.array([0.2, 0.6])
    for name in ("log_loss", "brier", "error_rate"):
        evidence = canary_evidence(some_examples(label, answer=answer), name)
        assert evidence.champion.loss.mean == pytest.approx(METRICS[name].row_loss(label, answer).mean())


@pytest.mark.parametrize("field", ["units", "failed_units", "requests", "failures", "loss"])
def test_the_digest_changes_with_any_number_of_the_evidence(field):
    evidence = CanaryEvidence()
    for arm in ("champion", "canary"):
        to = Moments(1, 0.5, 0.25) if field == "loss" else 1
        edited = msgspec.structs.replace(
            evidence, **{arm: msgspec.structs.replace(getattr(evidence, arm), **{field: to})}
        )
        assert evidence_digest(edited) != evidence_digest(evidence)


def test_evidence_survives_json_to_the_bit():
    rng = np.random.default_rng(0)
    label, answer = rng.integers(0, 2, 200).astype(float), rng.random(200)
    evidence = canary_evidence(
        some_examples(label, answer=answer, arm=rng.choice(["champion", "canary"], 200)), "log_loss"
    )
    assert msgspec.json.decode(msgspec.json.encode(evidence), type=CanaryEvidence) == evidence
    segments = {"c": objects(rng.choice(["AA", "UA"], 200))}
    pairs = some_pairs(label, answer, rng.random(200), features=segments)
    beside = shadow_evidence(pairs, "log_loss")
    assert msgspec.json.decode(msgspec.json.encode(beside), type=ShadowEvidence) == beside
    kept = msgspec.json.decode(msgspec.json.encode(msgspec.to_builtins(beside)))  # as a decision carries it
    assert msgspec.convert(kept, ShadowEvidence) == beside
