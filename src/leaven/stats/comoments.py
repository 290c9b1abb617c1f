"""What must be kept of several numbers per unit to compare ratios, or to adjust for what was known before?"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import msgspec
import numpy as np
from numpy.typing import ArrayLike, NDArray

from leaven.stats.moments import Moments


class Comoments(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag=True):
    """Count, means and products of deviations of `k` numbers per unit; those of disjoint sets of units add up.

    Source:
        Chan, Golub and LeVeque (1983), with products in place of squares (see `Moments`).
    """

    count: int = 0
    centres: tuple[float, ...] = ()  # k means
    products: tuple[float, ...] = ()  # k (k + 1) / 2 sums of products of deviations: the upper triangle by rows

    def __add__(self, other: Comoments) -> Comoments:
        if not self.count or not other.count:
            return self if self.count else other
        count, apart = self.count + other.count, np.subtract(other.centres, self.centres)
        both = np.add(self.products, other.products)
        both += np.outer(apart, apart)[_upper(len(apart))] * (self.count * other.count / count)
        centres = np.add(self.centres, apart * (other.count / count))
        return Comoments(count, tuple(centres.tolist()), tuple(both.tolist()))

    def covariance(self) -> NDArray[np.float64]:
        """Return the unbiased covariance matrix, shape (k, k); NaN of fewer than two units."""
        k = len(self.centres)
        matrix = np.full((k, k), np.nan)
        if self.count > 1:
            matrix[_upper(k)] = np.divide(self.products, self.count - 1)
            matrix.T[_upper(k)] = matrix[_upper(k)]
        return matrix

    def reordered(self, order: Sequence[int]) -> Comoments:
        """Return the comoments of the same numbers in another order."""
        k = len(self.centres)
        matrix = np.zeros((k, k))
        matrix[_upper(k)] = self.products
        matrix.T[_upper(k)] = self.products
        products = matrix[np.ix_(order, order)][_upper(k)] if k else matrix.ravel()
        return Comoments(self.count, tuple(self.centres[i] for i in order), tuple(products.tolist()))

    def along(self, weights: ArrayLike) -> Moments:
        """Return the moments of the weighted sum of the k numbers, weights of shape (k,)."""
        weights = np.asarray(weights, dtype=np.float64)
        if self.count < 2:
            return Moments(self.count, float(weights @ self.centres) if self.count else 0.0, 0.0)
        spread = float(weights @ self.covariance() @ weights) * (self.count - 1)
        return Moments(self.count, float(weights @ self.centres), max(0.0, spread))


def comoments(*columns: NDArray[np.float64]) -> Comoments:
    """Return the comoments of columns of equal length, one entry per unit."""
    values = np.stack(columns)
    if not values.shape[1]:
        return Comoments()
    centres = values.mean(axis=1)
    apart = values - centres[:, None]
    products = (apart @ apart.T)[_upper(len(columns))]
    return Comoments(values.shape[1], tuple(centres.tolist()), tuple(products.tolist()))


@lru_cache(maxsize=16)
def _upper(k: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """The upper triangle of a square of k by k, by rows."""
    return np.triu_indices(k)
