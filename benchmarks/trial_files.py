"""What does it cost to analyse a file of a trial's units, beside tea-tasting on the same file?

Five comparisons: two means, one adjusted mean, one ratio, the split. `python -m benchmarks.trial_files [ROWS …]`
(1,000,000 and 10,000,000 where none are named). Each analysis runs in a process of its own, three times; least
processor seconds, least wall seconds, and the process's peak of memory, imports included, are told, and as ratios to
ours. Peers that are not installed are left out: tea-tasting through polars, DuckDB and pandas.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

PEERS = ("polars", "duckdb", "pandas")
ROWS_AT_ONCE = 1_000_000


def write(path: Path, rows: int) -> None:
    """Write a Parquet file of a row per unit."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rng, writer = np.random.default_rng(1), None
    for start in range(0, rows, ROWS_AT_ONCE):
        n = min(ROWS_AT_ONCE, rows - start)
        before, visits = rng.gamma(2, 5, n), rng.poisson(3, n) + 1.0
        table = pa.table(
            {
                "variant": rng.integers(0, 2, n),
                "before": before,
                "visits": visits,
                "orders": rng.binomial(visits.astype(int), 0.1) * 1.0,
                "revenue": rng.gamma(2, 10, n),
                "revenue_after": before + rng.gamma(2, 4, n),
            }
        )
        writer = writer or pq.ParquetWriter(path, table.schema)
        writer.write_table(table)
    assert writer is not None
    writer.close()


def ours(path: Path) -> Callable[[], list[float]]:
    from leaven.experiments.analysis import analyse
    from leaven.experiments.measures import Measure
    from leaven.stats.comparison import Fixed
    from leaven.storage.trial_file import TrialColumns, read_sums

    measures = [Measure("revenue"), Measure("orders"), Measure("revenue_after", covariate=("before",)),
                Measure("orders", "visits")]  # fmt: skip

    def work() -> list[float]:
        sums = read_sums(path, TrialColumns("variant", measures))
        found = analyse(sums, measures, control="0", rule=Fixed(), method="fixed", shares={})
        return [row.p_value for row in found.results]

    return work


def theirs(path: Path, through: str) -> Callable[[], list[float]]:
    import tea_tasting

    experiment = tea_tasting.Experiment(
        revenue=tea_tasting.Mean("revenue"), orders=tea_tasting.Mean("orders"),
        adjusted=tea_tasting.Mean("revenue_after", covariate="before"),
        ratio=tea_tasting.RatioOfMeans("orders", "visits"), split=tea_tasting.SampleRatio(),
    )  # fmt: skip
    module = importlib.import_module(through)

    def work() -> list[float]:
        found = experiment.analyze(module.read_parquet(str(path)))
        return [found[name].pvalue for name in ("revenue", "orders", "adjusted", "ratio")]

    return work


def measure(path: Path, who: str) -> None:
    """Print what one analysis costs in this process, as JSON."""
    work = ours(path) if who == "ours" else theirs(path, who)
    cpu, wall = [], []
    for _ in range(3):
        began = time.process_time(), time.perf_counter()
        p_values = work()
        cpu.append(time.process_time() - began[0])
        wall.append(time.perf_counter() - began[1])
    # Not `getrusage`: its peak begins at what the process that started this one held.
    status = Path("/proc/self/status").read_text()
    peak = int(status.split("VmHWM:")[1].split()[0]) / 1024
    print(json.dumps({"cpu": min(cpu), "wall": min(wall), "peak": peak, "p_values": p_values}))


def compare(rows: int, folder: Path) -> None:
    """Print a table for one size."""
    path = folder / "trial.parquet"
    write(path, rows)
    known = [who for who in PEERS if importlib.util.find_spec(who) and importlib.util.find_spec("tea_tasting")]
    base: dict[str, float] = {}
    print(f"{rows:,} rows, 5 comparisons")
    for who in ("ours", *known):
        command = [sys.executable, "-m", "benchmarks.trial_files", "--measure", str(path), who]
        found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        base = base or found
        # Theirs shifts its sums as ours does not, so the last digits differ.
        assert np.allclose(found["p_values"], base["p_values"], rtol=1e-6, atol=1e-9)
        ratios = " ".join(f"{base[key] / found[key]:5.2f}" for key in ("cpu", "wall", "peak"))
        name = "ours" if who == "ours" else f"tea-tasting, {who}"
        print(f"  {name:<20} {found['cpu']:6.3f} s CPU {found['wall']:6.3f} s wall {found['peak']:6.0f} MB"
              f"   ours / this: {ratios}")  # fmt: skip


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        measure(Path(sys.argv[2]), sys.argv[3])
    else:
        with tempfile.TemporaryDirectory() as scratch:
            for each in map(int, sys.argv[1:] or ["1000000", "10000000"]):
                compare(each, Path(scratch))
