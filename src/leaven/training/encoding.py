"""How do named feature values become the matrix a model takes?

Category maps only ever grow: a code, once given, keeps its meaning for every later version, so a model that is
continued on new data reads old categories as before. A category that is not in the map, like a missing value, is NaN.
A category is text; a number or truth value that stands for one counts as the text that it is in JSON.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from leaven.errors import LeavenError
from leaven.loop import FeatureType, Schema

Matrix = NDArray[np.float64]  # shape (rows, features)
Texts = dict[str, NDArray[np.object_]]  # by feature, shape (rows,)


class BadFeature(LeavenError, ValueError):
    """A value does not fit its feature's type."""

    def __init__(self, feature: str, kind: str, given: object) -> None:
        super().__init__(feature, kind, given)
        self.feature, self.kind, self.given = feature, kind, given

    def __str__(self) -> str:
        one = f"an {self.kind}" if self.kind == "int" else f"a {self.kind}"
        if self.given is None:
            return f"feature {self.feature!r} is required and is missing. Send {one}."
        shown = repr(self.given)
        shown = shown if len(shown) <= 60 else f"{shown[:57]}..."
        return f"feature {self.feature!r} takes {one}, not {shown}. Send {one}, or null if unknown."


class UnknownCategory(BadFeature):
    """A category is none of those that the loop file names."""

    def __init__(self, feature: str, known: Sequence[str], given: object) -> None:
        super().__init__(feature, "category", given)
        self.args = (feature, known, given)
        self.known = known

    def __str__(self) -> str:
        names = ", ".join(self.known[:12]) + (", …" if len(self.known) > 12 else "")
        return f"feature {self.feature!r} knows {names}, not {self.given!r:.60}. Send one of these, or null if unknown."


class Encoder(msgspec.Struct, frozen=True, dict=True):
    """Feature order, types, category maps and classes of one model version; stored with its artifact."""

    features: tuple[tuple[str, FeatureType, bool], ...]
    categories: dict[str, tuple[str, ...]]  # position in the tuple is the code
    classes: tuple[str, ...] = ()  # of the answers, where there are several; they too are only ever added to

    def encode(self, columns: Mapping[str, NDArray[Any]]) -> Matrix:
        """Return the matrix of these columns, shape (rows, features), in feature order; unknown and missing are NaN.

        A text has no number: its column is NaN throughout, and `texts` has what it says.

        Args:
            columns: Arrays of one length, by feature name; categories as objects, numbers as numbers or objects. A
                feature that is not among them is missing in every row.
        """
        rows = len(next(iter(columns.values()))) if columns else 0
        matrix = np.full((rows, len(self.features)), np.nan)
        for index, (name, kind, _) in enumerate(self.features):
            column = columns.get(name)
            if column is None:
                continue
            if kind == "text":
                continue
            if kind == "category":
                codes = self._codes.get(name, {})
                matrix[:, index] = [codes.get(as_category(given), np.nan) for given in column.tolist()]
            else:
                matrix[:, index] = _numbers(column)
        return matrix

    @cached_property
    def reads_text(self) -> bool:
        """Whether a feature is text."""
        return any(kind == "text" for _, kind, _ in self.features)

    def texts(self, columns: Mapping[str, NDArray[Any]]) -> Texts:
        """Return the text features by name, as objects of `str`; a missing text is empty.

        Args:
            columns: As of `encode`.
        """
        rows = len(next(iter(columns.values()))) if columns else 0
        return {name: _written(columns.get(name), rows) for name, kind, _ in self.features if kind == "text"}

    @cached_property
    def _codes(self) -> dict[str, dict[str | None, float]]:
        """Code by category, by feature; made once, because a gateway encodes row by row."""
        return {
            name: {category: float(code) for code, category in enumerate(known)}
            for name, known in self.categories.items()
        }


def _written(column: NDArray[Any] | None, rows: int) -> NDArray[np.object_]:
    """Texts as objects; what is missing is empty, and what is no text is written as one."""
    out = np.full(rows, "", dtype=object)
    if column is not None:
        out[:] = [as_category(given) or "" for given in column.tolist()]
    return out


def _numbers(column: NDArray[Any]) -> NDArray[np.float64]:
    """Numbers as float64; None, and what is no number (as where the feature was text once), is NaN."""
    try:
        return column.astype(np.float64, copy=False)
    except ValueError:
        return np.array([_number(given) for given in column.tolist()], dtype=np.float64)


def _number(given: object) -> float:
    try:
        return float(given)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return np.nan


def as_category(given: object) -> str | None:
    """Return the text of a category, or None where it is missing: 7, 7.0 and "7" are one category, NaN is missing."""
    if isinstance(given, str) or given is None:
        return given
    if isinstance(given, float):
        if np.isnan(given):
            return None
        return str(int(given)) if given.is_integer() else repr(given)
    return str(given).lower() if isinstance(given, bool | np.bool_) else str(given)


def encoder_for(schema: Schema, columns: Mapping[str, NDArray[Any]], *, parent: Encoder | None = None) -> Encoder:
    """Return an encoder that knows the categories of `columns`, after all those of `parent`.

    New categories come after the old ones, in alphabetical order, so the same data gives the same codes.
    """
    categories: dict[str, tuple[str, ...]] = {}
    for name, kind, _ in schema.features:
        if kind != "category":
            continue
        old: Sequence[str] = parent.categories.get(name, ()) if parent is not None else ()
        seen = {as_category(given) for given in set(columns[name].tolist())} if name in columns else set()
        categories[name] = (*old, *sorted(category for category in seen.difference(old) if category is not None))
    return Encoder(schema.features, categories, schema.classes)
