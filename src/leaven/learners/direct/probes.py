"""Which rows show whether two ways to answer are the same?

Plain rows of many magnitudes, rows with gaps and unknown categories, rows at the very values where a model's answer
changes and next to them, and one row each for whatever a library refuses.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from leaven.learners.guards import Inputs
from leaven.training.encoding import Matrix

MANY_ROWS, MOST_ALONE = 192, 48
_USUAL = np.array([0.1, 1.0, 10.0, 100.0])
_ANY = np.logspace(-6, 9, 16)
_STRANGE = (np.inf, -np.inf, np.nan, 1e300, -1e300, 1e-300, -0.0, -1.0, 0.5, 1e6, 3.5e38, 2.0**31, 2.0**63)


@dataclass(frozen=True, slots=True)
class Probes:
    """Rows to ask two models for."""

    plain: Matrix  # finite, not far from 1, with known categories
    sizes: Matrix  # the same of many sizes
    unknown: Matrix  # some categories are not known
    gaps: Matrix  # and some values are missing
    alone: Matrix  # each has one strange value in it, and is asked for by itself

    def batches(self) -> Iterator[tuple[str, Matrix]]:
        """Give what is to be asked for in one call, and its name; first the plain rows."""
        yield "plain rows", self.plain
        yield "a plain row by itself", self.plain[:1]
        yield "rows of many sizes", self.sizes
        yield "rows with unknown categories", self.unknown
        yield "rows with gaps", self.gaps
        for row in self.alone:
            yield f"a row {row.tolist()}", row[None, :]


def probes_for(inputs: Inputs, edges: Mapping[int, NDArray[np.float64]], *, seed: int = 0) -> Probes:
    """Return rows that fit a model's inputs.

    Args:
        inputs: Types of the features, and how many categories each has.
        edges: Per column, values that must be among the rows, as they are and a little to either side.
        seed: Of the choice.
    """
    rng = np.random.default_rng(seed)
    counts = [inputs.categories[name][0] if kind == "category" else -1 for name, kind in inputs.features]
    near = {column: _around(values) for column, values in edges.items()}
    plain, sizes, strange = (
        np.column_stack([_column(rng, count, near.get(i), scales) for i, count in enumerate(counts)])
        for scales in (_USUAL, _ANY, _ANY)
    )
    for column, count in enumerate(counts):
        if count >= 0:
            strange[rng.random(MANY_ROWS) < 0.1, column] = count  # the first code that is not known
    gaps = np.where(rng.random(strange.shape) < 0.15, np.nan, strange)
    return Probes(plain, sizes, strange, gaps, _alone(rng, plain, counts))


def _around(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.concatenate([values, np.nextafter(values, -np.inf), np.nextafter(values, np.inf)])


def _column(
    rng: np.random.Generator, categories: int, near: NDArray[np.float64] | None, scales: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Codes where there are categories, else numbers of these sizes; half of them at edges, if there are any."""
    if categories > 0:
        return rng.integers(0, categories, MANY_ROWS).astype(np.float64)
    column: NDArray[np.float64] = rng.normal(size=MANY_ROWS) * rng.choice(scales, MANY_ROWS)
    whole = rng.random(MANY_ROWS) < 0.3
    column[whole] = np.round(column[whole])
    if near is not None and len(near):
        at = rng.random(MANY_ROWS) < 0.5
        column[at] = rng.choice(near, int(at.sum()))
    return column


def _alone(rng: np.random.Generator, rows: Matrix, counts: list[int]) -> Matrix:
    """Plain rows with one strange value each; where there are too many columns for all, some of each kind."""
    places = [(column, float(count)) for column, count in enumerate(counts) if count >= 0][:MOST_ALONE]
    strange = [(column, value) for value in _STRANGE for column in range(len(counts))]
    room = min(len(strange), MOST_ALONE - len(places))
    places += [strange[i] for i in sorted(rng.choice(len(strange), room, replace=False))]
    alone = rows[rng.integers(0, len(rows), len(places))]
    for row, (column, value) in zip(alone, places, strict=True):
        row[column] = value
    return np.vstack([alone, np.full((1, len(counts)), np.nan), np.zeros((1, len(counts)))])
