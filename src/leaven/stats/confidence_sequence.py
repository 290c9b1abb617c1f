"""Is an arm better, or does it harm, whenever one looks?"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from leaven.errors import BadDefinition

Floats = NDArray[np.float64]

FEWEST = 200  # units of both arms; the sequence is asymptotic, and holds from about 100 per arm


@dataclass(frozen=True, slots=True)
class ConfidenceSequence:
    """Every look at any time, for ever, two-sided: the normal mixture's asymptotic confidence sequence.

    All intervals together miss the truth with probability at most `alpha`. They are tightest at `planned` units of both
    arms, which is fixed before the start. Below `FEWEST` units there is no interval yet.

    Source:
        Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas (arXiv 2103.06476v7), equations 9, 155 and 161:
        half-width = se sqrt(n) sqrt(2 (n r2 + 1) / (n^2 r2) ln(sqrt(n r2 + 1) / alpha)),
        r2 = (-2 ln alpha + ln(-2 ln alpha + 1)) / planned.
    """

    alpha: float = 0.05
    planned: int = 5_000

    def __post_init__(self) -> None:
        if self.planned < 1 or not 0 < self.alpha < 1:
            raise BadDefinition(repr(self), "a bound is out of range", "Keep 0 < alpha < 1 and planned 1 or more.")

    def critical(self, df: float, n: int) -> float:
        """Return how many standard errors the interval reaches to each side at `n` units of both arms."""
        if n < FEWEST:
            return math.inf
        mixed = n * mixture(self.alpha, self.planned) + 1
        return math.sqrt(2 * mixed / (mixed - 1) * math.log(math.sqrt(mixed) / self.alpha))

    def p_value(self, z: float, df: float, n: int) -> float:
        """Return the p-value that holds at every look: it falls below alpha when the interval leaves 0."""
        evidence = float(two_sided_evidence(z, n, spread=mixture(self.alpha, self.planned)))
        return 1.0 if n < FEWEST else min(1.0, 1 / evidence)


def mixture(alpha: float, planned: float) -> float:
    """Return the variance of the mixture whose interval at level `alpha` is tightest at `planned` units."""
    log = -2 * math.log(alpha)
    return (log + math.log(log + 1)) / planned


def two_sided_evidence(z: ArrayLike, n: ArrayLike, *, spread: float) -> Floats:
    """Return e-values against no difference, valid at every look.

    Args:
        z: Differences in standard errors, any shape.
        n: Units of both arms, of a shape that fits.
        spread: Variance of the mixture, from `mixture`.
    Source:
        E = exp(z^2 n r2 / (2 (n r2 + 1))) / sqrt(n r2 + 1).
    """
    mixed = np.asarray(n, dtype=np.float64) * spread + 1
    with np.errstate(over="ignore"):
        evidence: Floats = np.exp(np.square(z) * (1 - 1 / mixed) / 2) / np.sqrt(mixed)
    return evidence


def one_sided_evidence(z: ArrayLike, n: ArrayLike, *, spread: float) -> Floats:
    """Return e-values against `the difference is 0 or less`, valid at every look: for harm, and for margins.

    Args:
        z: Differences in standard errors, positive where the null is wrong, any shape.
        n: Units of both arms, of a shape that fits.
        spread: Variance of the mixture, from `mixture(2 * alpha, planned)`.
    Source:
        Howard, Ramdas, McAuliffe and Sekhon (2021), the one-sided normal mixture:
        E = 2 exp(z^2 n r2 / (2 (n r2 + 1))) Phi(z sqrt(n r2 / (n r2 + 1))) / sqrt(n r2 + 1).
    """
    from scipy.special import log_ndtr

    mixed = np.asarray(n, dtype=np.float64) * spread + 1
    share, score = 1 - 1 / mixed, np.asarray(z, dtype=np.float64)
    logs = math.log(2) + score * score * share / 2 + log_ndtr(score * np.sqrt(share)) - np.log(mixed) / 2
    with np.errstate(over="ignore"):
        evidence: Floats = np.exp(logs)
    return evidence


@lru_cache(maxsize=4096)
def one_sided_critical(n: float, *, alpha: float, planned: float, fewest: int = FEWEST) -> float:
    """Return how many standard errors a one-sided bound lies from the estimate, at any time.

    Harm is shown when the estimate plus as many standard errors is below 0.

    Args:
        n: Units of both arms.
        alpha: Error over all looks.
        planned: Units at which the bound is tightest.
        fewest: Units before which it is infinite; fewer than the default ask for Student's tails on top.
    """
    if n < fewest:
        return math.inf
    from scipy.optimize import brentq

    mixed = n * mixture(min(2 * alpha, 0.999), planned) + 1
    share, least = 1 - 1 / mixed, math.log(mixed) / 2 - math.log(alpha)

    def excess(z: float) -> float:  # of the logarithm of `one_sided_evidence`, for z of 0 or more
        return z * z * share / 2 + math.log(math.erfc(-z * math.sqrt(share / 2))) - least

    return float(brentq(excess, 0.0, math.sqrt(2 * least / share), xtol=1e-10))  # the two-sided bound is never nearer
