"""What does it cost to assign a unit, and to analyse a trial?

Ratios within one run, on processor time: assignment with a layer and an experiment against a bare SHA-256 bucket; five
comparisons (two means, one adjusted mean, one ratio, the split) of a Parquet file against tea-tasting on the same file
through pandas, and against ours from running sums. `python -m benchmarks.trials [ROWS]`.
"""

from __future__ import annotations

import hashlib
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import tea_tasting

from leaven.experiments.analysis import analyse
from leaven.experiments.experiment import Experiment, Part, assign, slots
from leaven.experiments.measures import Measure
from leaven.stats.comparison import Fixed
from leaven.storage.trial_file import TrialColumns, read_sums

MEASURES = [
    Measure("revenue"),
    Measure("orders"),
    Measure("revenue_after", covariate=("before",)),
    Measure("orders", "visits"),
]


def cpu(work: Callable[[], object], *, rounds: int = 3) -> float:
    """Return the least processor seconds of some rounds."""
    best = float("inf")
    for _ in range(rounds):
        began = time.process_time()
        work()
        best = min(best, time.process_time() - began)
    return best


def assignment() -> None:
    """Print nanoseconds per unit."""
    units = [f"user-{i}" for i in range(50_000)]
    experiment = Experiment("checkout", slots({"a": 0.9, "b": 0.1}), part=Part("web", 0, 1))
    ours = cpu(lambda: [assign(unit, experiment) for unit in units])
    bare = cpu(lambda: [int(hashlib.sha256(f"checkout.{u}".encode()).hexdigest()[:8], 16) % 10_000 for u in units])
    print(f"assign, layer and experiment: {1e9 * ours / len(units):,.0f} ns; bare sha256 bucket: "
          f"{1e9 * bare / len(units):,.0f} ns; ratio {ours / bare:.2f}")  # fmt: skip


def analysis(rows: int, folder: Path) -> None:
    """Print seconds of processor time for one analysis."""
    rng, path = np.random.default_rng(1), folder / "trial.parquet"
    before, visits = rng.gamma(2, 5, rows), rng.poisson(3, rows) + 1.0
    orders = rng.binomial(visits.astype(int), 0.1) * 1.0
    pd.DataFrame(
        {
            "variant": rng.integers(0, 2, rows),
            "before": before,
            "visits": visits,
            "orders": orders,
            "revenue": rng.gamma(2, 10, rows),
            "revenue_after": before + rng.gamma(2, 4, rows),
        }
    ).to_parquet(path)
    columns = TrialColumns("variant", MEASURES)
    sums = read_sums(path, columns)
    judge = lambda kept: analyse(kept, MEASURES, control="0", rule=Fixed(), method="fixed", shares={})  # noqa: E731
    experiment = tea_tasting.Experiment(
        revenue=tea_tasting.Mean("revenue"), orders=tea_tasting.Mean("orders"),
        ratio=tea_tasting.RatioOfMeans("orders", "visits"),
        adjusted=tea_tasting.Mean("revenue_after", covariate="before"), split=tea_tasting.SampleRatio(),
    )  # fmt: skip
    ours = cpu(lambda: judge(read_sums(path, columns)))
    theirs = cpu(lambda: experiment.analyze(pd.read_parquet(path)))
    kept = cpu(lambda: judge(sums))
    print(f"{rows:,} rows, 5 comparisons: {ours:.2f} s; tea-tasting with pandas {theirs:.2f} s; "
          f"ratio {ours / theirs:.2f}; from running sums {1e3 * kept:.2f} ms")  # fmt: skip


if __name__ == "__main__":
    assignment()
    with tempfile.TemporaryDirectory() as scratch:
        analysis(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000, Path(scratch))
