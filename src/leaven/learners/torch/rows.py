"""What does a network take of a row, and what does its output mean?

A number becomes two inputs: how far it lies from the mean that was stored, in standard deviations, and whether it is
missing (it then stands at the mean). A category becomes the row of a table; row 0 is for what is missing or unknown. A
number to be predicted is standardised as well. Means and deviations are those of the rows of the first fit and stay,
so that an update reads its inputs as the parent did.
"""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from leaven.loop import FeatureType
from leaven.training.encoding import Encoder, Matrix

FARTHEST = 20.0  # standard deviations; what lies farther counts as this far, or one wild value would rule the answer
_LARGEST = 1e150  # its square can still be summed
Inputs = tuple[NDArray[np.float64], NDArray[np.int64]]


class Number(msgspec.Struct, frozen=True):
    """How a numeric feature is standardised."""

    mean: float
    scale: float  # above 0


class Part(msgspec.Struct, frozen=True):
    """One feature, as the network takes it: a number, or a category of which it knows `known`."""

    name: str
    column: int  # where it stands in the matrix
    number: Number | None = None
    known: int = 0


class Preparation(msgspec.Struct, frozen=True):
    """All that a network takes, in its own order: a feature that came later stands behind those it had."""

    parts: tuple[Part, ...]
    target: Number  # mean 0 and scale 1 for a class

    @property
    def numbers(self) -> tuple[Part, ...]:
        """The numeric features, each of two inputs."""
        return tuple(part for part in self.parts if part.number is not None)

    @property
    def categories(self) -> tuple[Part, ...]:
        """The categories, each of a table."""
        return tuple(part for part in self.parts if part.number is None)

    def inputs(self, matrix: Matrix) -> Inputs:
        """Return what the network takes of the rows.

        Args:
            matrix: As the encoder gives it, shape (rows, features).
        Returns:
            Numbers, shape (rows, 2 · numeric features), finite; and rows of tables, shape (rows, categories).
        """
        numbers = np.empty((len(matrix), 2 * len(self.numbers)))
        for index, part in enumerate(self.numbers):
            assert part.number is not None  # for the type checker
            column = matrix[:, part.column]
            missing = ~np.isfinite(column)
            scaled = (np.where(missing, part.number.mean, column) - part.number.mean) / part.number.scale
            numbers[:, 2 * index] = np.clip(scaled, -FARTHEST, FARTHEST)
            numbers[:, 2 * index + 1] = missing
        codes = np.zeros((len(matrix), len(self.categories)), dtype=np.int64)
        for index, part in enumerate(self.categories):
            column = matrix[:, part.column]
            known = (column >= 0) & (column < part.known)
            codes[known, index] = column[known].astype(np.int64) + 1
        return numbers, codes

    def scaled(self, label: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return labels as the network is to give them."""
        return (label - self.target.mean) / self.target.scale

    def answers(self, outputs: NDArray[Any]) -> NDArray[np.float64]:
        """Return what the network gave as labels are."""
        return np.asarray(outputs, dtype=np.float64) * self.target.scale + self.target.mean

    def with_features(self, encoder: Encoder, matrix: Matrix) -> Preparation:
        """Return this with all features of `encoder`; of a category that it has, it knows no more than before.

        Args:
            encoder: It holds all features that are here, and perhaps more, in any order.
            matrix: Rows by which new numbers are standardised.
        """
        places = {name: index for index, (name, _, _) in enumerate(encoder.features)}
        kept = tuple(msgspec.structs.replace(part, column=places[part.name]) for part in self.parts)
        have = {part.name for part in self.parts}
        new = tuple(
            _part(name, kind, index, encoder, matrix)
            for index, (name, kind, _) in enumerate(encoder.features)
            if name not in have
        )
        return Preparation((*kept, *new), self.target)

    def with_categories(self, encoder: Encoder) -> Preparation:
        """Return this with all categories that `encoder` knows."""
        parts = tuple(
            part if part.number else msgspec.structs.replace(part, known=len(encoder.categories[part.name]))
            for part in self.parts
        )
        return Preparation(parts, self.target)


def preparation_of(encoder: Encoder, matrix: Matrix, label: NDArray[np.float64], *, task: str) -> Preparation:
    """Return how rows of these features are prepared, by the means and deviations of the rows at hand."""
    target = _number(label) if task == "regression" else Number(0.0, 1.0)
    return Preparation((), target).with_features(encoder, matrix)


def _part(name: str, kind: FeatureType, column: int, encoder: Encoder, matrix: Matrix) -> Part:
    if kind == "category":
        return Part(name, column, known=len(encoder.categories[name]))
    return Part(name, column, _number(matrix[:, column]))


def _number(column: NDArray[np.float64]) -> Number:
    told = np.clip(column[np.isfinite(column)], -_LARGEST, _LARGEST)
    scale = float(told.std()) if len(told) else 0.0
    mean = float(told.mean()) if len(told) else 0.0
    # What never varied is left as it is: a deviation of nothing, or of rounding alone, would blow it up.
    return Number(mean, scale if scale > 1e-12 * max(1.0, abs(mean)) else 1.0)
