"""What do events look like as rows of the lake, and which column keeps a feature?

Each loop has two tables. Beside the fields of the event records they have `seq` (the row's number in the table, in
commit order) and `day` (UTC date of `at`, the partition). A feature `x` is kept in the column `f_x`, whose type is
that of the first value it ever had. A column's type never changes, so old rows are never rewritten: a later value of
another type goes into `f_x` where that loses nothing, and else into a column beside it (`f_x$string`). Readers put
the columns together again.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b
from typing import Any, Literal
from urllib.parse import quote, unquote

import numpy as np
from arro3.core import Array, DataType, Field, Schema, Table, list_array

from leaven.events.records import Event, FeatureValue, PredictionServed

Kind = Literal["string", "double", "long", "boolean"]  # as Delta Lake calls them
TableName = Literal["predictions", "feedback", "tombstones"]
Columns = dict[str, tuple[DataType, list[Any]]]

PROBABILITIES = "probabilities"  # the column of those of each class; only tables of loops with classes have it
LAST_MOMENT = 253_402_300_799_999_999  # the end of the year 9999, in microseconds
MICROS_PER_DAY = 86_400_000_000

_LOOP = re.compile(r"[a-z][a-z0-9_-]{0,62}")
_EXACT = 2**53  # integers up to here are exact as doubles
_TEXT, _NUMBER, _WHOLE = DataType.utf8(), DataType.float64(), DataType.int64()
_NUMBERS = DataType.list(Field("item", _NUMBER, nullable=True))
_TIME, _DATE = DataType.timestamp("us", tz="UTC"), DataType.date32()
_KIND_OF: Mapping[type, Kind] = {str: "string", float: "double", int: "long", bool: "boolean"}
_ARROW: Mapping[Kind, DataType] = {"string": _TEXT, "double": _NUMBER, "long": _WHOLE, "boolean": DataType.bool()}


def table_of(event: Event) -> TableName:
    """Return the name of the table that keeps `event`."""
    return "predictions" if isinstance(event, PredictionServed) else "feedback"


def fault(event: Event) -> str | None:
    """Return why `event` cannot be a row, or None if it can."""
    if not _LOOP.fullmatch(event.loop):
        return f"{event.loop!r} is no name of a loop"
    times = [event.at] if isinstance(event, PredictionServed) else [event.at, event.received_at]
    if not all(0 <= time <= LAST_MOMENT for time in times):
        return f"its time {times} lies outside the years 1970 to 9999"
    return None


def table_from(events: Sequence[Event], *, first_seq: int, kinds: Mapping[str, Kind]) -> Table:
    """Return the events of one table as Arrow columns.

    Args:
        events: All predictions or all feedback.
        first_seq: `seq` of the first; the others follow.
        kinds: Feature columns that the table has already, with their types.
    """
    at = [event.at for event in events]
    numbered = (list(range(first_seq, first_seq + len(events))), [time // MICROS_PER_DAY for time in at], at)
    columns: Columns = {name: (kind, values) for (name, kind), values in zip(_NUMBERED, numbered, strict=True)}
    served = [event for event in events if isinstance(event, PredictionServed)]
    for column, kind, field in _PREDICTIONS if served else _FEEDBACK:
        columns[column] = (kind, [getattr(event, field) for event in events])
    if served:
        columns |= _answers([event.answer for event in served])
        columns |= feature_columns([event.features for event in served], kinds)
    return _arrow(columns)


def _answers(answers: Sequence[float | tuple[float, ...] | None]) -> Columns:
    """The column of numbers; and, where answers are probabilities of classes, these beside it: the number is then the
    place of the likeliest."""  # fmt: skip
    several = [list(answer) if isinstance(answer, tuple) else None for answer in answers]
    if not any(several):
        return {}
    likeliest = [answer.index(max(answer)) if isinstance(answer, tuple) else answer for answer in answers]
    return {"answer": (_NUMBER, likeliest), PROBABILITIES: (_NUMBERS, several)}


# Column, type, field of the record. Times and dates are given as the integers that Arrow keeps them as.
_PREDICTIONS: tuple[tuple[str, DataType, str], ...] = (
    ("id", _TEXT, "id"),
    ("unit", _TEXT, "unit"),
    ("role", _TEXT, "role"),
    ("arm", _TEXT, "arm"),
    ("version", _TEXT, "version"),
    ("propensity", _NUMBER, "propensity"),
    ("answer", _NUMBER, "answer"),
    ("seconds", _NUMBER, "seconds"),
    ("revision", _WHOLE, "table"),
    ("error", _TEXT, "error"),
)
_FEEDBACK: tuple[tuple[str, DataType, str], ...] = (
    ("id", _TEXT, "id"),
    ("name", _TEXT, "name"),
    ("received_at", _TIME, "received_at"),
    ("kind", _TEXT, "kind"),
    ("prediction", _TEXT, "prediction"),
    ("unit", _TEXT, "unit"),
    ("value", _NUMBER, "value"),
    ("source", _TEXT, "source"),
)
# What is left of an erased row, or of those of a dropped day; `at` is when that was done (`leaven.storage.tombstones`).
_TOMBSTONES: tuple[tuple[str, DataType, str], ...] = (
    ("table", _TEXT, "table"),
    ("first_row", _WHOLE, "first_row"),
    ("last_row", _WHOLE, "last_row"),
    ("rows", _WHOLE, "rows"),
    ("first_at", _TIME, "first_at"),
    ("last_at", _TIME, "last_at"),
    ("why", _TEXT, "why"),
    ("request", _TEXT, "request"),
    ("key", _TEXT, "key"),
)
_NUMBERED: tuple[tuple[str, DataType], ...] = (("seq", _WHOLE), ("day", _DATE), ("at", _TIME))


def tombstones_table(stones: Sequence[Any], *, first_seq: int, at: int, day: int) -> Table:
    """Return tombstones as Arrow columns; they are numbered as events are."""
    count = len(stones)
    numbered = (list(range(first_seq, first_seq + count)), [day] * count, [at] * count)
    columns: Columns = {name: (kind, values) for (name, kind), values in zip(_NUMBERED, numbered, strict=True)}
    columns |= {column: (kind, [getattr(stone, field) for stone in stones]) for column, kind, field in _TOMBSTONES}
    return _arrow(columns)


def base_schema(name: TableName) -> Schema:
    """Return the columns of a table that has no features yet."""
    fields = {"predictions": _PREDICTIONS, "feedback": _FEEDBACK, "tombstones": _TOMBSTONES}[name]
    columns = (*_NUMBERED, *((column, kind) for column, kind, _ in fields))
    return Schema([Field(column, kind, nullable=True) for column, kind in columns])


def _arrow(columns: Columns) -> Table:
    arrays, fields = [], []
    for name, (kind, values) in columns.items():
        plain = _WHOLE if kind == _TIME else DataType.int32() if kind == _DATE else kind
        array = number_lists(values) if plain == _NUMBERS else Array(values, plain)
        arrays.append(array if plain == kind else array.cast(kind))
        fields.append(Field(name, kind, nullable=True))
    return Table.from_arrays(arrays, schema=Schema(fields))


def number_lists(values: Sequence[Sequence[float] | None]) -> Array:
    """Return lists of numbers as Arrow has them; None is a list that is missing."""
    ends = np.cumsum([0, *(0 if each is None else len(each) for each in values)])
    flat = Array([number for each in values if each is not None for number in each], _NUMBER)
    missing = Array([each is None for each in values], DataType.bool())
    return list_array(Array(ends.tolist(), DataType.int32()), flat, type=_NUMBERS, mask=missing)


def feature_columns(rows: Sequence[Mapping[str, FeatureValue] | None], kinds: Mapping[str, Kind]) -> Columns:
    """Return the columns that keep these rows' features, given the types of the columns there are."""
    given = [row or {} for row in rows]
    columns: Columns = {}
    for name in {name: None for row in given for name in row}:
        values = [row.get(name) for row in given]
        for column, (kind, kept) in _spread(name, values, kinds).items():
            columns[column] = (_ARROW[kind], kept)
    return columns


