"""A file of the past is read as the loop names and types it."""

from __future__ import annotations

import time
from pathlib import Path

import duckdb
import numpy as np
import pytest

from leaven.errors import BadDefinition
from leaven.events import Happens, Label
from leaven.loop import Feature
from leaven.storage.data_file import UnreadableFile
from leaven.storage.history_file import read_history
from tests.controller.pasts import a_loop

FEATURES = [Feature("carrier", "category"), Feature("wind", "float"), Feature("seats", "int"), Feature("night", "bool")]
ROWS = """(VALUES
    (TIMESTAMP '2026-01-02 10:00', TIMESTAMP '2026-01-02 12:00', 'N2', 'B6', 2.5, 150, true, 30.0),
    (TIMESTAMP '2026-01-01 10:00', NULL, 'N1', NULL, NULL, NULL, NULL, NULL),
    (TIMESTAMP '2026-01-03 10:00', TIMESTAMP '2026-01-03 11:00', NULL, 'Zoë', -1.0, 0, false, 0.0)
) t(needed, known, tail, carrier, wind, seats, night, delay)"""


def a_flights_loop(**other):
    given = {"name": "flights", "features": FEATURES, "unit": "tail", "label": Label("delay", above=15, within="1d")}
    return a_loop(**(given | other), gates=[], rollout=[], triggers=[])


def written(folder: Path, rows: str = ROWS, *, kind: str = "parquet") -> Path:
    path = folder / f"past.{kind}"
    duckdb.sql(f"COPY (SELECT * FROM {rows}) TO '{path}' (FORMAT {kind})")
    return path


def read(path, loop=None, *, time="needed", label_time="known"):
    return read_history(path, loop or a_flights_loop(), time=time, label_time=label_time)


@pytest.mark.parametrize("kind", ["parquet", "csv"])
def test_rows_come_oldest_first_with_features_as_the_loop_types_them(tmp_path, kind):
    past = read(written(tmp_path, kind=kind))
    assert past.at.astype(str).tolist() == [f"2026-01-0{day}T10:00:00.000000" for day in (1, 2, 3)]
    assert past.unit.tolist() == ["N1", "N2", "row 3"]  # nobody's request is a unit of its own
    assert past.features["carrier"].tolist() == [None, "B6", "Zoë"]
    for name, theirs in (("wind", [np.nan, 2.5, -1]), ("seats", [np.nan, 150, 0]), ("night", [np.nan, 1, 0])):
        assert past.features[name].dtype == np.float64
        assert np.array_equal(past.features[name], theirs, equal_nan=True)
    assert np.array_equal(past.outcome, [np.nan, 30, 0], equal_nan=True)
    assert np.isnat(past.label_at).tolist() == [True, False, False]


def test_without_a_label_time_the_outcome_is_known_at_once(tmp_path):
    past = read(written(tmp_path), label_time=None)
    assert np.array_equal(past.label_at, past.at)


def test_an_event_that_did_not_happen_is_nothing_that_came_back(tmp_path):
    past = read(written(tmp_path), a_flights_loop(label=Happens("delay", within="1d")))
    assert np.array_equal(past.outcome, [np.nan, 30, np.nan], equal_nan=True)


def test_a_unit_that_is_no_column_gives_every_row_its_own(tmp_path):
    past = read(written(tmp_path), a_flights_loop(unit="session"))
    assert len(set(past.unit.tolist())) == 3


def test_times_with_a_zone_are_the_same_moment_whatever_the_machines_zone(tmp_path, monkeypatch):
    zoned = ROWS.replace("TIMESTAMP '2026-01-02 10:00'", "TIMESTAMPTZ '2026-01-02 10:00-05:00'").replace(
        "TIMESTAMP '2026", "TIMESTAMPTZ '2026"
    )
    duckdb.sql("SET TimeZone = 'UTC'")
    path = written(tmp_path, zoned)
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        past = read(path)
    finally:
        monkeypatch.undo()
        time.tzset()
    assert past.at[1] == np.datetime64("2026-01-02T15:00:00")


