"""The gap to a model from scratch, how often to rebuild, and what the other way would have cost."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from leaven.stats.intervals import Interval
from leaven.stats.moments import moments
from leaven.training.costs import Power, counterfactual, energy
from leaven.training.rebuilding import Compared, advise_rebuilds, relative_gap, taken_of, updates_between_rebuilds


def test_the_relative_gap_covers_the_truth_as_often_as_it_says():
    """1,000 pairs of models on 400 units, the true gap 5 %; tolerance: 3 standard errors and 1 %."""
    rng, runs, inside = np.random.default_rng(3), 1_000, 0
    for _ in range(runs):
        scratch = rng.gamma(0.8, 0.5 / 0.8, 400)
        updated = 1.05 * scratch + rng.normal(0, 0.1, 400)
        found = relative_gap(moments(updated), moments(scratch), moments(updated - scratch))
        inside += found.low <= 0.05 <= found.high
    assert abs(inside / runs - 0.95) < 0.01 + 3 * math.sqrt(0.95 * 0.05 / runs)


def test_without_units_or_loss_there_is_no_gap():
    one, none = moments(np.array([0.3])), moments(np.zeros(9))
    assert relative_gap(one, one, one) is None
    assert relative_gap(none, none, none) is None


def test_a_model_from_scratch_is_taken_only_where_the_gap_is_shown():
    assert taken_of(Interval(0.05, 0.03, 0.07, 0.95, 9), 0.02) == "scratch"
    assert taken_of(Interval(0.05, 0.01, 0.09, 0.95, 9), 0.02) == "updated"
    assert taken_of(Interval(0.05, 0.03, 0.07, 0.95, 9), None) == "updated"
    assert taken_of(None, 0.0) == "updated"


@given(st.floats(2, 200), st.floats(0.01, 1), st.floats(0.001, 0.5), st.floats(0.1, 10))
def test_the_advised_interval_costs_least_of_all(rebuild, update, growth, value):
    """Oracle: the cost of a round, debt and all, summed update by update, for every length of it."""
    m = np.arange(1, 4_001)
    cost = (rebuild + (m - 1) * update) / m + growth * value * (m - 1) / 2  # the k-th update has grown k times
    best = updates_between_rebuilds(rebuild=rebuild, update=update, growth=growth, value=value)
    cheapest = int(m[np.argmin(cost)])
    if cheapest < 4_000:
        assert abs(best - cheapest) <= 1


def test_advice_says_what_is_missing_or_how_sure_it_is():
    gap = Interval(0.02, 0.01, 0.03, 0.95, 300)
    seen = Compared("log_loss", 900, 0.52, 0.5, gap, Interval(0.04, 0.02, 0.06, 0.95, 300), 10, "updated", "")
    facts = {"rebuild_cpu_s": 40.0, "update_cpu_s": 1.0}
    assert "Hybrid(compare_every" in advise_rebuilds(None, **facts, value=1, cpu_price=1).why
    unpriced = advise_rebuilds(seen, **facts, value=None, cpu_price=None)
    assert unpriced.updates is None
    assert unpriced.growth == pytest.approx(0.002)
    assert "--value" in unpriced.why
    told = advise_rebuilds(seen, **facts, value=100, cpu_price=0.01)
    assert told.updates == pytest.approx(math.sqrt(2 * 0.39 / (0.002 * 100)))
    assert told.low < told.updates < told.high
    never = advise_rebuilds(
        Compared("log_loss", 9, 0.5, 0.5, Interval(-0.1, -0.2, 0.01, 0.95, 9), None, 2, "updated", ""),
        **facts, value=100, cpu_price=0.01,
    )  # fmt: skip
    assert (never.updates, never.high) == (None, None)


def test_energy_is_told_only_where_power_is_declared():
    assert energy(3_600.0, None) is None
    found = energy(3_600.0, Power(watts=50, grid_intensity=400))
    assert (found.kwh, found.co2_g) == pytest.approx((0.05, 20.0))


def test_the_other_way_costs_what_it_cost_when_it_was_last_gone():
    earlier = [
        (1, "fit", {"rows": 900, "cpu_seconds": 3.0}),
        (2, "update", {"rows": 30, "cpu_seconds": 0.2}),
        (3, "fit", {"rows": 1_000, "cpu_seconds": 4.0}),
        (4, "fit", {}),
    ]
    other = counterfactual("update", earlier)
    assert (other.mode, other.rows, other.cpu_seconds, other.version) == ("fit", 1_000, 4.0, 3)
    assert counterfactual("fit", earlier).version == 2
    assert counterfactual("fit", earlier[:1]) is None
    assert counterfactual("update", earlier, beside={"rows": 7, "cpu_seconds": 1.5}).version is None