def _spread(name: str, values: list[FeatureValue], kinds: Mapping[str, Kind]) -> dict[str, tuple[Kind, list[Any]]]:
    """Put each value of one feature into the column that can keep it."""
    classes = set(map(type, values)) - {type(None)}
    if not classes:
        return {}
    main = feature_column(name)
    if classes == {int}:
        present = {_kind(value) for value in values if value is not None}
    else:
        present = {_KIND_OF[each] for each in classes}
    kind = kinds.get(main)
    if kind is None:
        first = next(value for value in values if value is not None)
        kind = "double" if present == {"long", "double"} else _kind(first)
    if present == {kind}:  # as nearly always
        return {main: (kind, values)}
    out: dict[str, tuple[Kind, list[Any]]] = {}
    for row, value in enumerate(values):
        if value is None:
            continue
        kept, column, of = _as_kind(value, kind), main, kind
        if kept is None:
            of = _kind(value)
            kept, column = _as_kind(value, of), feature_column(name, beside=of)
        if column not in out:
            out[column] = (of, [None] * len(values))
        out[column][1][row] = kept
    return out


def _kind(value: FeatureValue) -> Kind:
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int):
        return "long" if -(2**63) <= value < 2**63 else "double"
    return "double" if isinstance(value, float) else "string"


def _as_kind(value: FeatureValue, kind: Kind) -> FeatureValue:
    """The value as a column of `kind` keeps it, or None if that would lose something."""
    if isinstance(value, str) or kind == "string":
        return value if isinstance(value, str) and kind == "string" else None
    if value is None or isinstance(value, bool) or kind == "boolean":
        return value if kind == "boolean" and isinstance(value, bool) else None
    if kind == "double":
        exact = isinstance(value, float) or abs(value) <= _EXACT or _kind(value) == "double"
        return float(value) if exact else None
    if isinstance(value, int):
        return value if _kind(value) == "long" else None
    return int(value) if value.is_integer() and abs(value) <= _EXACT else None


def feature_column(name: str, *, beside: Kind | None = None) -> str:
    """Return the column that keeps feature `name`, or the one beside it for values of another kind.

    Letters, digits, `_` and `-` stay as they are, the rest is percent-encoded (Delta Lake forbids some characters in
    column names). Engines take column names without regard to case, so a name with capitals gets a mark of its own:
    "A" and "a" stay two features.
    """
    mark = f"~{blake2b(name.encode(), digest_size=4).hexdigest()}" if name != name.lower() else ""
    column = f"f_{quote(name, safe='').replace('.', '%2E').replace('~', '%7E')}{mark}"
    return f"{column}${beside}" if beside is not None else column


def feature_name(column: str) -> str:
    """Return the feature that a column keeps."""
    return unquote(column.removeprefix("f_").split("$")[0].split("~")[0])


def features_in(columns: Iterable[str]) -> dict[str, list[str]]:
    """Return, by feature, those of `columns` that keep it: the main one first."""
    found: dict[str, list[str]] = {}
    for column in sorted(columns):
        if column.startswith("f_"):
            found.setdefault(feature_name(column), []).append(column)
    return found
