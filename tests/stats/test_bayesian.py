"""What is believed of a relative difference: the other library's worked case, and integrals by simulation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from leaven.stats.bayesian import belief
from leaven.stats.estimate import Estimate


def rate(hits, n):
    """As gbstats has it: p (1 - p) / n."""
    p = hits / n
    return Estimate(p, p * (1 - p) / n, n)


def test_worked_case_10_a_normal_posterior():
    found = belief(rate(200, 2000), rate(230, 2000), usual=0.3)
    assert (found.chance_to_win, found.lift) == pytest.approx((0.911067, 0.133610), abs=5e-7)
    assert found.ci == pytest.approx((-0.060750, 0.327971), abs=5e-7)
    assert (found.risk.control, found.risk.arm) == pytest.approx((0.137689, 0.004079), abs=5e-7)
    assert found.note == "display only, not peek-safe"


@given(st.floats(0.5, 2), st.floats(0.4, 2.2), st.floats(1e-4, 0.02), st.floats(0.01, 1))
def test_chance_and_risk_are_those_of_draws_from_the_belief(m0, m1, variance, usual):
    """Oracle: prior times likelihood on a grid of relative differences."""
    control, arm = Estimate(m0, variance, 50), Estimate(m1, variance, 50)
    found = belief(control, arm, usual=usual)
    own = variance / m0**2 + variance * m1**2 / m0**4
    grid = np.linspace(-9, 9, 200_001)
    logs = -(grid**2) / (2 * usual**2) - (grid - (m1 / m0 - 1)) ** 2 / (2 * own)
    weight = np.exp(logs - logs.max())
    weight /= weight.sum()
    assert found.lift == pytest.approx((grid * weight).sum(), abs=1e-6)
    assert found.chance_to_win == pytest.approx(weight[grid > 0].sum() + weight[grid == 0].sum() / 2, abs=2e-3)
    assert found.risk.control == pytest.approx((np.maximum(grid, 0) * weight).sum(), abs=1e-6)
    assert found.risk.arm == pytest.approx((np.maximum(-grid, 0) * weight).sum(), abs=1e-6)


def test_where_less_is_better_chance_and_risk_change_sides():
    control, arm = rate(200, 2000), rate(230, 2000)
    more, less = belief(control, arm), belief(control, arm, lower_is_better=True)
    assert less.chance_to_win == pytest.approx(1 - more.chance_to_win)
    assert (less.risk.control, less.risk.arm) == pytest.approx((more.risk.arm, more.risk.control))
    assert less.lift == more.lift


def test_of_a_negative_control_the_lift_has_the_sign_of_the_difference():
    assert belief(Estimate(-2.0, 0.01, 50), Estimate(-1.8, 0.01, 50)).lift > 0


@pytest.mark.parametrize("control", [Estimate(0.0, 0.1, 50), Estimate(1.0, float("nan"), 1), Estimate(1.0, 0.0, 50)])
def test_nothing_is_believed_where_nothing_relative_is_known(control):
    assert belief(control, Estimate(1.0, 0.0, 50)) is None
