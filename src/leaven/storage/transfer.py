"""How does history come into the lake, and how do examples leave it?

A row of a Parquet or CSV file, a past request with its outcome, becomes a live prediction of the arm `imported` and
the feedback on it, in bulk and in two commits. Ids are digests of content, so what was imported once is recognised
when it comes again, in the same file or another.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from arro3.core import Array, DataType, Table

from leaven.errors import BadDefinition
from leaven.events.columns import Column, Examples
from leaven.events.labels import Happens
from leaven.loop import FeatureType, Loop
from leaven.storage.delta import EventTable, Rows
from leaven.storage.lake import Lake, parquet
from leaven.storage.rows import LAST_MOMENT, Kind, feature_column

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

Progress = Callable[[str, float], None]  # what is being done, and which share of all is done

_KINDS: dict[FeatureType, tuple[Kind, str]] = {
    "category": ("string", "VARCHAR"),
    "float": ("double", "DOUBLE"),
    "int": ("long", "BIGINT"),
    "bool": ("boolean", "BOOLEAN"),
}
_FRACTIONAL = ("FLOAT", "DOUBLE", "DECIMAL", "VARCHAR")
_TIMES = ("TIMESTAMP", "DATE", "VARCHAR")


class ImportReport(msgspec.Struct, frozen=True):
    """What became of the rows of an imported file."""

    rows: int
    predictions: int  # new in the lake
    feedback: int  # new in the lake
    already: int  # rows whose prediction was there, or came twice in the file
    unlabelled: int  # rows without an outcome
    without_unit: int  # rows whose unit is missing: each counts as a unit of its own
    rejected: dict[str, int]  # by reason; a rejected label leaves its prediction
    absent: tuple[str, ...]  # features that the file has no column for


def import_history(
    lake: Lake,
    loop: Loop,
    file: Path,
    *,
    time: str,
    label_time: str | None = None,
    unit: str | None = None,
    progress: Progress = lambda stage, share: None,
) -> ImportReport:
    """Bring past requests with their outcomes into the lake, each once.

    Args:
        lake: Where to.
        loop: Whose requests these are; features and label are the columns of these names.
        file: A Parquet or CSV file.
        time: Column of the moment of the request; without a time zone it is UTC.
        label_time: Column of the moment the outcome became known; without it, that of the request.
        unit: Column of the unit; the loop's own by default. A row without one is a unit of its own.
        progress: Told how far it is.
    Raises:
        BadDefinition: the file cannot be read, or a column that is needed is missing or of a wrong type.
    """
    with lake.query() as connection:
        progress("reading", 0.0)
        source, columns = _described(connection, file)
        predictions, feedback = lake.table(loop.name, "predictions"), lake.table(loop.name, "feedback")
        predictions.refresh()
        plan = _Plan(loop, columns, time, label_time, unit or loop.unit, predictions.kinds())
        _check(plan, file, unit_given=unit is not None)
        connection.execute(f"CREATE TEMP TABLE incoming AS {_incoming(plan, source)}")
        progress("writing predictions", 0.4)
        served = predictions.append(lambda table: _new_predictions(connection, table, plan), transactions={})
        progress("writing feedback", 0.8)
        heard = feedback.append(lambda table: _new_feedback(connection, table, plan), transactions={})
        progress("done", 1.0)
        return _report(connection, plan, served, heard)


def export_examples(lake: Lake, examples: Examples, file: Path) -> int:
    """Write examples to a Parquet or CSV file (its name says which); return how many.

    Columns: id, at, unit, arm, version, answer, propensity, one per feature, label, mature.

    Raises:
        BadDefinition: the file's name ends neither in .parquet nor in .csv.
    """
    form = {".parquet": "PARQUET", ".csv": "CSV"}.get(file.suffix)
    if form is None:
        raise BadDefinition(str(file), "its name does not say what to write", "End it in .parquet or .csv.")
    served = examples.predictions
    columns: dict[str, Column] = {name: getattr(served, name) for name in
                                  ("id", "at", "unit", "arm", "version", "answer", "propensity")}  # fmt: skip
    columns |= {**served.features, "label": examples.labels.value, "mature": examples.labels.mature}
    kinds = {"f": DataType.float64(), "b": DataType.bool(), "M": DataType.int64()}
    arrays: dict[str, Any] = {}
    for name, column in columns.items():
        values = column.astype(np.int64) if column.dtype.kind == "M" else column
        arrays[name] = Array(_listed(values), kinds.get(column.dtype.kind, DataType.utf8()))
    table = Table.from_pydict(arrays)
    with lake.query() as connection:
        connection.register("examples", table)
        times = 'SELECT * REPLACE (make_timestamptz("at") AS "at") FROM examples'
        connection.execute(f"COPY ({times}) TO {_text(str(file))} (FORMAT {form})")
    return len(examples)


@dataclass(frozen=True, slots=True)
class _Plan:
    """Which columns of the file mean what."""

    loop: Loop
    columns: dict[str, str]  # name to DuckDB's type
    time: str
    label_time: str | None
    unit: str
    kinds: dict[str, Kind]  # feature columns that the table has already

    @property
    def features(self) -> list[tuple[str, FeatureType, bool]]:
        """Name, type and whether required, of the features that the file has."""
        return [feature for feature in self.loop.schema.features if feature[0] in self.columns]

    def column(self, feature: str, kind: FeatureType) -> str:
        """The column of the lake that keeps a feature of this kind."""
        stored = _KINDS[kind][0]
        clash = self.kinds.get(feature_column(feature), stored) != stored
        return feature_column(feature, beside=stored if clash else None)


def _described(connection: DuckDBPyConnection, file: Path) -> tuple[str, dict[str, str]]:
    """The SQL that reads a file, and its columns with their types."""
    import duckdb

    readers = {".parquet": "read_parquet", ".csv": "read_csv", ".gz": "read_csv"}
    if file.suffix not in readers:
        raise BadDefinition(str(file), "its name does not say what it is", "Give a .parquet, .csv or .csv.gz file.")
    source = f"{readers[file.suffix]}({_text(str(file))})"
    try:
        described = connection.execute(f"DESCRIBE SELECT * FROM {source}").fetchall()  # noqa: S608
    except duckdb.Error as error:
        why = str(error).splitlines()[0]
        raise BadDefinition(str(file), f"it cannot be read: {why}", "Give a file that DuckDB reads.") from error
    return source, {row[0]: row[1] for row in described}


def _check(plan: _Plan, file: Path, *, unit_given: bool) -> None:
    """Refuse a file that lacks a column that is needed, or has one of a type that cannot be meant."""
    needed = {"time": plan.time, "label": plan.loop.label.name}
    needed |= {"label time": plan.label_time} if plan.label_time is not None else {}
    needed |= {"unit": plan.unit} if unit_given else {}
    needed |= {f"required feature {name!r}": name for name, _, required in plan.loop.schema.features if required}
    for what, name in needed.items():
        if name not in plan.columns:
            raise BadDefinition(
                str(file), f"it has no column {name!r} for the {what}", f"It has {', '.join(plan.columns)}."
            )
    for name in filter(None, (plan.time, plan.label_time)):
        if not plan.columns[name].startswith(_TIMES):
            raise BadDefinition(
                str(file), f"column {name!r} is {plan.columns[name]}, not a time", "Give timestamps or RFC 3339 text."
            )


def _incoming(plan: _Plan, source: str) -> str:
    """The SQL of the file's rows as the lake takes them, each with the reason if it does not."""
    label, label_time = plan.loop.label.name, plan.label_time or plan.time
    unit = f"CAST({_name(plan.unit)} AS VARCHAR)" if plan.unit in plan.columns else "NULL"
    read = [
        f'{_micros(plan.time)} AS "at"', f"{_micros(label_time)} AS label_at", f"{unit} AS unit",
        f"TRY_CAST({_given(plan, label)} AS DOUBLE) AS value", f"{_given(plan, label)} IS NOT NULL AS value_given",
    ]  # fmt: skip
    faults = [f"""WHEN "at" IS NULL OR "at" NOT BETWEEN 0 AND {LAST_MOMENT} THEN 'no time'""",
              "WHEN value IS NULL AND value_given THEN 'the label is no number'"]  # fmt: skip
    kept = []
    for index, (name, kind, required) in enumerate(plan.features):
        column, given = _name(plan.column(name, kind)), f"given_{index}"
        read += [f"{_cast(plan, name, kind)} AS {column}", f"{_given(plan, name)} IS NOT NULL AS {given}"]
        faults.append(f"WHEN {column} IS NULL AND {given} THEN {_text(f'feature {name!r} is no {kind}')}")
        if required:
            faults.append(f"WHEN {column} IS NULL THEN {_text(f'required feature {name!r} is missing')}")
        kept.append((column, _text(name)))
    content = "{" + ", ".join(f"{name}: {column}" for column, name in kept) + "}" if kept else "'{}'"
    digested = f"""concat_ws(chr(31), {_text(plan.loop.name)}, "at", coalesce(unit, ''), to_json({content}))"""
    return f"""
        SELECT "at", label_at, unit, value, {"".join(f"{column}, " for column, _ in kept)}
            CASE {" ".join(faults)} END AS fault,
            CASE WHEN value IS NULL THEN NULL WHEN label_at IS NULL THEN 'label without a time'
                 WHEN label_at < "at" THEN 'label from before its request' END AS label_fault,
            substr(sha256({digested}), 1, 32) AS id
        FROM (SELECT {", ".join(read)} FROM {source})
    """  # noqa: S608


