"""What was served to whom, and what came of it, as far as was known at a moment?

Every answer is a function of the rows with sequence numbers up to the marks, of the times in those rows, and of the
question: not of how the rows lie in files. So it is the same, bit for bit, after appends, compaction and clean-up.
DuckDB finds the rows and says which feedback speaks of which prediction; what follows from that for the label is the
label rule's business.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np

from leaven.duration import instant
from leaven.events.columns import Column, Examples, Matched, Pairs, Predictions
from leaven.events.labels import LabelRule
from leaven.events.meetings import Arms, Crowd, Newcomers
from leaven.events.source import Marks, Span
from leaven.storage.delta import LiveFile
from leaven.storage.lake import ALL_TABLES, Lake, parquet
from leaven.storage.rows import PROBABILITIES, TableName, features_in
from leaven.storage.tombstones import erased_since

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

Fetched = dict[str, Any]  # columns as DuckDB gives them: arrays, masked where a value is missing

_SHADOW_LATENESS = timedelta(days=1)  # that a shadow's answer may come after the live one
_PLAIN = ("id", "unit", "arm", "version", "answer", "propensity", "seconds", "error")


class LakeSource:
    """The log of one loop in the lake; implements `leaven.events.source.ExampleSource`.

    Where a prediction id was logged twice within the span, the row committed first counts; of feedback with one id,
    the piece received first. Feedback counts for the prediction that it names, or, where it names none, for the
    latest prediction of its unit at or before it and within the rule's window (of several at one moment the one with
    the last id). The same holds of exposures, and feedback without a name counts for the latest of each: whether
    exposures are logged changes nothing for predictions. Feedback that is dated before its prediction never counts.
    """

    def __init__(self, lake: Lake, loop: str, watermark: Callable[[], datetime]) -> None:
        self._lake, self._loop, self._watermark = lake, loop, watermark

    def marks(self) -> Marks:
        """Return how far the loop's tables reach now; 0 where there is no table."""
        return Marks(*(self._pinned(name, None)[1] for name in ALL_TABLES))

    def watermark(self) -> datetime:
        """Return the moment up to which every event that was logged can be read."""
        return self._watermark()

    def first(self) -> datetime | None:
        """Return the time of the oldest prediction or exposure, or None before the first."""
        with self._lake.query() as connection:
            files, _ = self._pinned("predictions", None)
            for day in sorted({file.day for file in files}):
                found = connection.execute(
                    f"""SELECT epoch_us(min("at")) FROM {parquet([file for file in files if file.day == day])}
                        WHERE role IN ('live', 'exposure')"""  # noqa: S608
                ).fetchall()[0][0]
                if found is not None:
                    return instant(found)
        return None

    def examples(self, span: Span, rule: LabelRule, *, as_of: datetime, marks: Marks | None = None) -> Examples:
        """Return predictions and exposures in `span`, oldest first (ties by id), with their labels at `as_of`.

        With `marks`, rows that were appended later than these are left out.
        """
        with self._lake.query() as connection:
            predictions = self._collect_live(connection, span, as_of, marks.predictions if marks else None)
            if not len(predictions):
                matched = _matched(None)
            else:
                matched = self._match(connection, span, rule, as_of, marks)
        return Examples(predictions, rule.resolve(predictions.at, matched, as_of=as_of))

    def pairs(self, span: Span, version: str, rule: LabelRule, *, as_of: datetime) -> Pairs:
        """Return the live predictions in `span` that `version` shadowed, with its answers."""
        live = self.examples(span, rule, as_of=as_of)
        shadows: Fetched = {name: np.empty(0, object) for name in ("id", "answer", "error", "seconds")}
        with self._lake.query() as connection:
            files, mark = self._pinned("predictions", None)
            near = _between(files, span.start, span.end + _SHADOW_LATENESS)
            if near and len(live):
                more = f", {PROBABILITIES}" if PROBABILITIES in _columns(connection, near) else ""
                shadows = connection.execute(
                    f"""SELECT id, answer, error, seconds{more} FROM {parquet(near)}
                        WHERE role = 'shadow' AND version = ? AND seq <= ? AND "at" <= ?
                        QUALIFY row_number() OVER (PARTITION BY id ORDER BY seq) = 1 ORDER BY id""",  # noqa: S608
                    [version, mark, as_of],
                ).fetchnumpy()
        place = {name: row for row, name in enumerate(shadows["id"].tolist())}
        rows = np.array([place.get(name, -1) for name in live.predictions.id.tolist()], dtype=np.int64)
        picked = rows[rows >= 0]
        return Pairs(
            live.take(rows >= 0),
            _answers(shadows)[0][picked],
            _texts(shadows["error"])[picked],
            _numbers(shadows["seconds"])[picked],
        )

    def erased(self, span: Span, *, as_of: datetime, marks: Marks) -> int:
        """Return how many rows that a reader of `span` could see at `marks` were erased, or grew too old, since."""
        with self._lake.query() as connection:
            files, _ = self._pinned("tombstones", None)
            return erased_since(connection, parquet(files), span, marks, as_of) if files else 0

    def crowds(self, span: Span, arms: Arms, *, every: timedelta, as_of: datetime) -> tuple[Crowd, ...]:
        """Return how many units met which of `arms` in `span` and came first in which stretch of length `every`."""
        with self._lake.query() as connection:
            found = self._met(connection, span, arms, as_of, _CROWDS, [span.start, every // timedelta(microseconds=1)])
            rows = found.fetchall() if found is not None else []
        return tuple(sorted(Crowd(bucket, arm, crossed, tuple(failed), n) for bucket, arm, crossed, failed, n in rows))

    def newcomers(self, span: Span, arms: Arms, *, first_in: Span, as_of: datetime) -> Newcomers:
        """Return the units whose first meeting of all `span` lies in `first_in` and that met one arm in `span`."""
        none = np.empty(0, object)
        fetched: Fetched = {"unit": none, "arm": none, "first": none}
        with self._lake.query() as connection:
            found = self._met(connection, span, arms, as_of, _NEWCOMERS, [first_in.start, first_in.end])
            fetched = found.fetchnumpy() if found is not None else fetched
        return Newcomers(_texts(fetched["unit"]), _texts(fetched["arm"]), _times(fetched["first"]))

    def _met(
        self, connection: DuckDBPyConnection, span: Span, arms: Arms, as_of: datetime, query: str, asked: list[Any]
    ) -> DuckDBPyConnection | None:
        """Ask `query` of the table `met`, which has a row per unit; a row that was logged twice changes none of it."""
        files, upto = self._pinned("predictions", None)
        files = _between(files, span.start, min(span.end, as_of))
        if not files:
            return None
        taking = " OR ".join("(arm = ? AND version = ?)" for _ in arms)
        named = [text for pair in arms.items() for text in pair]
        return connection.execute(
            f"""WITH per_arm AS (
                  SELECT unit, arm, min("at") AS first, max("at") AS last,
                         bool_or(answer IS NULL AND error IS NOT NULL) AS failed
                  FROM {parquet(files)}
                  WHERE role IN ('live', 'exposure') AND ({taking})
                    AND "at" >= ? AND "at" < ? AND "at" <= ? AND seq <= ?
                  GROUP BY unit, arm),
                met AS (
                  SELECT unit, min(first) AS first, max({{'last': last, 'arm': arm}}).arm AS arm,
                         count(*) > 1 AS crossed,
                         list_sort(coalesce(list(arm) FILTER (failed), [])) AS failed
                  FROM per_arm GROUP BY unit)
                {query}""",  # noqa: S608
            [*named, span.start, span.end, as_of, upto, *asked],
        )

    def _pinned(self, name: TableName, mark: int | None) -> tuple[list[LiveFile], int]:
        """The files of a table's newest version, and the number of the last row to read."""
        table = self._lake.table(self._loop, name)
        if not table.refresh():
            return [], 0
        return table.files(), table.seq if mark is None else min(mark, table.seq)

    def _collect_live(
        self, connection: DuckDBPyConnection, span: Span, as_of: datetime, mark: int | None
    ) -> Predictions:
        """Put what was served live in the span into the temporary table `live`, numbered, and return it."""
        files, upto = self._pinned("predictions", mark)
        files = _between(files, span.start, min(span.end, as_of))
        if not files:
            return _predictions({}, [])
        columns = _columns(connection, files)
        features = [name for group in features_in(columns).values() for name in group]
        plain = (*_PLAIN, PROBABILITIES) if PROBABILITIES in columns else _PLAIN
        wanted = ", ".join(f'"{name}"' for name in (*plain, *features))
        connection.execute(
            f"""CREATE TEMP TABLE live AS SELECT seq, epoch_us("at") AS "at", {wanted} FROM {parquet(files)}
                WHERE role IN ('live', 'exposure') AND "at" >= ? AND "at" < ? AND "at" <= ? AND seq <= ?""",  # noqa: S608
            [span.start, span.end, as_of, upto],
        )
        _drop_repeated(connection, "live", "seq")
        connection.execute(
            'CREATE TEMP TABLE numbered AS SELECT id, "at", row_number() OVER (ORDER BY "at", id) - 1 AS row FROM live'
        )
        fetched = connection.execute(f'SELECT "at", {wanted} FROM live ORDER BY "at", id').fetchnumpy()  # noqa: S608
        return _predictions(fetched, features)

    def _match(
        self, connection: DuckDBPyConnection, span: Span, rule: LabelRule, as_of: datetime, marks: Marks | None
    ) -> Matched:
        """The feedback that speaks of the predictions in `numbered`."""
        files, upto = self._pinned("feedback", marks.feedback if marks else None)
        files = _between(files, span.start, None)
        if not files:
            return _matched(None)
        connection.execute(
            f"""CREATE TEMP TABLE said AS
                SELECT seq, id, prediction, unit, epoch_us("at") AS "at", epoch_us(received_at) AS received_at,
                       name, kind, value
                FROM {parquet(files)} WHERE name = ? AND seq <= ? AND received_at <= ? AND "at" >= ?""",  # noqa: S608
            [rule.name, upto, as_of, span.start],
        )
        _drop_repeated(connection, "said", "received_at, seq")
        by_unit = connection.execute("SELECT count(*) FROM said WHERE prediction IS NULL AND unit IS NOT NULL")
        if not by_unit.fetchall()[0][0]:
            return _matched(connection.execute(_BY_PREDICTION + _IN_ORDER).fetchnumpy())
        self._collect_moments(connection, span, rule.window, as_of, marks)
        both = f"{_BY_PREDICTION} UNION ALL {_BY_UNIT}{_IN_ORDER}"
        return _matched(connection.execute(both, [rule.window // timedelta(microseconds=1)]).fetchnumpy())

    def _collect_moments(
        self, connection: DuckDBPyConnection, span: Span, window: timedelta, as_of: datetime, marks: Marks | None
    ) -> None:
        """Put the moments at which units got predictions into `moments`: in the span, and as long after it as
        feedback on the span may come, since that may speak of a later prediction."""  # fmt: skip
        files, upto = self._pinned("predictions", marks.predictions if marks else None)
        until = span.end + window
        connection.execute(
            f"""CREATE TEMP TABLE served AS SELECT seq, id, unit, role, epoch_us("at") AS "at"
                FROM {parquet(_between(files, span.start, until))}
                WHERE role IN ('live', 'exposure') AND "at" >= ? AND "at" < ? AND "at" <= ? AND seq <= ?""",  # noqa: S608
            [span.start, until, as_of, upto],
        )
        _drop_repeated(connection, "served", "seq")
        connection.execute(
            """CREATE TEMP TABLE moments AS SELECT unit, role, "at", max(id) AS id
               FROM served GROUP BY "at", unit, role"""
        )


_CROWDS = """
    SELECT (epoch_us(first) - epoch_us(?::TIMESTAMPTZ)) // ? AS bucket, arm, crossed, failed, count(*)
    FROM met GROUP BY ALL
"""
_NEWCOMERS = """
    SELECT unit, arm, epoch_us(first) AS first FROM met WHERE first >= ? AND first < ? AND NOT crossed ORDER BY unit
"""
_BY_PREDICTION = """
    SELECT n.row, f."at", f.received_at, f.name, f.kind, f.value, f.id
    FROM said f JOIN numbered n ON f.prediction = n.id WHERE f."at" >= n."at"
"""
_BY_UNIT = """
    SELECT n.row, f."at", f.received_at, f.name, f.kind, f.value, f.id
    FROM (SELECT * FROM said, (SELECT DISTINCT role FROM moments) WHERE prediction IS NULL AND unit IS NOT NULL) f
    ASOF JOIN moments m ON f.unit = m.unit AND f.role = m.role AND f."at" >= m."at"
    JOIN numbered n ON n.id = m.id WHERE f."at" - m."at" <= ?
"""
_IN_ORDER = " ORDER BY 1, 2, 3, 7"


def _drop_repeated(connection: DuckDBPyConnection, table: str, first: str) -> None:
    """Keep of each id the row that comes first by `first`. Repetition is rare, so it is looked for first."""
    counted = connection.execute(f"SELECT count(*) - count(DISTINCT id) FROM {table}")  # noqa: S608
    if counted.fetchall()[0][0]:
        connection.execute(
            f"""DELETE FROM {table} WHERE seq NOT IN (
                SELECT seq FROM {table} QUALIFY row_number() OVER (PARTITION BY id ORDER BY {first}) = 1)"""  # noqa: S608
        )


def _columns(connection: DuckDBPyConnection, files: Sequence[LiveFile]) -> list[str]:
    described = connection.execute(f"DESCRIBE SELECT * FROM {parquet(files)}").fetchall()  # noqa: S608
    return [row[0] for row in described]


def _between(files: Sequence[LiveFile], start: datetime, end: datetime | None) -> list[LiveFile]:
    """The files of the days from `start` to `end`, both included."""
    first, last = _day(start), date.max if end is None else _day(end)
    return [file for file in files if first <= file.day <= last]


def _day(moment: datetime) -> date:
    return moment.astimezone(UTC).date()


def _predictions(fetched: Fetched, features: Sequence[str]) -> Predictions:
    if not fetched:
        none = np.empty(0, object)
        fetched = dict.fromkeys(("at", *_PLAIN), none)
    combined = {name: _feature([fetched[each] for each in group]) for name, group in features_in(features).items()}
    (answer, otherwise), error = _answers(fetched), _texts(fetched["error"])
    return Predictions(
        id=_texts(fetched["id"]),
        at=_times(fetched["at"]),
        unit=_texts(fetched["unit"]),
        arm=_texts(fetched["arm"]),
        version=_texts(fetched["version"]),
        answer=answer,
        propensity=_numbers(fetched["propensity"]),
        seconds=_numbers(fetched["seconds"]),
        error=np.where(otherwise, _ANOTHER_LABEL, error) if otherwise.any() else error,
        # A feature that is missing in every row is left out: a column that came later changes no older answer.
        features={name: column for name, column in combined.items() if column is not None},
    )


def _matched(fetched: Fetched | None) -> Matched:
    if fetched is None:
        fetched = dict.fromkeys(("row", "at", "received_at", "name", "kind", "value"), np.empty(0, object))
    return Matched(
        row=np.ma.getdata(fetched["row"]).astype(np.int64),
        at=_times(fetched["at"]),
        received_at=_times(fetched["received_at"]),
        name=_texts(fetched["name"]),
        kind=_texts(fetched["kind"]),
        value=_numbers(fetched["value"]),
    )


def _times(column: Any) -> Column:
    return np.ma.getdata(column).astype(np.int64).view("datetime64[us]")


def _numbers(column: Any) -> Column:
    """Numbers as float64, NaN where there is none."""
    plain = np.ma.getdata(column).astype(np.float64)
    mask = np.ma.getmaskarray(column)
    return np.where(mask, np.nan, plain) if mask.any() else plain


_ANOTHER_LABEL = "it answered for another kind of label"


def _answers(fetched: Fetched) -> tuple[Column, Column]:
    """Answers as numbers, or as probabilities of classes, shape (rows, classes); and which rows answered otherwise.

    Where the label was changed, both are there; the newest answer tells which kind is wanted.
    """
    numbers, several = _numbers(fetched["answer"]), fetched.get(PROBABILITIES)
    there = np.zeros(len(numbers), dtype=bool) if several is None else ~np.ma.getmaskarray(several)
    answered = np.flatnonzero(~np.isnan(numbers) | there)
    if several is None or not len(answered) or not there[answered[-1]]:
        return np.where(there, np.nan, numbers), there
    found = [np.asarray(np.ma.getdata(each), dtype=np.float64) for each in np.ma.getdata(several)[there]]
    out = np.full((len(there), max(map(len, found))), np.nan)
    # Classes are only added behind the others: what a version did not know, it gave no probability.
    for row, each in zip(np.flatnonzero(there).tolist(), found, strict=True):
        out[row] = 0.0
        out[row, : len(each)] = each
    return out, ~np.isnan(numbers) & ~there


def _texts(column: Any) -> Column:
    """Text as objects, None where there is none."""
    plain = np.ma.getdata(column).astype(object)
    mask = np.ma.getmaskarray(column)
    if mask.any():
        plain[mask] = None
    return plain


def _feature(columns: Sequence[Any]) -> Column | None:
    """One feature out of the columns that keep it, None if all its values are missing.

    Numbers (whole, not whole, true and false) become float64; where there is text as well, all become text.
    """
    held = [column for column in columns if not np.ma.getmaskarray(column).all()]
    if not held:
        return None
    numbers = [column for column in held if column.dtype != object]
    texts = [column for column in held if column.dtype == object]
    if not texts:
        out = _numbers(numbers[0])
        for column in numbers[1:]:
            out = np.where(np.ma.getmaskarray(column), out, _numbers(column))
        return out
    text = _texts(texts[0])
    for column in numbers:
        here = ~np.ma.getmaskarray(column)
        text[here] = [str(value) for value in np.ma.getdata(column)[here].tolist()]
    return text
