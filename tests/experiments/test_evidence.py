"""What is counted of a trial, per unit and on final labels."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from leaven.experiments.evidence import CanaryEvidence, canary_evidence, failed, shadow_evidence
from leaven.experiments.trial import evidence_digest
from leaven.stats.metrics import METRICS
from leaven.stats.moments import Moments
from tests.curation.builders import some_examples, some_pairs

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


def test_an_exposure_is_a_request_and_no_failure():
    met = some_examples([1.0, 0.0, 1.0, np.nan], answer=[np.nan, np.nan, 0.5, np.nan], unit=list("abcc"),
                        exposed=[True, False, False, True], arm="canary")  # fmt: skip
    assert failed(met.predictions).tolist() == [False, True, False, False]
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
