"""Does a canary fail more often than its share of the traffic explains, whenever one looks?"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def more_failures_evidence(
    control: ArrayLike, arm: ArrayLike, *, share: float, prior_failures: float = 10.0
) -> NDArray[np.float64]:
    """Return the evidence that the arm fails more often than the control, valid at every look.

    If it fails as often or less, the value ever reaches `1 / alpha` with probability at most `alpha`, whatever the
    common rate is and however it moves over the day: given that something failed, it was in the arm with its share.

    Args:
        control: Failures of the control so far, any shape. Of a unit that fails often, count the first.
        arm: Failures of the arm so far, of a shape that fits.
        share: The arm's share of the traffic of both, in (0, 1), constant over these failures.
        prior_failures: Weight of the prior around the share. More looks for smaller differences.
    Returns:
        E-values; 1 before the first failure, infinite beyond the largest float.
    Source:
        Lindon and Malek (2022, arXiv 2011.03567), section 4, with the Beta prior cut to theta > share, so that the
        null holds all theta up to it: E = B(a + x, b + y) / B(a, b) share^-x (1 - share)^-y
        I(a + x, b + y) / I(a, b), I the upper regularised incomplete beta function at the share.
    """
    from scipy.special import betaincc, betaln

    x, y = np.asarray(arm, dtype=np.float64), np.asarray(control, dtype=np.float64)
    a, b = prior_failures * share, prior_failures * (1 - share)
    logs = betaln(a + x, b + y) - betaln(a, b) - x * np.log(share) - y * np.log1p(-share)
    with np.errstate(over="ignore", divide="ignore"):
        beyond = np.log(betaincc(a + x, b + y, share)) - np.log(betaincc(a, b, share))
        evidence: NDArray[np.float64] = np.exp(logs + beyond)
    return evidence
