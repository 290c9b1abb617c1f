"""What does the lake cost at millions of rows, beside DuckDB on the same files?

Builds, once per folder and number of rows, a file of past requests (25 features, 40 % with an outcome) and a lake that
it is imported into; then asks the same questions of the lake and of DuckDB. Every measurement is a process of its own,
under the same memory limit, and DuckDB's has to hand over the same columns as NumPy arrays. Compare the ratios:
absolute times are this machine's, today.

    python benchmarks/lake.py [--rows 5000000] [--folder .benchmark-lake] [--memory 1GB] [--rounds 3] [--json]
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

FIRST = datetime(2026, 3, 1, tzinfo=UTC)
DAYS, TEXTS, NUMBERS = 30, 5, 20
WINDOW = (FIRST + timedelta(days=12), FIRST + timedelta(days=18))  # a fifth of the rows
LABELLED = timedelta(days=7)
LOOP_FILE = f"""
from leaven import Feature, Label, Loop
from leaven.curation import Recent
from leaven.learners import XGBoost
from leaven.training import Stateless

loop = Loop(
    "bench",
    features=[*(Feature(f"s{{i}}", "category") for i in range({TEXTS})),
              *(Feature(f"x{{i}}", "float") for i in range({NUMBERS}))],
    unit="unit", label=Label("outcome", above=0.5, within="7d"),
    learner=XGBoost(), data=Recent("28d"), plan=Stateless(),
)
"""


def past(given: argparse.Namespace) -> None:
    """Write the file of past requests; the seed decides every value."""
    import duckdb

    def uniform(salt: int) -> str:
        return f"(hash(i * 64 + {salt} + {given.seed}) % 1000003) / 1000003.0"

    texts = [f"'{'abcde'[j]}' || hash(i * 64 + {40 + j} + {given.seed}) % {n} AS s{j}"
             for j, n in enumerate((12, 300, 40, 7, 2000))]  # fmt: skip
    numbers = [f"round(ln(1 / (1e-6 + {uniform(j)})), 6) AS x{j}" for j in range(NUMBERS)]
    at = f"{int(FIRST.timestamp()) * 1_000_000} + CAST(i * {DAYS * 86_400e6 / given.rows} AS BIGINT)"
    # Most outcomes come within hours, some within days.
    late = f"CASE WHEN {uniform(54)} < 0.7 THEN 7200e6 ELSE 172800e6 END * ln(1 / (1e-6 + {uniform(53)}))"
    unit = f"'user-' || hash(i * 64 + 50 + {given.seed}) % {units(given)}"
    outcome = f"CASE WHEN {uniform(51)} < 0.4 THEN CAST(hash(i * 64 + 52 + {given.seed}) % 2 AS DOUBLE) END"
    with duckdb.connect(config={"memory_limit": given.memory}) as connection:
        connection.execute(
            f"""COPY (SELECT make_timestamptz({at}) AS "at", {unit} AS unit, {", ".join(texts + numbers)},
                    {outcome} AS outcome,
                    make_timestamptz({at} + CAST({late} AS BIGINT)) AS told_at
                FROM range({given.rows}) r(i)) TO '{given.folder / "past.parquet"}' (FORMAT PARQUET)"""
        )


def units(given: argparse.Namespace) -> int:
    """How many units there are: some 25 rows of each."""
    return int(max(10, given.rows // 25))


def rewritten(given: argparse.Namespace) -> dict[str, Any]:
    """DuckDB alone: the file of past requests written anew."""
    import duckdb

    target = given.folder / "copy.parquet"
    with duckdb.connect(config={"memory_limit": given.memory}) as connection:
        took = seconds(lambda: connection.execute(
            f"COPY (FROM '{given.folder / 'past.parquet'}') TO '{target}' (FORMAT PARQUET)"))  # fmt: skip
    target.unlink()
    return took


def imported(given: argparse.Namespace) -> dict[str, Any]:
    """The file of past requests into an empty lake."""
    from leaven.storage.importing import import_history

    shutil.rmtree(given.folder / "home", ignore_errors=True)
    (given.folder / "bench.py").write_text(LOOP_FILE)
    installed = an_app(given)
    loop = installed.enter(given.folder / "bench.py")
    took = seconds(lambda: import_history(
        installed.lake, loop, given.folder / "past.parquet", time="at", label_time="told_at"))  # fmt: skip
    report = took.pop("answer")
    assert report.predictions == given.rows, report
    return took | {"predictions": report.predictions, "feedback": report.feedback}


def an_app(given: argparse.Namespace) -> Any:
    """The installation that the benchmark fills."""
    from leaven.app import App
    from leaven.settings import settings_from

    return App(settings_from({"LEAVEN_QUERY_MEMORY": given.memory}, home=given.folder / "home"))


def stats(given: argparse.Namespace) -> dict[str, Any]:
    """How much there is, from a process that has just started; and as a command, interpreter and all."""
    installed = an_app(given)
    took = seconds(lambda: installed.lake.stats("bench"))
    answer = took.pop("answer")
    command = [sys.executable, "-m", "leaven", "events", "stats", "bench", "--json", "--home", given.folder / "home"]
    whole = seconds(lambda: subprocess.run(command, check=True, capture_output=True))
    return took | {"rows": answer.predictions.rows, "files": answer.predictions.files, "command": whole["seconds"]}


def window_by_lake(given: argparse.Namespace) -> dict[str, Any]:
    """A fifth of the predictions with all their features, no labels asked for."""
    from leaven.events import Label
    from leaven.events.source import Span

    source = an_app(given).source("bench")
    rule = Label("nothing of this name", within="1s")
    took = seconds(lambda: len(source.examples(Span(*WINDOW), rule, as_of=FIRST + timedelta(days=99))))
    return took | {"rows": took.pop("answer")}


def window_by_duckdb(given: argparse.Namespace) -> dict[str, Any]:
    """The same rows and columns by DuckDB alone."""
    took = seconds(lambda: len(by_duckdb(given, _scan(given))["id"]))
    return took | {"rows": took.pop("answer")}


def join_by_lake(given: argparse.Namespace) -> dict[str, Any]:
    """A fifth of the predictions with all their features and their labels."""
    import numpy as np

    from leaven.events import Label
    from leaven.events.source import Span

    source = an_app(given).source("bench")
    rule = Label("outcome", above=0.5, within="7d")

    def read() -> tuple[int, int]:
        found = source.examples(Span(*WINDOW), rule, as_of=FIRST + timedelta(days=99))
        return len(found), int(np.nansum(found.labels.value))

    took = seconds(read)
    rows, positive = took.pop("answer")
    return took | {"rows": rows, "positive": positive}


def join_by_duckdb(given: argparse.Namespace) -> dict[str, Any]:
    """The same by DuckDB alone: the last outcome within seven days, whether it is above the bound."""
    import numpy as np

    sql = f"""
        WITH p AS ({_scan(given, order=False)}), f AS (
            SELECT f.prediction, arg_max(f.value, f."at") AS value FROM {_files(given, "feedback")} f
            JOIN p ON p.id = f.prediction WHERE f."at" BETWEEN p."at" AND p."at" + INTERVAL 7 DAY GROUP BY 1)
        SELECT p.*, CASE WHEN f.value > 0.5 THEN 1.0 WHEN f.value IS NOT NULL THEN 0.0 END AS label
        FROM p LEFT JOIN f ON f.prediction = p.id ORDER BY p."at", p.id"""

    def read() -> tuple[int, int]:
        found = by_duckdb(given, sql)
        return len(found["id"]), int(np.ma.sum(found["label"]))

    took = seconds(read)
    rows, positive = took.pop("answer")
    return took | {"rows": rows, "positive": positive}


def erased(given: argparse.Namespace) -> dict[str, Any]:
    """One unit out of all days, from the request to the commits; then the files that held it."""
    from leaven.duration import micros
    from leaven.storage.erasing import Unit, erase_units

    lake = an_app(given).lake
    round_of = sum(1 for _ in given.folder.glob("erased-*"))  # another unit each time
    (given.folder / f"erased-{round_of}").touch()
    unit = Unit(f"benchmark-{round_of}", f"user-{round_of}", "salt")
    took = seconds(lambda: erase_units(lake, "bench", [unit], at=micros(FIRST), hold=lambda: True))
    predictions, feedback = took.pop("answer").rows[unit.request]
    swept = seconds(lambda: lake.vacuum("bench", hours=0))
    return took | {"predictions": predictions, "feedback": feedback, "vacuum": swept["seconds"]}


def by_duckdb(given: argparse.Namespace, sql: str) -> Any:
    """Run SQL with DuckDB alone, under the same memory limit."""
    import duckdb

    with duckdb.connect(config={"memory_limit": given.memory, "temp_directory": str(given.folder / "spill")}) as opened:
        opened.execute("SET TimeZone = 'UTC'")
        return opened.execute(sql).fetchnumpy()


def _scan(given: argparse.Namespace, *, order: bool = True) -> str:
    features = ", ".join([*(f"f_s{i}" for i in range(TEXTS)), *(f"f_x{i}" for i in range(NUMBERS))])
    start, end = (f"TIMESTAMPTZ '{moment.isoformat()}'" for moment in WINDOW)
    return f"""SELECT id, "at", unit, arm, version, answer, propensity, seconds, error, {features}
        FROM {_files(given, "predictions")} WHERE role = 'live' AND "at" >= {start} AND "at" < {end}
        {'ORDER BY "at", id' if order else ""}"""


def _files(given: argparse.Namespace, table: str) -> str:
    from deltalake import DeltaTable

    files = DeltaTable(given.folder / "home" / "lake" / "bench" / table).file_uris()
    return "read_parquet([" + ", ".join(f"'{file}'" for file in files) + "], hive_partitioning = false)"


def seconds(work: Callable[[], Any]) -> dict[str, Any]:
    """Wall and CPU seconds of `work`, and its answer."""
    cpu, wall = time.process_time(), time.perf_counter()
    answer = work()
    return {"seconds": time.perf_counter() - wall, "cpu": time.process_time() - cpu, "answer": answer}


MEASURED: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
    "rewritten": rewritten, "imported": imported, "stats": stats, "window by DuckDB": window_by_duckdb,
    "window by the lake": window_by_lake, "join by DuckDB": join_by_duckdb, "join by the lake": join_by_lake,
    "one unit erased": erased,
}  # fmt: skip
ONCE = ("rewritten", "imported")
RATIOS = (("window by the lake", "window by DuckDB"), ("join by the lake", "join by DuckDB"), ("imported", "rewritten"))


def measure(name: str, given: argparse.Namespace) -> dict[str, Any]:
    """Run one measurement in a process of its own; its peak of memory is that process's."""
    command = [sys.executable, __file__, "--only", name, "--rows", str(given.rows), "--folder", str(given.folder),
               "--memory", given.memory, "--seed", str(given.seed)]  # fmt: skip
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    if ran.returncode:
        sys.exit(f"{name} failed:\n{ran.stderr}")
    answer: dict[str, Any] = json.loads(ran.stdout)
    return answer