def test_rows_of_one_moment_keep_the_order_of_the_file(tmp_path):
    rows = "(SELECT TIMESTAMP '2026-01-01' + INTERVAL (i // 1000) HOUR AS needed, 'u' || i AS tail, 'x' AS carrier, " \
           "i::DOUBLE AS wind, 1 AS seats, true AS night, 1.0 AS delay FROM range(5000) r(i))"  # fmt: skip
    past = read(written(tmp_path, rows), label_time=None)
    assert np.array_equal(past.features["wind"], np.arange(5000))


def test_columns_of_the_file_that_are_called_like_ours_do_no_harm(tmp_path):
    rows = "(SELECT *, 99 - row_number() OVER () AS at, 7 AS file_row, 1 AS outcome, 'z' AS unit, 5 AS label_at " \
           f"FROM {ROWS})"  # fmt: skip
    past = read(written(tmp_path, rows), a_flights_loop(unit="session"))
    assert (np.diff(past.at) > np.timedelta64(0, "us")).all()
    assert np.array_equal(past.outcome, [np.nan, 30, 0], equal_nan=True)
    assert len(set(past.unit.tolist())) == 3


def test_a_column_name_may_hold_anything(tmp_path):
    rows = f"""(SELECT * RENAME (wind AS "wind ""speed"", kt") FROM {ROWS})"""
    loop = a_flights_loop(features=[Feature('wind "speed", kt', "float")])
    assert np.array_equal(
        read(written(tmp_path, rows), loop).features['wind "speed", kt'], [np.nan, 2.5, -1], equal_nan=True
    )


def test_a_number_that_stands_for_a_category_is_the_text_it_is_on_the_wire(tmp_path):
    """A column with gaps is often stored as floating point; its 7.0 is the category "7" of a request."""
    rows = """(VALUES
        (TIMESTAMP '2026-01-01', 7.0::DOUBLE, 7, true, 1.0),
        (TIMESTAMP '2026-01-02', 7.5, NULL, NULL, 0.0),
        (TIMESTAMP '2026-01-03', NULL, -1, false, 1.0)
    ) t(needed, a, b, c, delay)"""
    loop = a_flights_loop(features=[Feature(name, "category") for name in "abc"])
    past = read(written(tmp_path, rows), loop, label_time=None)
    assert past.features["a"].tolist() == ["7", "7.5", None]
    assert past.features["b"].tolist() == ["7", None, "-1"]
    assert past.features["c"].tolist() == ["true", None, "false"]


def test_a_file_without_rows_is_an_empty_past(tmp_path):
    assert len(read(written(tmp_path, f"(SELECT * FROM {ROWS} LIMIT 0)"))) == 0


@pytest.mark.parametrize(
    ("change", "error"),
    [({"time": "when"}, "no column when.*It has needed"), ({"label_time": "then"}, "no column then"),
     ({"loop": {"features": [Feature("gust", "float")]}}, "no column gust"),
     ({"loop": {"label": Label("outcome", within="1d")}}, "no column outcome")],
)  # fmt: skip
def test_a_column_that_is_missing_is_named_beside_those_there_are(tmp_path, change, error):
    loop = a_flights_loop(**change.pop("loop", {}))
    with pytest.raises(BadDefinition, match=error):
        read(written(tmp_path), loop, **change)


def test_a_row_without_a_time_is_refused(tmp_path):
    rows = ROWS.replace("(TIMESTAMP '2026-01-01 10:00', NULL", "(NULL, NULL")
    with pytest.raises(BadDefinition, match="1 rows have no time"):
        read(written(tmp_path, rows))


def test_a_column_that_does_not_hold_what_it_must_is_told_with_the_file(tmp_path):
    loop = a_flights_loop(features=[Feature("carrier", "float")])
    with pytest.raises((BadDefinition, UnreadableFile), match=r"past\.parquet.*B6"):
        read(written(tmp_path), loop)


def test_what_is_no_data_file_is_told(tmp_path):
    with pytest.raises(UnreadableFile, match="no such file"):
        read(tmp_path / "none.parquet")
    (tmp_path / "text.parquet").write_text("hello")
    with pytest.raises(UnreadableFile, match=r"text\.parquet"):
        read(tmp_path / "text.parquet")
