"""What does it cost to assign a unit, and to judge a trial from its sums?

Processor time within one run: assignment with a layer and an experiment against a bare SHA-256 bucket; five comparisons
(two means, one adjusted mean, one ratio, the split) from running sums, and one sequential comparison. Analyses of whole
files are in `benchmarks.trial_files`. `python -m benchmarks.trials`.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from functools import partial

import numpy as np

from leaven.experiments.analysis import analyse
from leaven.experiments.experiment import Experiment, Part, assign, slots
from leaven.experiments.measures import Cell, Kept, Measure, Sums
from leaven.stats.comoments import comoments
from leaven.stats.comparison import Fixed, compare
from leaven.stats.confidence_sequence import ConfidenceSequence
from leaven.stats.estimate import Estimate
from leaven.stats.group_sequential import GroupSequential

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


def from_sums() -> None:
    """Print milliseconds of an analysis of sums that were kept, whatever the rows behind them."""
    rng = np.random.default_rng(1)
    for rows in (10_000, 1_000_000):
        judged = timed(partial(analyse, sums_of(rng, rows), MEASURES, control="old", rule=Fixed(), method="fixed",
                               shares={}))  # fmt: skip
        print(f"5 comparisons from the sums of {rows:,} units: {1e3 * judged:.2f} ms")
    estimates = [Estimate(10.0, 0.008, 2_000), Estimate(10.45, 0.0079, 2_000)]
    looks = tuple(k / 14 for k in range(1, 15))
    for name, rule in (("fixed", Fixed()), ("confidence sequence", ConfidenceSequence()),
                       ("group-sequential, 14 looks", GroupSequential(looks))):  # fmt: skip
        one = timed(partial(compare, *estimates, rule))
        print(f"one comparison from sums, {name}: {1e3 * one:.3f} ms")


def timed(work: Callable[[], object], *, times: int = 200) -> float:
    """Return the least processor seconds of one call, among rounds of `times`."""
    work()  # what is kept from the first call on: imports, boundaries
    return cpu(lambda: [work() for _ in range(times)]) / times


def sums_of(rng: np.random.Generator, rows: int) -> Sums:
    """The sums of a trial of two arms."""
    units, cells = {"new": rows, "old": rows}, []
    for measure in MEASURES:
        columns = len(measure.columns) + len(measure.covariate)
        arms: dict[str, Kept] = {arm: comoments(*rng.gamma(2, 5, (columns, rows))) for arm in units}
        cells.append(Cell(measure.name, None, arms))
    return Sums(units, units, tuple(cells))


if __name__ == "__main__":
    assignment()
    from_sums()