def _new_predictions(connection: DuckDBPyConnection, table: EventTable, plan: _Plan) -> Rows | None:
    """Requests that the table does not have yet, as its next rows."""
    features = "".join(f", {_name(plan.column(name, kind))}" for name, kind, _ in plan.features)
    return _numbered(
        connection,
        table,
        f"""SELECT DISTINCT ON (id) "at", id, coalesce(unit, id) AS unit, 'live' AS role, 'imported' AS arm,
                '' AS version, 1.0::DOUBLE AS propensity, NULL::DOUBLE AS answer, 0.0::DOUBLE AS seconds,
                0::BIGINT AS revision, NULL::VARCHAR AS error {features}
            FROM incoming WHERE fault IS NULL AND {_absent_from(table)}""",  # noqa: S608
        'make_timestamptz("at") AS "at"',
    )


def _new_feedback(connection: DuckDBPyConnection, table: EventTable, plan: _Plan) -> Rows | None:
    """Outcomes that the table does not have yet, as its next rows."""
    event = isinstance(plan.loop.label, Happens)  # its feedback is the event itself: no event, no feedback
    return _numbered(
        connection,
        table,
        f"""SELECT DISTINCT ON (id) * FROM (
                SELECT label_at AS "at", substr(sha256(concat_ws(chr(31), id, value, label_at)), 1, 32) AS id,
                    {_text(plan.loop.label.name)} AS name, label_at AS received_at,
                    '{"event" if event else "label"}' AS kind, id AS prediction, NULL::VARCHAR AS unit, value,
                    'import' AS source
                FROM incoming
                WHERE fault IS NULL AND label_fault IS NULL AND value {"> 0" if event else "IS NOT NULL"}
            ) WHERE {_absent_from(table)}""",  # noqa: S608
        'make_timestamptz("at") AS "at", make_timestamptz(received_at) AS received_at',
    )


