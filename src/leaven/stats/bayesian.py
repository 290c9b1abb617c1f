"""What would somebody believe of a relative difference who believed little in large ones before?

For display only. These numbers hold for one look; whoever stops when they look good is misled more often than by a
t-test (38 % of trials without a winner have a chance to win beyond 95 % on one of 14 days).
"""

from __future__ import annotations

import math

import msgspec

from leaven.stats.estimate import Estimate

USUAL = 0.3  # standard deviation of true relative differences, where nobody knows better


class Risk(msgspec.Struct, frozen=True):
    """What is lost on average, as a share of the control, by keeping an arm that is the worse one."""

    control: float
    arm: float


class Belief(msgspec.Struct, frozen=True):
    """A normal belief about the relative difference."""

    chance_to_win: float  # that the arm is better
    lift: float  # mean; of a raw relative difference, what is left
    ci: tuple[float, float]  # 95 % of it
    risk: Risk
    usual_effect: float
    note: str = "display only, not peek-safe"


def belief(
    control: Estimate, arm: Estimate, *, usual: float = USUAL, covariance: float = 0.0, lower_is_better: bool = False
) -> Belief | None:
    """Return what is believed after the data; None where there is no relative difference or no variance.

    Args:
        control: The estimate of one side.
        arm: That of the other.
        usual: Standard deviation of true relative differences before the data, their mean being 0; more than 0.
        covariance: Of the two estimates.
        lower_is_better: Whether less is better, for chance and risk; the lift is as it is.
    Source:
        With the relative difference r = (m1 - m0) / |m0| and, by the delta method,
        var = v1 / m0^2 + v0 m1^2 / m0^4 - 2 cov m1 / m0^3: precision 1 / var + 1 / usual^2, mean r / var / precision.
        The risk of keeping the control is E max(r, 0) = s phi(m / s) + m Phi(m / s), m and s of the belief.
    """
    from scipy.special import ndtr

    m0, m1, own = control.value, arm.value, control.variance + arm.variance
    if min(control.n, arm.n) < 2 or not math.isfinite(m0 + m1 + own) or m0 == 0 or own <= 0:
        return None
    variance = arm.variance / m0**2 + control.variance * m1**2 / m0**4 - 2 * covariance * m1 / m0**3
    kept = usual**2 / (usual**2 + variance)
    mean, sd = (m1 - m0) / abs(m0) * kept, math.sqrt(max(variance, 0.0) * kept)
    if sd == 0:
        return None
    z = (-mean if lower_is_better else mean) / sd
    density = math.exp(-z * z / 2) / math.sqrt(2 * math.pi)
    chance = float(ndtr(z))
    risk = Risk(control=sd * (density + z * chance), arm=sd * (density - z * float(ndtr(-z))))
    return Belief(chance, mean, (mean - _Z * sd, mean + _Z * sd), risk, usual)


_Z = 1.959963984540054
