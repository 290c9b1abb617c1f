"""How slow are the slowest, where the requests of one unit are alike?"""

from __future__ import annotations

import math

import msgspec
import numpy as np
from numpy.typing import NDArray

from leaven.errors import BadDefinition
from leaven.stats.estimate import Estimate

Floats = NDArray[np.float64]

_Z = 1.959963984540054  # how far apart the two quantiles are that show the slope
_CHUNK = 1_000  # units whose counts are held at once


class QuantileCounts(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag=True):
    """Of each of many edges, how many rows lie at or below it, and how that varies over units; counts add up.

    With geometric edges it is a sketch for running sums; with the values themselves as edges it is exact.
    """

    edges: tuple[float, ...]  # rising
    units: int
    rows: int
    row_squares: int  # sum over units of their rows squared
    below: tuple[int, ...]  # per edge: rows at or below
    below_squares: tuple[int, ...]  # sum over units of that count squared
    below_rows: tuple[int, ...]  # sum over units of that count times the unit's rows

    def __add__(self, other: QuantileCounts) -> QuantileCounts:
        if self.edges != other.edges:
            raise BadDefinition("quantile counts", "their edges differ", "Count both with the same edges.")
        return QuantileCounts(
            self.edges, self.units + other.units, self.rows + other.rows, self.row_squares + other.row_squares,
            _added(self.below, other.below), _added(self.below_squares, other.below_squares),
            _added(self.below_rows, other.below_rows),
        )  # fmt: skip

    @property
    def count(self) -> int:
        """The units."""
        return self.units

    def estimate(self, q: float) -> Estimate:
        """Return the quantile `q` over rows with its variance over units; NaN where the edges do not reach.

        Source:
            Deng, Knoblich and Lu (KDD 2018), section 3, and Yao et al. (arXiv 2401.14549), algorithm 1: with sigma the
            clustered standard error of F(quantile), the standard error is (x(q + z sigma) - x(q - z sigma)) / (2 z);
            sigma^2 of the ratio sum c_i / sum n_i by the delta method, c_i the unit's rows at or below.
        """
        if self.units < 2 or not self.rows:
            return Estimate(math.nan, math.nan, self.units)
        share, sigma = np.array(self.below) / self.rows, self._sigma()
        value, own = self._at(q, share), float(np.interp(q, share, sigma))
        low, high = self._at(q - _Z * own, share), self._at(q + _Z * own, share)
        return Estimate(value, ((high - low) / (2 * _Z)) ** 2, self.units)

    def _sigma(self) -> Floats:
        """Clustered standard error of the share of rows at or below each edge."""
        share = np.array(self.below) / self.rows
        squares = np.array(self.below_squares, dtype=np.float64)
        apart = squares - 2 * share * np.array(self.below_rows) + share**2 * self.row_squares
        sigma: Floats = np.sqrt(np.maximum(0, apart) * self.units / (self.units - 1)) / self.rows
        return sigma

    def _at(self, q: float, share: Floats) -> float:
        if not share[0] <= q <= share[-1] or q >= 1:
            return math.nan
        after = int(np.searchsorted(share, q))
        if after == 0 or share[after] == q:
            return self.edges[after]
        before = after - 1
        part = (q - share[before]) / (share[after] - share[before])
        return float(self.edges[before] + part * (self.edges[after] - self.edges[before]))


def geometric_edges(low: float, high: float, *, precision: float = 0.01) -> tuple[float, ...]:
    """Return edges from `low` to `high`, each larger than the one before by the factor 1 + precision; 0 comes first."""
    count = math.ceil(math.log(high / low) / math.log1p(precision))
    return (0.0, *(low * (1 + precision) ** np.arange(count + 1)).tolist())


def edges_near(values: Floats, q: float) -> tuple[float, ...]:
    """Return up to 3,000 of the values as edges: a third all over, the others close to the quantile `q`."""
    if not len(values):
        return ()
    near = min(q, 1 - q, 20 * math.sqrt(q * (1 - q) / len(values)))
    places = np.concatenate([np.linspace(0, 1, 1_000), np.linspace(q - near, q + near, 2_000)])
    return tuple(np.unique(np.quantile(values, places, method="inverted_cdf")).tolist())


def quantile_counts(values: Floats, unit: NDArray[np.int64], edges: tuple[float, ...]) -> QuantileCounts:
    """Return the counts of rows, each of a unit.

    Args:
        values: Shape (rows,), no NaN.
        unit: Shape (rows,), the number of each row's unit, from 0 and with no unit left out.
        edges: Rising.
    """
    place = np.searchsorted(np.array(edges), values)  # the first edge at or above; a row beyond all is below none
    order = np.argsort(unit, kind="stable")
    unit, place = unit[order], place[order]
    units = int(unit[-1]) + 1 if len(unit) else 0
    rows = np.bincount(unit, minlength=units)
    sums = np.zeros((3, len(edges)), dtype=np.int64)
    for first in range(0, units, _CHUNK):
        start, stop = np.searchsorted(unit, [first, first + _CHUNK])
        size = min(_CHUNK, units - first)
        cells = (unit[start:stop] - first) * (len(edges) + 1) + place[start:stop]
        counts = np.bincount(cells, minlength=size * (len(edges) + 1)).reshape(size, -1)[:, :-1].cumsum(axis=1)
        own = rows[first : first + size]
        sums += np.stack([counts.sum(axis=0), (counts * counts).sum(axis=0), own @ counts])
    below, squares, products = (tuple(each.tolist()) for each in sums)
    return QuantileCounts(edges, units, len(values), int((rows * rows).sum()), below, squares, products)


def _added(one: tuple[int, ...], other: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(a + b for a, b in zip(one, other, strict=True))
