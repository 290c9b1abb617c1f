"""How do examples leave the lake?"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from arro3.core import Array, DataType, Table

from leaven.errors import BadDefinition
from leaven.events.columns import Column, Examples
from leaven.stats.answers import decided, given
from leaven.storage.lake import Lake
from leaven.storage.rows import number_lists
from leaven.storage.tabular import literal

_FORMS = {
    ".parquet": "FORMAT PARQUET", ".csv": "FORMAT CSV", ".csv.gz": "FORMAT CSV, COMPRESSION GZIP",
    ".ndjson": "FORMAT JSON", ".jsonl": "FORMAT JSON", ".ndjson.gz": "FORMAT JSON, COMPRESSION GZIP",
    ".jsonl.gz": "FORMAT JSON, COMPRESSION GZIP",
}  # fmt: skip


def export_examples(lake: Lake, examples: Examples, file: Path) -> int:
    """Write examples to a Parquet, CSV or NDJSON file (its name says which), whole or not at all; return how many.

    Columns: id, at, unit, arm, version, answer, propensity, one per feature, label, mature; where answers are the
    probabilities of classes, these are in `probabilities`, and `answer` is the place of the likeliest. A feature whose
    name is that of another column gets `feature_` before it.

    Raises:
        BadDefinition: the file's name does not say of which kind it is to be, or its folder is not there.
    """
    form = next((form for ending, form in _FORMS.items() if file.name.lower().endswith(ending)), None)
    if form is None:
        raise BadDefinition(str(file), "its name does not say what to write", f"End it in {', '.join(_FORMS)}.")
    if not file.absolute().parent.is_dir():
        raise BadDefinition(str(file), "there is no such folder", "Name a folder that exists.")
    being_written = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        with lake.query() as connection:
            connection.register("examples", _table(examples))
            times = 'SELECT * REPLACE (make_timestamptz("at") AS "at") FROM examples'
            connection.execute(f"COPY ({times}) TO {literal(str(being_written))} ({form})")
        being_written.replace(file)
    finally:
        being_written.unlink(missing_ok=True)
    return len(examples)


def _table(examples: Examples) -> Table:
    served = examples.predictions
    columns: dict[str, Column] = {name: getattr(served, name) for name in
                                  ("id", "at", "unit", "arm", "version", "answer", "propensity")}  # fmt: skip
    probabilities = served.answer if served.answer.ndim == 2 else None
    if probabilities is not None:
        columns["answer"] = np.where(given(probabilities), decided(probabilities), np.nan)
    taken = {*columns, "probabilities", "label", "mature"}
    columns |= {f"feature_{name}" if name in taken else name: column for name, column in served.features.items()}
    columns |= {"label": examples.labels.value, "mature": examples.labels.mature}
    kinds = {"f": DataType.float64(), "b": DataType.bool(), "M": DataType.int64()}
    arrays: dict[str, Any] = {}
    for name, column in columns.items():
        values = column.astype(np.int64) if column.dtype.kind == "M" else column
        arrays[name] = Array(_listed(values), kinds.get(column.dtype.kind, DataType.utf8()))
    if probabilities is not None:
        rows = zip(given(probabilities).tolist(), probabilities.tolist(), strict=True)
        arrays["probabilities"] = number_lists([each if there else None for there, each in rows])
    return Table.from_pydict(arrays)


def _listed(column: Column) -> list[Any]:
    """A column as Python values, None where a number is missing."""
    if column.dtype.kind == "f":
        return [None if value != value else value for value in column.tolist()]
    return list(column.tolist())