def one(name: str, given: argparse.Namespace) -> None:
    """Measure in this process, and say what came out."""
    found = MEASURED[name](given)
    found.pop("answer", None)
    print(json.dumps(found | {"peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}))


def main() -> None:
    """Build what is not there, measure, and print the medians with their ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=5_000_000)
    parser.add_argument("--folder", type=Path, default=Path(".benchmark-lake"))
    parser.add_argument("--memory", default="1GB")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--only", choices=list(MEASURED), help=argparse.SUPPRESS)
    given = parser.parse_args()
    given.folder = given.folder.absolute()
    if given.only:
        one(given.only, given)
        return
    given.folder.mkdir(parents=True, exist_ok=True)
    built = given.folder / f"built-{given.rows}-{given.seed}.json"
    if not built.exists():
        past(given)
        built.write_text(json.dumps({name: measure(name, given) for name in ONCE}))
    found: dict[str, list[dict[str, Any]]] = {name: [each] for name, each in json.loads(built.read_text()).items()}
    for _ in range(given.rounds):
        for name in MEASURED:
            if name not in ONCE:
                found.setdefault(name, []).append(measure(name, given))
    say(found, given)


def say(found: dict[str, list[dict[str, Any]]], given: argparse.Namespace) -> None:
    """Print medians and ratios."""
    medians = {
        name: {key: statistics.median(each[key] for each in rounds) for key in rounds[0]}
        for name, rounds in found.items()
    }
    ratios = {f"{a} / {b}": {key: medians[a][key] / medians[b][key] for key in ("seconds", "cpu")} for a, b in RATIOS}
    if given.json:
        print(json.dumps({"rows": given.rows, "memory": given.memory, "medians": medians, "ratios": ratios}))
        return
    print(f"{given.rows:,} predictions, DuckDB under {given.memory}; {os.cpu_count()} cores; medians")
    for name, each in medians.items():
        rest = ", ".join(
            f"{key} {value:,.6g}" for key, value in each.items() if key not in ("seconds", "cpu", "peak_mb")
        )
        print(f"{name:20} {each['seconds']:8.2f} s {each['cpu']:8.2f} CPU s {each['peak_mb']:7.0f} MB   {rest}")
    for name, each in ratios.items():
        print(f"{name:40} {each['seconds']:.2f} of the time, {each['cpu']:.2f} of the CPU")
    speed = given.rows / medians["imported"]["seconds"]
    print(f"import: {speed:,.0f} rows/s; stats: {medians['stats']['seconds']:.3f} s")


if __name__ == "__main__":
    main()
