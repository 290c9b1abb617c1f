"""How far apart are two rows, by their features?

Numbers are measured in standard deviations; two different categories are as far apart as numbers one standard deviation
apart; a missing value is its own category, or, of a number, its mean and a mark that it is missing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from leaven.events.columns import Column
from leaven.loop import Schema
from leaven.training.encoding import encoder_for

Floats = NDArray[np.float64]
MOST = 64  # categories of one feature that are told apart; the rarer ones count as one


def feature_space(schema: Schema, columns: Mapping[str, Column], *, rows: int) -> Floats:
    """Return the rows as points, shape (rows, dimensions), dimensions with no spread left out.

    Args:
        schema: The loop's features; others, and text, are left out.
        columns: Arrays of `rows` values by feature name.
        rows: How many there are.
    """
    if not rows or not columns:
        return np.zeros((rows, 0))
    matrix = encoder_for(schema, columns).encode(columns)
    found: list[Floats] = []
    for index, (_, kind, _) in enumerate(schema.features):
        if kind == "text":  # its words lie in no few dimensions
            continue
        column = matrix[:, index]
        found += _categories(column) if kind == "category" else _number(column)
    return np.stack(found, axis=1) if found else np.zeros((rows, 0))


def _number(column: Floats) -> list[Floats]:
    missing = np.isnan(column)
    told = column[~missing]
    spread = float(told.std()) if len(told) else 0.0
    out = [np.where(missing, 0.0, (column - told.mean()) / spread)] if spread > 0 else []
    return [*out, missing.astype(np.float64)] if missing.any() and not missing.all() else out


def _categories(column: Floats) -> list[Floats]:
    codes = np.where(np.isnan(column), -1.0, column)
    counted = [code for code, _ in Counter(codes.tolist()).most_common()]
    if len(counted) < 2:
        return []
    rare = ~np.isin(codes, counted[:MOST])
    marks = [(codes == code).astype(np.float64) for code in counted[:MOST]]
    # Two rows of different categories differ in two marks: 1 / sqrt(2) in each makes their distance 1.
    return [mark / np.sqrt(2) for mark in ([*marks, rare.astype(np.float64)] if rare.any() else marks)]
