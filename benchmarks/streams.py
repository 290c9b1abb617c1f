"""Is a model that is kept fresh worth its price, on streams that age and on streams that hardly do?

For each stream, `leaven replay … --compare frozen,stateless,stateful,hybrid --json` over its loop file (the demo's for
flights, else `benchmarks/streams/`), and one table of what came out; flights need the extra `demo`,
the embedded titles the extra `text`:

    python -m benchmarks.streams --data FOLDER [--only bike,metro] [--plots FOLDER] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import duckdb

from leaven.demo.flights import write_flights
from leaven.settings import process_environment

PLANS = "frozen,stateless,stateful,hybrid"
_LOOPS = Path(__file__).parent / "streams"
_DEMO = Path(__file__).parent.parent / "src" / "leaven" / "demo"


@dataclass(frozen=True, slots=True)
class Stream:
    """One past: its loop, how its file is made out of the data set, and into what windows the report is cut.

    Where windows are an eighth of what follows the first model, the table shows each; the first model of all plans is
    trained on the time before `start`, less the holdout.
    """

    name: str
    loop: Path
    metric: str
    start: str
    window: str
    write: Callable[[Path, Path], None]  # from the folder of data sets, to a Parquet file
    note: str
    plans: str = PLANS


def _made(source: str, columns: str, *, at: str, known_after: str) -> Callable[[Path, Path], None]:
    """What writes the data set `source` with `columns`, in order of `at`, outcomes known `known_after` later."""

    def write(data: Path, out: Path) -> None:
        duckdb.sql(
            f"COPY (SELECT {at} AS event_time, {at} + INTERVAL {known_after} AS label_time, {columns} "
            f"FROM read_parquet('{data / source}') ORDER BY 1) TO '{out}' (FORMAT parquet)"
        )

    return write


_TITLES = _made("arxiv_titles/arxiv_titles.parquet", "title, label", at="created", known_after="1 DAY")
_KEPT = "extra `text`; embeddings are kept in a file, and the plan that runs first with an empty one makes them"
_STATEFUL_PAYS = "stateful,frozen,stateless"  # it gains nothing by kept embeddings: it needs each once

STREAMS = (
    Stream("flights", _DEMO / "flights_loop.py", "roc_auc", "2013-03-01", "7d",
           lambda data, out: write_flights(out),
           "outcomes at the true landing; weekly windows, so mean and extremes"),
    Stream("bike", _LOOPS / "bike.py", "absolute_error", "2011-05-28", "73d",
           _made("bike_sharing/bike_hourly.parquet", "* EXCLUDE (event_time, season, yr, mnth, casual, registered)",
                 at="event_time", known_after="1 HOUR"),
           "outcomes an hour later; without casual, registered, yr, mnth, season"),
    Stream("metro", _LOOPS / "metro.py", "absolute_error", "2013-10-01", "5478h",
           _made("metro_traffic/metro.parquet",
                 "* EXCLUDE (event_time), hour(event_time) AS hour, isodow(event_time) AS weekday",
                 at="event_time", known_after="1 HOUR"),
           "outcomes an hour later; a gap from August 2014 to June 2015 is in the data"),
    Stream("weather", _LOOPS / "weather.py", "roc_auc", "1958-12-11", "1816d",
           _made("weather_noaa/weather.parquet", "* EXCLUDE (day_index)",
                 at="DATE '1949-01-01' + CAST(day_index AS INTEGER)", known_after="1 DAY"),
           "the data set has no dates: 1 January 1949 plus the row's day_index; outcomes a day later"),
    Stream("arxiv", _LOOPS / "arxiv.py", "error_rate", "2012-08-28", "336d", _TITLES,
           "by the words of a title; categories are known a day later"),
    Stream("arxiv_embedded", _LOOPS / "arxiv_embedded.py", "error_rate", "2012-08-28", "336d", _TITLES,
           _KEPT, plans=_STATEFUL_PAYS),
    Stream("arxiv_both", _LOOPS / "arxiv_both.py", "error_rate", "2012-08-28", "336d", _TITLES,
           _KEPT, plans=_STATEFUL_PAYS),
)  # fmt: skip


def replayed(stream: Stream, data: Path, *, plot: Path | None) -> list[dict[str, Any]]:
    """Return the runs as `leaven replay --json` tells them."""
    with TemporaryDirectory() as place:
        past = Path(place) / f"{stream.name}.parquet"
        stream.write(data, past)
        asked = [
            sys.executable, "-m", "leaven", "replay", str(stream.loop), "--data", str(past), "--time", "event_time",
            "--label-time", "label_time", "--start", stream.start, "--window", stream.window, "--compare", stream.plans,
            "--json",
        ]  # fmt: skip
        asked += [] if plot is None else ["--plot", str(plot / f"{stream.name}.svg")]
        ran = subprocess.run(asked, check=True, stdout=subprocess.PIPE, env=process_environment())
    runs: list[dict[str, Any]] = json.loads(ran.stdout)["runs"]
    return runs


def shown(stream: Stream, runs: list[dict[str, Any]]) -> str:
    """Return the stream's part of the table: a line for each plan."""
    digits = 1 if stream.metric == "absolute_error" else 3
    lines = [f"\n{stream.name}: {stream.metric}; {stream.note}",
             f"{'plan':<10}{'mean':>8}  {'refreshes':>9}{'promoted':>9}{'rejected':>9}{'CPU s':>8}{'rows':>12}{'s':>7}"
             "  by window"]  # fmt: skip
    for run in runs:
        values = [window["metrics"][stream.metric] for window in run["windows"]]
        known = [value for value in values if value is not None]
        each = (
            " ".join("–" if value is None else f"{value:.{digits}f}" for value in values)
            if len(values) <= 10
            else f"{min(known):.{digits}f} to {max(known):.{digits}f}, last {known[-1]:.{digits}f}"
        )
        lines.append(
            f"{run['plan']:<10}{run['mean_window_metrics'][stream.metric]:8.{digits}f}  {run['refreshes']:9d}"
            f"{run['promoted']:9d}{run['rejected']:9d}{run['train_cpu_s']:8.1f}{run['train_rows']:12,d}"
            f"{run['seconds']:7.1f}  {each}"
        )
    return "\n".join(lines)


def main() -> None:
    """Replay each stream and print the table, stream by stream."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of the data sets")
    parser.add_argument("--only", default=",".join(stream.name for stream in STREAMS), help="streams, by commas")
    parser.add_argument("--plots", type=Path, help="folder for an SVG of each stream")
    parser.add_argument("--json", type=Path, help="write the runs, by stream, into this file")
    given = parser.parse_args()
    found = {}
    for stream in STREAMS:
        if stream.name in given.only.split(","):
            found[stream.name] = replayed(stream, given.data, plot=given.plots)
            print(shown(stream, found[stream.name]), flush=True)
    if given.json is not None:
        given.json.write_text(json.dumps(found))


if __name__ == "__main__":
    main()
