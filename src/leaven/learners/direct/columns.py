"""What do a pipeline's fitted transformers do to each column?

A pipeline of scalers, imputers and one-hot encoders treats every column by itself. So it is read off as blocks: numbers
that take a few steps, and codes that stand for a row of a small table. Nothing sparse is ever made.

Source: the transformers' own `transform` in scikit-learn; the tables of a one-hot encoder are its own answers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leaven.learners.direct.proof import NoDirectForm
from leaven.training.encoding import Matrix

Floats = NDArray[np.float64]
Indices = NDArray[np.intp]
MOST_CODES = 1_000_000  # of one column: the table has a row for each

UNKNOWN, GAP, FIRST_CODE = 0, 1, 2  # rows of a table: a code that is not known, NaN, then code 0, 1, …


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that is done to every column, with a number of its own for each; `act` changes the matrix in place."""

    act: Callable[[Matrix, Floats], None]
    each: Floats  # shape (columns,)

    def of(self, columns: Any) -> Step:
        """Return the step for some of the columns."""
        return Step(self.act, self.each[columns])


@dataclass(frozen=True, slots=True)
class Numbers:
    """Columns of the model's matrix that take some steps one after another."""

    source: Indices
    steps: tuple[Step, ...] = ()

    @property
    def width(self) -> int:
        """Columns that come out."""
        return len(self.source)

    def after(self, step: Step) -> Numbers:
        """Return these columns with one more step."""
        return Numbers(self.source, (*self.steps, step))

    def some(self, columns: Any) -> Numbers:
        """Return some of these columns."""
        return Numbers(self.source[columns], tuple(step.of(columns) for step in self.steps))

    def of(self, matrix: Matrix) -> Matrix:
        """Return the columns' values, shape (rows, width); a matrix of its own."""
        values: Matrix = matrix[:, self.source]
        for step in self.steps:
            step.act(values, step.each)
        return values


@dataclass(frozen=True, slots=True)
class Tables:
    """Columns of codes, each of which stands for a row of its column's table.

    A table has shape (2 + codes, columns that come out); NaN in a row means that the library must be asked.
    """

    codes: Numbers
    tables: tuple[Floats, ...]

    @property
    def width(self) -> int:
        """Columns that come out."""
        return sum(table.shape[1] for table in self.tables)

    def after(self, step: Step) -> Tables:
        """Return these tables with one more step behind each."""
        edges = np.cumsum([0, *(table.shape[1] for table in self.tables)])
        changed = [table.copy() for table in self.tables]
        for table, (low, high) in zip(changed, pairwise(edges), strict=True):
            step.act(table, step.each[low:high])
        return Tables(self.codes, tuple(changed))


Block = Numbers | Tables
Blocks = tuple[Block, ...]


def through(transformer: Any, blocks: Blocks) -> Blocks:
    """Return what comes out of a fitted `transformer` when `blocks` go in.

    Raises:
        NoDirectForm: it is none that is known here, or is set up in a way that is not.
    """
    if transformer is None or transformer == "passthrough":
        return blocks
    kind = f"{type(transformer).__module__}.{type(transformer).__qualname__}"
    if kind not in _KNOWN:  # a subclass has another name: it may do anything
        raise NoDirectForm(kind)
    return _KNOWN[kind](transformer, blocks)


def width_of(blocks: Blocks) -> int:
    """Return how many columns come out of `blocks`."""
    return sum(block.width for block in blocks)


def _pipeline(pipeline: Any, blocks: Blocks) -> Blocks:
    for _, step in pipeline.steps:
        blocks = through(step, blocks)
    return blocks


def _by_columns(transformer: Any, blocks: Blocks) -> Blocks:
    if transformer.transformer_weights:
        raise NoDirectForm("ColumnTransformer(transformer_weights=…)")
    match blocks:
        case (Numbers() as all_columns,):
            pass
        case _:
            raise NoDirectForm("a ColumnTransformer behind another, or behind a one-hot encoder")
    out: list[Block] = []
    for _, inner, columns in transformer.transformers_:
        if isinstance(columns, (str, int)) or (isinstance(columns, Sequence) and any(map(_is_text, columns))):
            raise NoDirectForm(f"a ColumnTransformer's column {columns!r}")
        chosen = np.arange(all_columns.width)[columns] if len(_as_list(columns)) else np.empty(0, np.intp)
        if len(chosen) and inner != "drop":
            out += through(inner, (all_columns.some(chosen),))
    return tuple(out)


def _is_text(given: object) -> bool:
    return isinstance(given, str)


def _as_list(columns: Any) -> Sequence[Any]:
    return [columns] if isinstance(columns, slice) else columns


def _unchanged(transformer: Any, blocks: Blocks) -> Blocks:
    if transformer.func is not None:
        raise NoDirectForm("a FunctionTransformer")
    return blocks


def _step(act: Callable[[Matrix, Floats], Any], each: Any, blocks: Blocks) -> Blocks:
    """`blocks` with one more step; `each` has a number for every column of them."""
    numbers = np.asarray(each, dtype=np.float64)
    if numbers.shape != (width_of(blocks),):
        raise NoDirectForm(f"a step of {numbers.shape} for {width_of(blocks)} columns")
    edges = np.cumsum([0, *(block.width for block in blocks)])
    return tuple(
        block.after(Step(act, numbers[low:high])) for block, (low, high) in zip(blocks, pairwise(edges), strict=True)
    )


