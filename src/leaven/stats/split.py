"""Did the arms get the shares of units that were planned?

A split that is off (sample ratio mismatch) means that the arms' units differ in more than the arm: nothing measured on
them can be trusted.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from leaven.errors import BadDefinition


def split_p_value(counts: ArrayLike, shares: ArrayLike) -> float:
    """Return how likely a split as uneven as this is under the plan, for a single look.

    Args:
        counts: Units seen, shape (arms,), 0 or more.
        shares: Planned, by proportion, shape (arms,). An arm with none is left out; it must have no units.
    Returns:
        The p-value of Pearson's chi-square test, in [0, 1]; 1 before the first unit or with one arm.
    Raises:
        BadDefinition: the shares do not fit the counts.
    """
    from scipy.special import chdtrc

    seen, planned = _planned(counts, shares)
    total = float(seen.sum())
    if not total or len(planned) < 2:
        return 1.0
    expected = total * planned
    return float(chdtrc(len(planned) - 1, float(((seen - expected) ** 2 / expected).sum())))


def split_evidence(counts: ArrayLike, shares: ArrayLike, *, prior_units: float = 100.0) -> NDArray[np.float64]:
    """Return the evidence against the planned split, valid at every look.

    If the plan holds, the value ever reaches `1 / alpha` with probability at most `alpha`, however often one looks.

    Args:
        counts: Units seen so far, shape (..., arms), 0 or more.
        shares: Planned, by proportion, shape (arms,). An arm with none is left out; it must have no units.
        prior_units: Weight of the prior around the plan, in units. More looks for smaller gaps.
    Returns:
        E-values, shape (...,). 1 before the first unit; infinite beyond the largest float.
    Raises:
        BadDefinition: the shares do not fit the counts.
    Source:
        Lindon and Malek, "Anytime-Valid Inference for Multinomial Count Data" (2022, arXiv 2011.03567):
        E = B(a + n) / B(a) * prod(shares ** -n), a = prior_units * shares, B the beta function.
    """
    from scipy.special import gammaln

    seen, planned = _planned(counts, shares)
    prior = prior_units * planned
    logs = gammaln(prior + seen).sum(-1) - gammaln(prior_units + seen.sum(-1))
    logs = logs - gammaln(prior).sum() + math.lgamma(prior_units) - (seen * np.log(planned)).sum(-1)
    with np.errstate(over="ignore"):
        evidence: NDArray[np.float64] = np.exp(logs)
    return evidence


def running_p_value(evidence: ArrayLike) -> NDArray[np.float64]:
    """Return the p-value at each look, given the e-values of all looks so far along the last axis: it never rises."""
    values = np.maximum.accumulate(np.asarray(evidence, dtype=np.float64), axis=-1)
    with np.errstate(divide="ignore"):
        lowest: NDArray[np.float64] = np.minimum(1.0, 1.0 / values)
    return lowest


def _planned(counts: ArrayLike, shares: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Counts and shares (summing to 1) of the arms that have a share."""
    seen, planned = np.asarray(counts, dtype=np.float64), np.asarray(shares, dtype=np.float64)
    if planned.ndim != 1 or seen.shape[-1:] != planned.shape:
        what = f"{seen.shape[-1] if seen.ndim else 0} counts and {planned.size} shares"
        raise BadDefinition("split", what, "Give each arm one of both.")
    if not (planned >= 0).all() or not np.isfinite(planned).all() or not planned.sum() > 0:
        raise BadDefinition("shares", f"{_listed(planned)} are no shares", "Give 0 or more each, and one above 0.")
    if not (seen >= 0).all() or not np.isfinite(seen).all():
        raise BadDefinition("counts", "a count is negative or not finite", "Give the units of each arm, 0 or more.")
    has = planned > 0
    if seen[..., ~has].any():
        arm = int(np.flatnonzero(~has & (seen.reshape(-1, len(planned)) > 0).any(0))[0])
        raise BadDefinition(
            "counts", f"arm {arm + 1} has units but no share", "Give it the share that it had while it got them."
        )
    return seen[..., has], planned[has] / planned.sum()


def _listed(values: Sequence[float] | NDArray[np.float64]) -> str:
    return ", ".join(f"{value:g}" for value in values)
