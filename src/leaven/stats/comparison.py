"""How far is one arm from another, absolutely and relatively, and could it be chance?"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import msgspec

from leaven.stats.estimate import Estimate


class Rule(Protocol):
    """When an estimate is far enough from none: once, at planned looks, or at any time."""

    @property
    def alpha(self) -> float:
        """The error it may make, two-sided, 0 < alpha < 1."""
        ...

    def critical(self, df: float, n: int) -> float:
        """Return how many standard errors an interval reaches to each side.

        Args:
            df: Degrees of freedom of the standard error, positive; infinite where it is known.
            n: Units of both arms.
        """
        ...

    def p_value(self, z: float, df: float, n: int) -> float:
        """Return the p-value of an estimate that is `z` standard errors from none."""
        ...


@dataclass(frozen=True, slots=True)
class Fixed:
    """One look at the end, by Student's t."""

    alpha: float = 0.05

    def critical(self, df: float, n: int) -> float:
        """Return Student's quantile."""
        from scipy.special import stdtrit

        return float(stdtrit(df, 1 - self.alpha / 2))

    def p_value(self, z: float, df: float, n: int) -> float:
        """Return the two-sided p-value."""
        from scipy.special import stdtr

        return float(2 * stdtr(df, -abs(z)))


class Comparison(msgspec.Struct, frozen=True):
    """An arm minus the control. Bounds are infinite where the data cannot tell; relative ones are then None."""

    control: float
    arm: float
    difference: float
    low: float
    high: float
    relative: float | None  # difference / |control|
    relative_low: float | None
    relative_high: float | None
    p_value: float
    statistic: float  # difference in standard errors; NaN where there is none
    standard_error: float


Wholes = tuple[Estimate, Estimate, float]  # control, arm, their covariance


def compare(
    control: Estimate, arm: Estimate, rule: Rule, *, covariance: float = 0.0, wholes: Wholes | None = None
) -> Comparison:
    """Return the difference of two estimates, with intervals and p-value by `rule`.

    The p-value belongs to the absolute difference; there is no second one for the relative difference.

    Args:
        control: The estimate of one side.
        arm: That of the other.
        rule: How far is far enough.
        covariance: Of the two estimates, where they share something; 0 where they are independent.
        wholes: The same with an error that cancels in the difference, for the relative bounds; None: there is none.
    Source:
        se^2 = v1 + v0 - 2 cov with v the variance of each estimate; Welch (1947), Satterthwaite:
        df = se^4 / (v0^2 / (n0 - 1) + v1^2 / (n1 - 1)). Of estimates that share clusters, df = the fewer clusters - 1.
    """
    difference, n = arm.value - control.value, control.n + arm.n
    if min(control.n, arm.n) < 2 or not math.isfinite(control.variance + arm.variance + difference):
        return Comparison(
            control.value, arm.value, difference, -math.inf, math.inf, _ratio(control, arm), None, None,
            1.0, math.nan, math.nan,
        )  # fmt: skip
    error = math.sqrt(max(0.0, control.variance + arm.variance - 2 * covariance))
    if error == 0:  # constant in both arms: whatever differs, differs for certain
        relative = _ratio(control, arm)
        return Comparison(
            control.value, arm.value, difference, difference, difference, relative, relative, relative,
            1.0 if difference == 0 else 0.0, math.nan, 0.0,
        )  # fmt: skip
    shared = min(control.n, arm.n) - 1.0 if covariance else None
    df = shared or _freedom(control.variance, control.n, arm.variance, arm.n)
    half, z = rule.critical(df, n) * error, difference / error
    one, other, common = wholes or (control, arm, covariance)
    relative_low, relative_high = relative_bounds(one, other, rule, covariance=common)
    return Comparison(
        control.value, arm.value, difference, difference - half, difference + half,
        _ratio(control, arm), relative_low, relative_high, rule.p_value(z, df, n), z, error,
    )  # fmt: skip


def relative_bounds(
    control: Estimate, arm: Estimate, rule: Rule, *, covariance: float = 0.0
) -> tuple[float, float] | tuple[None, None]:
    """Return the interval of (arm - control) / |control|, or two Nones where the control may as well be 0.

    On the log scale where both arms keep well off 0, by Fieller's theorem elsewhere.

    Source:
        ln(m1 / m0) +- c sqrt(v1 / m1^2 + v0 / m0^2 - 2 cov / (m0 m1)), df as above; Fieller (1954): all r with
        (m1 - r m0)^2 <= c^2 (v1 - 2 r cov + r^2 v0).
    """
    n, m0, m1 = control.n + arm.n, control.value, arm.value

    def critical(v0: float, v1: float) -> float:
        df = min(control.n, arm.n) - 1.0 if covariance else _freedom(v0, control.n, v1, arm.n)
        return rule.critical(df, n)

    reach = critical(control.variance, 0.0) * math.sqrt(control.variance)
    if abs(m0) <= reach:
        return None, None
    own = critical(0.0, arm.variance) * math.sqrt(arm.variance)
    # Twice as far, for a choice by the data between two intervals must not itself miss the truth.
    if m1 * m0 > 0 and abs(m1) > 2 * own and abs(m0) > 2 * reach:
        v0, v1 = control.variance / m0**2, arm.variance / m1**2
        half = critical(v0, v1) * math.sqrt(max(0.0, v0 + v1 - 2 * covariance / (m0 * m1)))
        bounds = (m1 / m0 * math.exp(-half), m1 / m0 * math.exp(half))
    else:
        bounds = _fieller(control, arm, critical(control.variance, arm.variance), covariance)
    low, high = sorted((bound - 1) * math.copysign(1, m0) for bound in bounds)
    return low, high


def _fieller(control: Estimate, arm: Estimate, critical: float, covariance: float) -> tuple[float, float]:
    # a r^2 - 2 b r + c <= 0. With other degrees of freedom a control that just keeps off 0 may not do so any more.
    c2 = critical * critical
    a = control.value**2 - c2 * control.variance
    b, c = control.value * arm.value - c2 * covariance, arm.value**2 - c2 * arm.variance
    if a <= 0:
        return -math.inf, math.inf
    root = math.sqrt(max(0.0, b * b - a * c))
    return (b - root) / a, (b + root) / a


def _ratio(control: Estimate, arm: Estimate) -> float | None:
    """The relative difference; None where it has no meaning."""
    if control.value == 0 or not math.isfinite(control.value) or not math.isfinite(arm.value):
        return None
    return (arm.value - control.value) / abs(control.value)


def _freedom(v0: float, n0: int, v1: float, n1: int) -> float:
    parts = v0 * v0 / (n0 - 1) + v1 * v1 / (n1 - 1)
    return (v0 + v1) ** 2 / parts if parts > 0 else math.inf
