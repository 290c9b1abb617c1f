"""The flights that the demo shows are the real ones, with the moments at which their delays became known."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import duckdb
import pytest

from leaven.demo.flights import SLICE, write_flights


@pytest.fixture(scope="module")
def flights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("flights") / "it's flights.parquet"
    write_flights(out)
    return out


def test_all_departures_of_the_year_are_there(flights: Path):
    rows, known, first = duckdb.execute(
        "SELECT count(*), count(label_time), epoch(min(event_time)) FROM read_parquet(?)", [str(flights)]
    ).fetchall()[0]
    assert (rows, known) == (336_776, 327_346)
    assert first == 1357035300  # 1 January 2013, 05:15 in New York, is 10:15 UTC


def test_an_arrival_is_known_no_earlier_than_the_aeroplane_could_land(flights: Path):
    """Between departure and arrival lies at least the time in the air; the rest is taxiing, minutes and not hours."""
    known = duckdb.execute(
        "SELECT quantile_cont(epoch(label_time - event_time) / 60, [0.05, 0.5, 0.95]), min(label_time - event_time) "
        "FROM read_parquet(?)", [str(flights)]
    ).fetchall()[0]  # fmt: skip
    assert known[0] == pytest.approx([64, 170, 385], abs=2)  # as measured by others on the same flights
    assert known[1].total_seconds() > 0


def test_they_equal_the_prepared_data_set_but_for_two_nights(flights: Path, shared_data: Path):
    """On the evenings after the clocks were changed, that set takes arrivals past midnight by the old time."""
    theirs = shared_data / "nycflights13" / "flights.parquet"
    columns = "epoch_us(event_time) AS asked, epoch_us(label_time) AS known, carrier, origin, dest, arr_delay"
    differing = duckdb.execute(
        "SELECT CAST(make_timestamp(asked - 12 * 3600000000) AS DATE) "
        f"FROM (SELECT {columns} FROM read_parquet($ours) EXCEPT ALL "
        f"SELECT {columns} FROM read_parquet($theirs))", {"ours": str(flights), "theirs": str(theirs)}
    ).fetchall()  # fmt: skip
    assert len(differing) == 20
    assert {day for (day,) in differing} == {date(2013, 3, 10), date(2013, 11, 3)}


def test_the_bundled_slice_is_part_of_them(flights: Path):
    missing = duckdb.execute(
        "SELECT count(*) FROM (FROM read_parquet($slice) EXCEPT ALL FROM read_parquet($ours))",
        {"slice": str(SLICE), "ours": str(flights)},
    ).fetchall()[0][0]
    assert missing == 0
    assert SLICE.stat().st_size < 1_000_000
