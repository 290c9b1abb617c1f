"""How well is one number of one arm known?

Means, ratios, adjusted means, quantiles and qualities of models end in the same three numbers; whatever compares arms
needs no more.
"""

from __future__ import annotations

import math

import msgspec
import numpy as np
from numpy.typing import NDArray

from leaven.stats.comoments import Comoments
from leaven.stats.moments import Moments

Floats = NDArray[np.float64]


class Estimate(msgspec.Struct, frozen=True):
    """A value, the variance of that value (its standard error squared), and the units it rests on."""

    value: float
    variance: float
    n: int


def mean_estimate(sample: Moments) -> Estimate:
    """Return the mean with its variance; a proportion is the mean of zeros and ones."""
    return Estimate(sample.mean, sample.variance / sample.count if sample.count > 1 else math.nan, sample.count)


def ratio_estimate(sample: Comoments) -> Estimate:
    """Return the ratio of two means with its variance; NaN where the denominator's mean is 0.

    Precision, recall and F1 are such ratios (F1 = 2 TP / (2 TP + FP + FN)), and so is every mean per row where the
    unit of assignment has several rows.

    Args:
        sample: Of the numerator and the denominator per unit.
    Source:
        Deng, Knoblich and Lu (KDD 2018), section 2: var(R) = var(M - R D) / (n mean(D)^2).
    """
    if not sample.count or sample.centres[1] == 0:
        return Estimate(math.nan, math.nan, sample.count)
    ratio = sample.centres[0] / sample.centres[1]
    return Estimate(ratio, mean_estimate(sample.along(ratio_weights(sample))).variance, sample.count)


def ratio_weights(sample: Comoments) -> Floats:
    """Return how a ratio moves with the means of its numerator and denominator."""
    numerator, denominator = sample.centres[:2]
    return np.array([1 / denominator, -numerator / denominator**2])


def adjusted_estimates(control: Comoments, arm: Comoments) -> tuple[Estimate, Estimate]:
    """Return both arms' estimates, less what a covariate from before the exposure explains (CUPED, CUPAC).

    The mean of the first of two numbers, adjusted by the second; or, of four numbers (M, D, X, Y), the ratio M / D
    adjusted by the ratio X / Y. The difference is unbiased only if the arm cannot have changed the covariate; a frozen
    champion's score is a good one.

    Source:
        Deng, Xu, Kohavi and Walker (WSDM 2013), section 3: y - theta (x - mean x), theta = cov(x, y) / var(x), over
        both arms together.
    """
    pooled = control + arm
    theta = _theta(pooled)
    return _adjusted(control, theta, pooled), _adjusted(arm, theta, pooled)


def adjusted_weights(control: Comoments, arm: Comoments) -> tuple[Floats, Floats]:
    """Return how each arm's adjusted estimate moves with the means that it is made of."""
    theta = _theta(control + arm)
    metrics, covariates = zip(*(_gradients(sample) for sample in (control, arm)), strict=True)
    return metrics[0] - theta * covariates[0], metrics[1] - theta * covariates[1]


def adjusted_wholes(
    control: Comoments, arm: Comoments, *, between: Floats | None = None
) -> tuple[Estimate, Estimate, float]:
    """Return the adjusted estimates with variances of their own, and their covariance: for relative differences.

    Both are adjusted towards the covariate's mean over both arms, which is an estimate as well. Its error cancels in
    their difference, not in their ratio.

    Args:
        control: As for `adjusted_estimates`.
        arm: As for `adjusted_estimates`.
        between: Covariances of the control's means with the arm's, shape (k, k); 0 where the arms share no unit.
    Source:
        The delta method over all means of both arms, theta taken as known.
    """
    pooled, k = control + arm, len(control.centres)
    theta, towards = _theta(pooled), _gradients(pooled)[1] * _theta(pooled) / pooled.count
    weights = np.tile(np.concatenate([control.count * towards, arm.count * towards]), (2, 1))
    for row, own in enumerate(adjusted_weights(control, arm)):
        weights[row, row * k : (row + 1) * k] += own
    means = np.zeros((2 * k, 2 * k))
    means[:k, :k], means[k:, k:] = control.covariance() / control.count, arm.covariance() / arm.count
    if between is not None:
        means[:k, k:], means[k:, :k] = between, between.T
    (v0, covariance), (_, v1) = (weights @ means @ weights.T).tolist()
    values = (_adjusted(sample, theta, pooled).value for sample in (control, arm))
    return Estimate(next(values), v0, control.count), Estimate(next(values), v1, arm.count), covariance


def _theta(pooled: Comoments) -> float:
    metric, covariate = _gradients(pooled)
    covariance = pooled.covariance()
    explained = covariate @ covariance @ covariate
    return float(metric @ covariance @ covariate / explained) if explained > 0 else 0.0


def _adjusted(sample: Comoments, theta: float, pooled: Comoments) -> Estimate:
    metric, covariate = _gradients(sample)
    variance = mean_estimate(sample.along(metric - theta * covariate)).variance
    value = _values(sample)[0] - theta * (_values(sample)[1] - _values(pooled)[1])
    return Estimate(value, variance, sample.count)


def _values(sample: Comoments) -> tuple[float, float]:
    """The metric and the covariate."""
    centres = sample.centres
    return (centres[0], centres[1]) if len(centres) == 2 else (centres[0] / centres[1], centres[2] / centres[3])


def _gradients(sample: Comoments) -> tuple[Floats, Floats]:
    """How the metric and the covariate move with the means that they are made of."""
    if len(sample.centres) == 2:
        return np.array([1.0, 0.0]), np.array([0.0, 1.0])
    (_, d, _, y), (metric, covariate) = sample.centres, _values(sample)
    return np.array([1 / d, -metric / d, 0, 0]), np.array([0, 0, 1 / y, -covariate / y])
