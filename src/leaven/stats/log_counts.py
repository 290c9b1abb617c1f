"""How are sizes spread that differ by orders of magnitude, in counts that add up?"""

from __future__ import annotations

import math

import msgspec
import numpy as np
from numpy.typing import NDArray

PER_FACTOR = 3  # bins in which a size grows by the factor 1.5
_STEP = math.log(1.5) / PER_FACTOR  # so a bin is 14 % wide
_LEAST, _MOST = 1e-9, 1e12  # smaller is as good as nothing


class LogCounts(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Counts of sizes by bins of one fixed grid: bin k holds 1.5^(k/3) up to 1.5^((k+1)/3)."""

    nothing: int = 0  # sizes of 0, or as good as that
    first: int = 0  # number of the bin that `counts` begins with
    counts: tuple[int, ...] = ()  # neither begins nor ends with 0

    def __add__(self, other: LogCounts) -> LogCounts:
        if not self.counts or not other.counts:
            kept = self if self.counts else other
            return LogCounts(self.nothing + other.nothing, kept.first, kept.counts)
        first = min(self.first, other.first)
        both = np.zeros(max(each.first + len(each.counts) for each in (self, other)) - first, dtype=np.int64)
        for each in (self, other):
            both[each.first - first :][: len(each.counts)] += each.counts
        return LogCounts(self.nothing + other.nothing, first, tuple(both.tolist()))

    @property
    def total(self) -> int:
        """How many were counted."""
        return self.nothing + sum(self.counts)

    def from_bin(self, bins: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return how many lie in bin number `bins` or above, for each."""
        ends = np.concatenate([np.cumsum(self.counts[::-1], dtype=np.int64)[::-1], [0]])
        above: NDArray[np.int64] = ends[np.clip(bins - self.first, 0, len(self.counts))]
        return above

    def quantile(self, q: float) -> float:
        """Return the quantile `q`, to within a bin, evenly on the log scale inside of one; NaN of nothing."""
        if not self.total:
            return math.nan
        rank, below = q * self.total, self.nothing
        for place, count in enumerate(self.counts):
            if count and below + count >= rank and rank > self.nothing:
                return math.exp(_STEP * (self.first + place + (rank - below) / count))
            below += count
        return 0.0


def log_counts(sizes: NDArray[np.float64]) -> LogCounts:
    """Return the counts of some sizes, none of them NaN; negative ones count as 0."""
    some = sizes[sizes > _LEAST]
    if not len(some):
        return LogCounts(len(sizes))
    bins = np.floor(np.log(np.minimum(some, _MOST)) / _STEP).astype(np.int64)
    first = int(bins.min())
    return LogCounts(len(sizes) - len(some), first, tuple(np.bincount(bins - first).tolist()))


def bin_of(size: float) -> int:
    """Return the number of the first bin that holds nothing below `size`, which is positive."""
    return math.ceil(math.log(size) / _STEP - 1e-9)
