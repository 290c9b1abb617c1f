"""How small is a p-value still, among many?"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray


def holm(p_values: ArrayLike) -> NDArray[np.float64]:
    """Return p-values for which the chance of even one false finding is kept, in the order given.

    Source:
        Holm (1979): of k, the i-th smallest (from 1) times k - i + 1, never below a smaller one's, at most 1.
    """
    return _ordered(p_values, lambda p: np.maximum.accumulate(p * np.arange(len(p), 0, -1)))


def benjamini_hochberg(p_values: ArrayLike) -> NDArray[np.float64]:
    """Return p-values for which the expected share of false ones among the findings is kept, in the order given.

    Source:
        Benjamini and Hochberg (1995): of k, the i-th smallest (from 1) times k / i, never above a larger one's.
    """

    def adjusted(p: NDArray[np.float64]) -> NDArray[np.float64]:
        raised = p * len(p) / np.arange(1, len(p) + 1)
        lowest: NDArray[np.float64] = np.minimum.accumulate(raised[::-1])[::-1]
        return lowest

    return _ordered(p_values, adjusted)


def _ordered(p_values: ArrayLike, adjust: Callable[[NDArray[np.float64]], NDArray[np.float64]]) -> NDArray[np.float64]:
    given = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(given, kind="stable")
    result = np.empty_like(given)
    result[order] = np.minimum(1.0, adjust(given[order]))
    return result
