"""Are the features that were served those that one would compute now?

Training reads what was served and logged, so a feature that is computed otherwise elsewhere cannot spoil it. But what
the application computed wrongly, late, or with knowledge of later is logged as it was: computing it again shows it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from math import isfinite
from typing import Any

import msgspec

from leaven.events.records import FeatureValue
from leaven.loop import FeatureType
from leaven.training.encoding import as_category

MOST_EXAMPLES = 3


class Served(msgspec.Struct, frozen=True):
    """One prediction with the features that it was made from, by name."""

    prediction: str
    unit: str
    at: datetime
    features: dict[str, FeatureValue]


class Mismatch(msgspec.Struct, frozen=True):
    """A value that is another one when it is computed again."""

    prediction: str
    unit: str
    at: datetime
    served: FeatureValue
    recomputed: FeatureValue


class FeatureParity(msgspec.Struct, frozen=True):
    """How often one feature is another one when it is computed again."""

    feature: str
    compared: int
    differ: int
    largest: float | None  # relative difference of two numbers; None where there are no two
    examples: list[Mismatch]  # the first few

    @property
    def share(self) -> float:
        """Share of the rows that differ, in [0, 1]."""
        return self.differ / self.compared if self.compared else 0.0


def parity(
    served: Sequence[Served],
    recomputed: Sequence[Mapping[str, Any]],
    *,
    types: Mapping[str, FeatureType],
    tolerance: float = 1e-6,
) -> list[FeatureParity]:
    """Return, for each feature that was computed again, how often it differs; in the order of `types`.

    Args:
        served: What was served.
        recomputed: For each of these, the features that could be computed again; any may be left out.
        types: Of the loop's features.
        tolerance: Up to this share of the larger of two numbers they count as equal. 0 or more.
    """
    found = []
    for name, kind in types.items():
        pairs = [(one, one.features.get(name), again[name]) for one, again in zip(served, recomputed, strict=True)
                 if name in again]  # fmt: skip
        if pairs:
            found.append(_feature(name, kind, pairs, tolerance))
    return found


def as_told(given: Any, kind: FeatureType) -> FeatureValue:
    """Return a value out of a column of the log as a request told it: of its type, None where it is missing."""
    if given is None or given != given:
        return None
    if kind in ("category", "text"):
        return as_category(given)
    try:
        number = float(given)
    except (TypeError, ValueError):
        return str(given)  # of a time when the feature was text
    if kind == "float":
        return number
    return bool(number) if kind == "bool" else int(number) if number.is_integer() else number


def _feature(
    name: str, kind: FeatureType, pairs: Sequence[tuple[Served, FeatureValue, Any]], tolerance: float
) -> FeatureParity:
    gaps = [_gap(old, as_told(new, kind)) for _, old, new in pairs]
    differ = [index for index, gap in enumerate(gaps) if gap is None or gap > tolerance]
    numbers = [gap for gap in gaps if gap is not None]
    examples = [
        Mismatch(one.prediction, one.unit, one.at, old, as_told(new, kind))
        for one, old, new in (pairs[index] for index in differ[:MOST_EXAMPLES])
    ]
    largest = max(numbers) if numbers and kind not in ("category", "text") else None
    return FeatureParity(name, len(pairs), len(differ), largest, examples)


def _gap(old: FeatureValue, new: FeatureValue) -> float | None:
    """Relative difference of two numbers, 0 of equal values, None of others that are not the same."""
    if old == new:
        return 0.0
    if old is None or new is None or isinstance(old, str) or isinstance(new, str):
        return None
    gap = abs(old - new) / max(abs(old), abs(new))
    return gap if isfinite(gap) else None
