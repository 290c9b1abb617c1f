"""What does a matrix hold, for code that knows features by name?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leaven.training.encoding import Encoder, Matrix

Columns = dict[str, NDArray[Any]]


def named_columns(matrix: Matrix, encoder: Encoder, texts: Mapping[str, NDArray[np.object_]] | None = None) -> Columns:
    """Return the columns by feature name, in feature order.

    Numbers and truth values are float64, NaN where missing; categories are text, None where missing or not known;
    features of text are as `texts` has them, empty where missing.
    """
    columns: Columns = {
        name: _texts(matrix[:, index], encoder.categories[name]) if kind == "category" else matrix[:, index]
        for index, (name, kind, _) in enumerate(encoder.features)
    }
    return columns | dict(texts) if texts else columns


def _texts(codes: NDArray[np.float64], known: tuple[str, ...]) -> NDArray[Any]:
    texts = np.array([*known, None], dtype=object)
    missing = ~(codes < len(known))  # NaN as well
    found: NDArray[Any] = texts[np.where(missing, len(known), codes).astype(np.intp)]
    return found
