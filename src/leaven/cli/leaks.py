"""Which columns know the outcome already, so that no request can carry them?"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from leaven.cli.sample import Column, Sample
from leaven.errors import BadDefinition
from leaven.stats.metrics import roc_auc
from leaven.storage.tabular import quoted

LATER_WORDS = {
    "label", "outcome", "closed", "end", "ended", "arrival", "arrived", "delivered", "finished", "paid", "updated",
    "resolved", "feedback", "converted",
}  # fmt: skip
_TELLS = 0.97  # a single column that ranks the outcomes this well knows them


def leaks(sample: Sample, label: str, names: Sequence[str]) -> dict[str, str]:
    """Return those of the columns that seem to be known only with the outcome, each with the reason."""
    outcome = sample.columns[label]
    numeric = [name for name in names if sample.columns[name].kind in ("integer", "real", "truth")]
    found = {name: why for name in names if (why := _missing_together(sample, outcome, sample.columns[name]))}
    late = [name for name in names if sample.columns[name].kind == "time" and words(name) & LATER_WORDS]
    found |= dict.fromkeys(late, "a time after the one of the request cannot be known then")
    if outcome.kind == "text":  # classes, which no column can rank
        return found
    values = sample.numbers(label, *numeric)
    target = values.pop(label)
    binary = outcome_bound(sample, label) is not None
    for one, other in [] if binary else combinations(values, 2):
        if _adds_up(values[one], values[other], target):
            found |= {one: f"with {other} it adds up to {label}", other: f"with {one} it adds up to {label}"}
    told = {name: _tells(target, column, binary=binary) for name, column in values.items()}
    return {name: why for name, why in told.items() if why} | found


def _adds_up(one: NDArray[np.float64], other: NDArray[np.float64], total: NDArray[np.float64]) -> bool:
    few = slice(100)  # nearly all pairs are told apart by their first rows
    if not np.array_equal(one[few] + other[few], total[few], equal_nan=True):
        return False
    return np.array_equal(one + other, total, equal_nan=True)


def outcome_bound(sample: Sample, label: str) -> float | None:
    """Return the bound between the two values of an outcome, or None for a number to be predicted.

    Raises:
        BadDefinition: the column holds neither numbers nor truth values.
    """
    column = sample.columns[label]
    if column.kind not in ("integer", "real", "truth"):
        what = f"column {label!r} holds {column.sql_type.lower()}, which no learner here predicts"
        raise BadDefinition(str(sample.path), what, "Name a column of numbers or truth values with --label.")
    if column.kind == "truth":
        return 0.5
    exact = sample.value(f"count(DISTINCT {quoted(label)})") if column.distinct <= 3 else 3
    return (float(column.low) + float(column.high)) / 2 if exact == 2 else None


def _missing_together(sample: Sample, outcome: Column, column: Column) -> str:
    """A column whose gaps, or whose value, say that there is no outcome was filled in when the outcome was."""
    unlabelled = outcome.rows - outcome.known
    if not unlabelled:
        return ""
    name, label = quoted(column.name), quoted(outcome.name)
    constant = sample.value(f"count(DISTINCT {name}) FILTER ({label} IS NOT NULL)") < 2 <= column.distinct
    if constant:
        return f"it differs only where {outcome.name} is unknown"
    gaps = outcome.rows - column.known
    both = sample.value(f"count(*) FILTER ({name} IS NULL AND {label} IS NULL)")
    return f"it is missing where {outcome.name} is" if gaps and both >= 0.9 * gaps and both >= 0.5 * unlabelled else ""


def _tells(target: NDArray[np.float64], column: NDArray[np.float64], *, binary: bool) -> str:
    both = ~np.isnan(target) & ~np.isnan(column)
    outcome, given = target[both], column[both]
    if both.sum() < 50 or outcome.std() == 0 or given.std() == 0:
        return ""
    if binary:
        ranked = roc_auc((outcome > outcome.mean()).astype(np.float64), given).estimate
        strength, how = max(ranked, 1 - ranked), "it ranks the outcomes with AUC"
    else:
        strength, how = abs(float(np.corrcoef(outcome, given)[0, 1])), "its correlation with the outcome is"
    return f"alone {how} {strength:.3f}" if strength > _TELLS else ""


def words(name: str) -> set[str]:
    """Return the words of a column's name: `eventTime` and `event_time` are event and time."""
    return set(re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", name).lower().replace("-", "_").replace(" ", "_").split("_"))
