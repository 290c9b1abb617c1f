"""What does a value that was sent become for its feature?

Numbers become float64 for the model and stay what they are for the log; categories become text. Where a value is
missing, unknown or does not fit, the feature's rule in the loop file says whether the request is refused or the
feature's default stands in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leaven.events.records import FeatureValue
from leaven.gateway.answering import Columns
from leaven.loop import FeatureRule, FeatureType, Schema
from leaven.training.encoding import BadFeature, UnknownCategory, as_category

Given = list[Any] | NDArray[Any]
Sent = tuple[str, Given]  # "bool", "int", "float", "text", or "mixed"; and the values
Values = dict[str, Sequence[FeatureValue]]  # by feature, as they are logged


def columns_of(sent: Mapping[str, Sent], schema: Schema, count: int) -> tuple[Columns, Values]:
    """Return `count` rows as models take them, and as they are logged.

    Args:
        sent: By feature, `count` values each; features that are not there are missing in every row.
        schema: Of the loop.
        count: Rows.
    Raises:
        BadFeature: a required feature is missing, or a value does not fit its feature and is not to be replaced.
    """
    columns: Columns = {}
    values: Values = {}
    for name, kind, required in schema.features:
        rule, given = schema.rules.get(name), sent.get(name)
        if given is None:
            if required:
                raise BadFeature(name, kind, None)
            if rule is None or rule.default is None:
                continue
            given = ("mixed", [None] * count)
        if rule is None:
            columns[name], values[name] = _CONVERT[kind](name, *given)
        else:
            columns[name], values[name] = _by_rule(rule, name, kind, *given)
        if required and None in values[name]:
            raise BadFeature(name, kind, None)
    return columns, values


Converted = tuple[NDArray[Any], Sequence[FeatureValue]]


def _categories(name: str, sent_as: str, values: Given, *, kind: FeatureType = "category") -> Converted:
    texts = list(values.tolist() if isinstance(values, np.ndarray) else values)
    if sent_as != "text":
        for given in texts:
            if (
                isinstance(given, int) and not -(2**63) <= given < 2**64
            ):  # no datatype holds it; its text may be endless
                raise BadFeature(name, kind, given)
        texts = [as_category(given) for given in texts]
    return _objects(texts), texts


def _objects(values: Sequence[Any]) -> NDArray[Any]:
    column = np.empty(len(values), dtype=object)
    column[:] = values
    return column


def _floats(name: str, sent_as: str, values: Given) -> Converted:
    column = _numbers(name, "float", sent_as, values)
    numbers: list[Any] = column.tolist()
    for row, number in enumerate(numbers):
        if number - number != 0.0:  # NaN and the infinities; the cheapest test there is
            if number == number:
                raise BadFeature(name, "float", number)
            numbers[row] = None
    return column, numbers


def _ints(name: str, sent_as: str, values: Given) -> Converted:
    column = _numbers(name, "int", sent_as, values)
    numbers = list(values.tolist() if isinstance(values, np.ndarray) else values)
    for row, number in enumerate(numbers):
        if number != number:
            numbers[row] = None
        elif number is not None:
            if not _fits_64_bits(number) or number != int(number):
                raise BadFeature(name, "int", number)
            numbers[row] = int(number)
    return column, numbers


def _bools(name: str, sent_as: str, values: Given) -> Converted:
    column = _numbers(name, "bool", sent_as, values)
    flags: list[Any] = []
    for number in column.tolist():
        if number not in (0.0, 1.0) and number == number:
            raise BadFeature(name, "bool", number)
        flags.append(None if number != number else number == 1.0)
    return column, flags


_CONVERT: dict[str, Callable[[str, str, Given], Converted]] = {
    "category": _categories,
    "text": partial(_categories, kind="text"),
    "float": _floats,
    "int": _ints,
    "bool": _bools,
}


def _numbers(name: str, kind: str, sent_as: str, values: Given) -> NDArray[np.float64]:
    """The values as float64; None as NaN."""
    if sent_as in ("text", "mixed"):
        texts = [value for value in values if isinstance(value, str)]
        if texts or sent_as == "text":
            raise BadFeature(name, kind, texts[0] if texts else "")
    try:
        return np.array(values, dtype=np.float64)
    except OverflowError:
        raise BadFeature(name, kind, max(values, key=abs)) from None


def _fits_64_bits(number: Any) -> bool:
    """Whether the log and the lake can hold it as an integer; NaN, which stands for nothing, counts as fitting."""
    return number is None or isinstance(number, str) or number != number or -(2**63) <= number < 2**63


def _by_rule(rule: FeatureRule, name: str, kind: FeatureType, sent_as: str, values: Given) -> Converted:
    """Values of a feature that has a rule: unfitting ones are refused or replaced, missing ones replaced."""
    try:
        _, kept = _CONVERT[kind](name, sent_as, values)
    except BadFeature:
        if rule.invalid == "refuse":
            raise
        kept = [_fitting(name, kind, value) for value in values]
    if rule.values:
        kept = [_known(rule, name, value) for value in kept]
    if rule.default is not None:
        kept = [rule.default if value is None else value for value in kept]
    if kind in ("category", "text"):
        return _objects(kept), kept
    return np.array([np.nan if value is None else float(value) for value in kept]), kept


def _fitting(name: str, kind: FeatureType, value: Any) -> FeatureValue:
    """The value if it fits its feature alone, else None."""
    try:
        return _CONVERT[kind](name, "text" if isinstance(value, str) else "number", [value])[1][0]
    except BadFeature:
        return None


def _known(rule: FeatureRule, name: str, value: FeatureValue) -> FeatureValue:
    """The value if the loop file knows it, or None where it is missing or may be replaced.

    An empty text is missing, as far as it is none of the categories: tensors of BYTES have no other way to say so.
    """
    if value is None or value in rule.values:
        return value
    if value == "":
        return None
    if rule.invalid == "refuse":
        raise UnknownCategory(name, rule.values, value)
    return None
