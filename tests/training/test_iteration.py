"""What past refreshes say of model iteration and data iteration."""

from __future__ import annotations

import math

import numpy as np
import pytest

from leaven.training.iteration import Tried, judge_iterations


def tries(gains, changed=(), *, error=0.01, cpu=2.0, promoted=None):
    return [
        Tried(number + 2, number + 1, tuple(changed), float(gain), error, 0.5, cpu,
              bool(gain > 0) if promoted is None else promoted)
        for number, gain in enumerate(gains)
    ]  # fmt: skip


def judged(*groups):
    return judge_iterations([one for group in groups for one in group], metric="log_loss", unmeasured={})


@pytest.mark.parametrize(
    ("changed", "kind"),
    [
        ((), "data"), (("gates", "rollout", "tick"), "data"), (("features",), "model"), (("parameters",), "model"),
        (("learner", "data"), "model"), (("data",), "curation"), (("plan", "gates"), "curation"),
    ],
)  # fmt: skip
def test_what_changed_says_of_which_kind_a_refresh_is(changed, kind):
    assert tries([0.1], changed)[0].kind == kind


def test_the_kind_that_gained_more_is_named_with_its_interval():
    data, model = tries([0.010, 0.012, 0.008, 0.011]), tries([0.050, 0.060, 0.055], ["features"], cpu=30.0)
    found = judged(data, model)
    assert found.verdict == "model"
    assert found.difference is not None
    assert found.difference.estimate == pytest.approx(0.055 - 0.01025, abs=1e-6)
    assert "changing the model gained +0.0447 [" in found.why
    assert judged(tries([-0.03, -0.04, -0.05], ["learner"]), data).verdict == "data"
    assert judged(tries([0.012, 0.009, 0.011], ["learner"]), data).verdict == "no difference shown"
    assert found.kinds["model"].share == pytest.approx(0.11)
    assert found.parts["features"].tried == 3
    # 30 s for a gain of 11 % of the loss: 2.7 s for each hundredth.
    assert found.kinds["model"].seconds_per_share == pytest.approx(30 / 11)
    low, high = found.kinds["model"].seconds_range
    assert low < 30 / 11 < high


def test_too_little_is_said_to_be_too_little():
    data = tries([0.01, 0.012, 0.008, 0.011])
    alone = judged(data)
    assert (alone.verdict, alone.difference) == ("not enough evidence", None)
    assert alone.why == "it takes 3 measured refreshes of each kind; there are 0 of another model"
    two = judged(data[:1], tries([0.5, 0.6], ["features"]))
    assert two.verdict == "not enough evidence"
    assert "2 of another model and 1 of the same model on newer data" in two.why
    assert two.kinds["model"].seconds_per_share is None
    assert judged().verdict == "not enough evidence"


def test_those_that_were_not_promoted_count_as_well():
    """Of changes that are worth nothing, those that were promoted seem to gain; all together do not."""
    rng = np.random.default_rng(4)
    found = judged(
        tries(rng.normal(0, 0.02, 40), ["parameters"], error=0.02), tries(rng.normal(0, 0.02, 40), error=0.02)
    )
    paid = found.kinds["model"]
    assert paid.gain_of_promoted > 0.01
    assert paid.gain.low < 0 < paid.gain.high
    assert found.verdict == "no difference shown"


def test_a_challenger_that_hardly_differs_does_not_outweigh_the_others():
    same = Tried(9, 8, (), 0.0, 0.0, 0.5, 1.0, False)
    gain = judged(tries([0.05, 0.06, 0.055]), [same]).kinds["data"].gain
    assert 0.01 < gain.estimate < 0.06


@pytest.mark.parametrize(("added", "least", "most"), [(0.0, 0.0, 0.06), (0.03, 0.9, 1.0)])
def test_how_often_a_verdict_is_given(added, least, most):
    """800 loops of 6 and 8 refreshes; tolerance: 3 standard errors. None is given where nothing differs."""
    rng, runs, given = np.random.default_rng(8), 800, 0
    for _ in range(runs):
        errors = rng.uniform(0.004, 0.02, 14)
        gains = rng.normal(0.01, 0.005, 14) + errors * rng.normal(size=14) + added * (np.arange(14) < 6)
        tried = [
            Tried(i + 2, i + 1, ("features",) if i < 6 else (), float(gain), float(error), 0.5, 1.0, True)
            for i, (gain, error) in enumerate(zip(gains, errors, strict=True))
        ]
        given += judged(tried).verdict in ("model", "data")
    assert least <= given / runs <= most + 3 * math.sqrt(0.05 * 0.95 / runs)
