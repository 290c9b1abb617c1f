"""What was asked, and what came of it, according to a file of the past?"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leaven.errors import BadDefinition
from leaven.events.labels import Happens
from leaven.loop import Loop
from leaven.storage.data_file import opened
from leaven.storage.incoming import place_of
from leaven.storage.tabular import quoted
from leaven.training.encoding import as_category

_ROW = '"leaven: row of the file"'  # beside the file's own columns, whatever these are called
_FRACTIONAL = ("FLOAT", "DOUBLE")


@dataclass(frozen=True, slots=True)
class History:
    """Requests with their outcomes, oldest first; all arrays have one length."""

    at: NDArray[Any]  # datetime64[us], when the prediction was needed
    label_at: NDArray[Any]  # datetime64[us], when the outcome became known; NaT where it never did
    outcome: NDArray[np.float64]  # what was reported, NaN where nothing was
    unit: NDArray[Any]  # object of str
    features: dict[str, NDArray[Any]]  # as the loop types them

    def __len__(self) -> int:
        return len(self.at)


def read_history(path: Path, loop: Loop, *, time: str, label_time: str | None) -> History:
    """Read the columns that `loop` names from a Parquet or CSV file, with DuckDB.

    Args:
        path: The file.
        loop: Its features, unit and label name the columns; a unit that is no column gives every row its own.
        time: Column of when each prediction was needed; rows without one are refused.
        label_time: Column of when each outcome became known; without it, it is known at once.

    Raises:
        UnreadableFile: there is no such file, or it is neither of the two kinds.
        BadDefinition: a column that is needed is not there or does not hold what it must.
    """
    with opened(path) as connection:
        described = connection.execute("DESCRIBE data").fetchall()
        present = {str(row[0]): str(row[1]) for row in described}
        chosen = _columns(loop, present, time=time, label_time=label_time, where=str(path))
        asked = ", ".join(f"{expression} AS {quoted(name)}" for name, expression in chosen.items())
        numbered = f"SELECT *, row_number() OVER () AS {_ROW} FROM data"  # noqa: S608
        query = f'SELECT {asked} FROM ({numbered}) ORDER BY "at", {_ROW}'  # noqa: S608
        columns: dict[str, Any] = connection.execute(query).fetchnumpy()
    return _history(loop, columns, where=str(path))


def _columns(loop: Loop, present: dict[str, str], *, time: str, label_time: str | None, where: str) -> dict[str, str]:
    """SQL of each column that is read, by the name it gets."""
    needed = [time, loop.label.name, *(feature.name for feature in loop.features)]
    needed += [label_time] if label_time is not None else []
    missing = [name for name in needed if name not in present]
    if missing:
        raise BadDefinition(where, f"it has no column {', '.join(missing)}", f"It has {', '.join(present)}.")
    own = f"'row ' || {_ROW}"  # a request that names no unit is a unit of its own, as in the gateway
    chosen = {
        "at": f"CAST({quoted(time)} AS TIMESTAMP)",
        "label_at": f"CAST({quoted(label_time or time)} AS TIMESTAMP)",
        "outcome": _outcome(loop),
        "unit": f"coalesce(CAST({quoted(loop.unit)} AS VARCHAR), {own})" if loop.unit in present else own,
    }
    for feature in loop.features:
        column, text = (
            quoted(feature.name),
            feature.type in ("category", "text") and present[feature.name] not in _FRACTIONAL,
        )
        column = f"CAST({column} AS BOOLEAN)" if feature.type == "bool" else column
        chosen[f"f_{feature.name}"] = f"CAST({column} AS {'VARCHAR' if text else 'DOUBLE'})"
    return chosen


def _outcome(loop: Loop) -> str:
    if loop.classes:
        text = f"CAST({quoted(loop.label.name)} AS VARCHAR)"
        # One that is none of the classes is found by `_history`, which says so.
        return f"CASE WHEN {text} IS NOT NULL THEN coalesce({place_of(text, loop.classes)}, -1)::DOUBLE END"
    reported = f"CAST({quoted(loop.label.name)} AS DOUBLE)"
    # An event that did not happen is nothing that came back.
    return f"NULLIF({reported}, 0)" if isinstance(loop.label, Happens) else reported


def _history(loop: Loop, columns: dict[str, Any], *, where: str) -> History:
    at = _times(columns["at"])
    if np.isnat(at).any():
        raise BadDefinition(where, f"{int(np.isnat(at).sum())} rows have no time", "Drop them, or name another --time.")
    if loop.classes and (strange := int((_numbers(columns["outcome"]) < 0).sum())):
        what = f"in {strange} rows the label {loop.label.name!r} is none of the classes {', '.join(loop.classes)}"
        raise BadDefinition(where, what, "Add what is missing to Label(…, classes=…), or drop these rows.")
    features = {
        feature.name: (_categories if feature.type in ("category", "text") else _numbers)(columns[f"f_{feature.name}"])
        for feature in loop.features
    }
    return History(at, _times(columns["label_at"]), _numbers(columns["outcome"]), _texts(columns["unit"]), features)


def _times(column: NDArray[Any]) -> NDArray[Any]:
    times = np.ma.getdata(column).astype("datetime64[us]")
    return np.where(np.ma.getmaskarray(column), np.datetime64("NaT", "us"), times)


def _numbers(column: NDArray[Any]) -> NDArray[np.float64]:
    filled: NDArray[np.float64] = np.ma.filled(np.ma.asarray(column).astype(np.float64), np.nan)
    return filled


def _categories(column: NDArray[Any]) -> NDArray[Any]:
    """Categories as text; where gaps made a column of numbers fractional, 7.0 is the 7 that a request would send."""
    if column.dtype.kind != "f":
        return _texts(column)
    texts: NDArray[Any] = np.empty(len(column), dtype=object)
    texts[:] = [as_category(number) for number in _numbers(column).tolist()]
    return texts


def _texts(column: NDArray[Any]) -> NDArray[Any]:
    texts: NDArray[Any] = np.array(np.ma.getdata(column), dtype=object)
    texts[np.ma.getmaskarray(column)] = None
    return texts