def _absent_from(table: EventTable) -> str:
    files = table.files()
    return f"id NOT IN (SELECT id FROM {parquet(files)})" if files else "true"  # noqa: S608


def _numbered(connection: DuckDBPyConnection, table: EventTable, new: str, times: str) -> Rows | None:
    connection.execute(f"CREATE OR REPLACE TEMP TABLE new AS {new}")
    count = connection.execute("SELECT count(*) FROM new").fetchall()[0][0]
    if not count:
        return None
    # By day, so that each file of the partitioned table is written in one go.
    rows = connection.sql(
        f"""SELECT row_number() OVER (ORDER BY "at", id) + {table.seq} AS seq,
                   CAST(make_timestamptz("at") AS DATE) AS day, * REPLACE ({times})
            FROM new ORDER BY day, seq"""  # noqa: S608
    )
    return rows, count


def _report(connection: DuckDBPyConnection, plan: _Plan, served: int, heard: int) -> ImportReport:
    totals = connection.execute(
        """SELECT count(*), count(*) FILTER (fault IS NULL), count(*) FILTER (fault IS NULL AND value IS NULL),
                  count(*) FILTER (fault IS NULL AND unit IS NULL) FROM incoming"""
    ).fetchall()
    rows, taken, unlabelled, without_unit = totals[0]
    rejected = connection.execute(
        """SELECT reason, count(*) FROM (SELECT coalesce(fault, label_fault) AS reason FROM incoming)
           WHERE reason IS NOT NULL GROUP BY reason ORDER BY reason"""
    ).fetchall()
    absent = tuple(name for name in plan.loop.schema.names if name not in plan.columns)
    return ImportReport(rows, served, heard, taken - served, unlabelled, without_unit, dict(rejected), absent)


def _given(plan: _Plan, name: str) -> str:
    """A column of the file, NULL where it holds NaN (as files written from data frames do)."""
    column = _name(name)
    fractional = plan.columns[name] in ("FLOAT", "DOUBLE")
    return f"CASE WHEN isnan({column}) THEN NULL ELSE {column} END" if fractional else column


def _cast(plan: _Plan, name: str, kind: FeatureType) -> str:
    """A column of the file as its feature's type, NULL where it does not fit."""
    given = _given(plan, name)
    cast = f"TRY_CAST({given} AS {_KINDS[kind][1]})"
    if kind == "int" and plan.columns[name].startswith(_FRACTIONAL):
        number = f"TRY_CAST({given} AS DOUBLE)"
        return f"CASE WHEN {number} = floor({number}) THEN {cast} END"  # a cast alone would round
    if kind == "category" and plan.columns[name] in ("FLOAT", "DOUBLE"):
        # 7.0 and 7 are one category, as on the wire; NaN is none.
        whole = f"CAST(TRY_CAST({given} AS BIGINT) AS VARCHAR)"
        return f"CASE WHEN isnan({given}) THEN NULL WHEN {given} = floor({given}) THEN {whole} ELSE {cast} END"
    return cast


def _micros(column: str) -> str:
    return f"epoch_us(TRY_CAST({_name(column)} AS TIMESTAMPTZ))"


def _name(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _text(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _listed(column: Column) -> list[Any]:
    """A column as Python values, None where a number is missing."""
    if column.dtype.kind == "f":
        return [None if value != value else value for value in column.tolist()]
    return list(column.tolist())