def _fill(values: Matrix, each: Floats) -> None:
    np.copyto(values, each, where=np.isnan(values))


def _subtract(values: Matrix, each: Floats) -> None:
    np.subtract(values, each, out=values)


def _divide(values: Matrix, each: Floats) -> None:
    np.divide(values, each, out=values)


def _multiply(values: Matrix, each: Floats) -> None:
    np.multiply(values, each, out=values)


def _add(values: Matrix, each: Floats) -> None:
    np.add(values, each, out=values)


def _clip(values: Matrix, _: Floats, *, low: float, high: float) -> None:
    infinite = np.isinf(values)  # what the library refuses must not become an answer
    np.clip(values, low, high, out=values)
    values[infinite] = np.nan


def _imputer(imputer: Any, blocks: Blocks) -> Blocks:
    if imputer.add_indicator or not _is_nan(imputer.missing_values):
        raise NoDirectForm("a SimpleImputer that marks gaps, or takes something else for one")
    if not np.isfinite(np.asarray(imputer.statistics_, dtype=np.float64)).all():
        raise NoDirectForm("a SimpleImputer that leaves columns out")
    if any(isinstance(block, Tables) for block in blocks):
        raise NoDirectForm("a SimpleImputer behind a one-hot encoder")  # would fill what asks for the library
    return _step(_fill, imputer.statistics_, blocks)


def _is_nan(given: object) -> bool:
    return isinstance(given, float) and math.isnan(given)


def _standard_scaler(scaler: Any, blocks: Blocks) -> Blocks:
    blocks = _step(_subtract, scaler.mean_, blocks) if scaler.with_mean else blocks
    return _step(_divide, scaler.scale_, blocks) if scaler.with_std else blocks


def _robust_scaler(scaler: Any, blocks: Blocks) -> Blocks:
    blocks = _step(_subtract, scaler.center_, blocks) if scaler.with_centering else blocks
    return _step(_divide, scaler.scale_, blocks) if scaler.with_scaling else blocks


def _min_max_scaler(scaler: Any, blocks: Blocks) -> Blocks:
    blocks = _step(_add, scaler.min_, _step(_multiply, scaler.scale_, blocks))
    if not scaler.clip:
        return blocks
    low, high = scaler.feature_range
    return _step(partial(_clip, low=low, high=high), np.zeros(width_of(blocks)), blocks)


def _max_abs_scaler(scaler: Any, blocks: Blocks) -> Blocks:
    if getattr(scaler, "clip", False):
        raise NoDirectForm("a MaxAbsScaler that clips")
    return _step(_divide, scaler.scale_, blocks)


def _one_hot(encoder: Any, blocks: Blocks) -> Blocks:
    tables = _tables_of(encoder)
    out: list[Block] = []
    for block in blocks:
        if not isinstance(block, Numbers):
            raise NoDirectForm("a one-hot encoder behind another")
        out.append(Tables(block, tuple(tables[: block.width])))
        tables = tables[block.width :]
    return tuple(out)


def _tables_of(encoder: Any) -> list[Floats]:
    """What the encoder itself makes of every code of every column, the others held at a code that it knows."""
    known = [np.asarray(categories, dtype=np.float64) for categories in encoder.categories_]
    widths = np.cumsum([0, *encoder._n_features_outs])
    return [_table(encoder, column, known, slice(low, high)) for column, (low, high) in enumerate(pairwise(widths))]


def _table(encoder: Any, column: int, known: Sequence[Floats], place: slice) -> Floats:
    codes = known[column][~np.isnan(known[column])]
    if (codes != np.round(codes)).any() or (codes < 0).any() or (codes >= MOST_CODES).any():
        raise NoDirectForm(f"a one-hot encoder of values that are no codes (column {column})")
    beyond = int(codes.max(initial=-1.0)) + 1

    def encoded(values: Floats | Sequence[float]) -> Floats:
        rows = np.array([[each[0] for each in known]] * len(values))
        rows[:, column] = values
        try:
            made = encoder.transform(rows)
        except ValueError:  # it refuses what it does not know: so will it when it is asked again
            return np.full((len(values), place.stop - place.start), np.nan)
        return np.asarray(made.toarray() if hasattr(made, "toarray") else made, dtype=np.float64)[:, place]

    # A code between the known ones is as unknown as one beyond them.
    table = np.repeat(encoded([beyond]), FIRST_CODE + beyond, axis=0)
    table[GAP] = encoded([np.nan])[0]
    if len(codes):
        table[FIRST_CODE + codes.astype(np.intp)] = encoded(codes)
    return table


_KNOWN: dict[str, Callable[[Any, Blocks], Blocks]] = {
    "sklearn.compose._column_transformer.ColumnTransformer": _by_columns,
    "sklearn.impute._base.SimpleImputer": _imputer,
    "sklearn.pipeline.Pipeline": _pipeline,
    "sklearn.preprocessing._data.MaxAbsScaler": _max_abs_scaler,
    "sklearn.preprocessing._data.MinMaxScaler": _min_max_scaler,
    "sklearn.preprocessing._data.RobustScaler": _robust_scaler,
    "sklearn.preprocessing._data.StandardScaler": _standard_scaler,
    "sklearn.preprocessing._encoders.OneHotEncoder": _one_hot,
    "sklearn.preprocessing._function_transformer.FunctionTransformer": _unchanged,
}
