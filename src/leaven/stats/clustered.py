"""How far apart are two arms whose units live in clusters: villages, shops, households?

Units of one cluster are alike, so errors count clusters. A cluster may be in one arm (it was assigned as a whole) or
in both (its units were assigned one by one): what both arms then share makes their difference more certain.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from leaven.stats.comoments import Comoments
from leaven.stats.estimate import Estimate, adjusted_estimates, adjusted_weights, ratio_estimate, ratio_weights

Floats = NDArray[np.float64]


def clustered_estimates(control: Comoments, arm: Comoments, both: Comoments) -> tuple[Estimate, Estimate, float]:
    """Return the two arms' estimates, each resting on clusters, and the covariance of these estimates.

    Args:
        control: Totals per cluster that has units of the control: numerator and denominator, and where the ratio is
            adjusted, the covariate's two.
        arm: The same of the arm.
        both: Of the clusters that have units of both: the control's totals, then the arm's.
    Source:
        Liang and Zeger (1986), the sandwich with clusters, as least squares on an arm's dummy has it: with e the
        cluster's linearised total of an arm (of mean 0), var = G / (G - 1) sum e^2, cov = sqrt(f f') sum e e',
        f = G / (G - 1) of each arm's clusters.
    """
    if len(control.centres) == 2:
        estimates = ratio_estimate(control), ratio_estimate(arm)
        weights = ratio_weights(control), ratio_weights(arm)
    else:
        estimates, weights = adjusted_estimates(control, arm), adjusted_weights(control, arm)
    return *estimates, float(weights[0] @ between_means(control, arm, both) @ weights[1])


def between_means(control: Comoments, arm: Comoments, both: Comoments) -> Floats:
    """Return the covariances of the control's means per cluster with the arm's, shape (k, k); arguments as above."""
    k = len(control.centres)
    if not both.count or min(control.count, arm.count) < 2:
        return np.zeros((k, k))
    products = np.zeros((2 * k, 2 * k))
    products[np.triu_indices(2 * k)] = both.products
    # The clusters in both need not have the means that all clusters of an arm have.
    away = np.subtract(both.centres, (*control.centres, *arm.centres))
    total = products[:k, k:] + both.count * np.outer(away[:k], away[k:])
    raised = math.sqrt(control.count / (control.count - 1) * arm.count / (arm.count - 1))
    between: Floats = raised * total / (control.count * arm.count)
    return between
