"""What does a verdict on an A/B test cost, and how often is it wrong?

`python -m benchmarks.ab_test [RUNS]`. First the processor time of a verdict from kept sums (28 daily buckets, 8 slices,
6 metrics), whatever the rows, and of reading a bucket of a million rows. Then whole tests through the stage, judged on
each of 14 days: how many of RUNS are promoted or stopped. Exit code 1 where a promise is missed.
"""

from __future__ import annotations

import sys
import time
from statistics import median

import msgspec
import numpy as np

from leaven.events import Happens, Label
from leaven.experiments import ABTest, Guardrail, Outcome
from leaven.experiments.ab_evidence import ABEvidence
from leaven.experiments.ab_observe import observed
from leaven.stats import boundaries
from tests.experiments.ab_runs import ends, judged, normal_sums, with_day
from tests.experiments.ab_world import World, traffic
from tests.experiments.test_ab_verdicts import EFFECT, HUNDRED, binary, ends_with_delays, normal, share

SIX = ABTest(
    units=300_000, at_least="1d", slices=["country"],
    guardrails=[Guardrail(Outcome(Happens(name, within="1d"))) for name in ("bought", "stayed")],
    secondary=[Outcome(Happens(name, within="1d")) for name in ("viewed", "liked", "shared")],
)  # fmt: skip
NAMES = ("log_loss", "bought", "stayed", "viewed", "liked", "shared")


def verdicts() -> bool:
    """Print milliseconds per verdict."""
    rng, evidence = np.random.default_rng(0), ABEvidence()
    for _ in range(28):
        cells = {}
        for name in NAMES:
            cells[name] = (normal_sums(rng, 5_000, 1.0), normal_sums(rng, 5_000, 1.0))
            for number in range(8):
                cells[f"{name}@country={number}"] = (normal_sums(rng, 600, 1.0), normal_sums(rng, 600, 1.0))
        evidence = with_day(evidence, cells)
    boundaries._boundaries.cache_clear()
    boundaries._after.cache_clear()
    began = time.process_time()
    verdict = judged(SIX, evidence)
    first = 1e3 * (time.process_time() - began)
    took = []
    for _ in range(50):
        began = time.process_time()
        judged(SIX, evidence)
        took.append(1e3 * (time.process_time() - began))
    size = len(msgspec.json.encode(evidence))
    assert verdict.outcome == "hold", verdict
    assert "at look 28" in verdict.why, verdict
    print(f"a verdict, 28 buckets, 8 slices, 6 metrics: {median(took):.1f} ms; the first of a process, with all 28 "
          f"boundaries: {first:.1f} ms; the evidence has {size / 1e3:.0f} kB as JSON")  # fmt: skip
    return median(took) <= 5


def reading(rows: int = 1_000_000) -> None:
    """Print seconds to read one bucket of so many rows, log loss and one guardrail."""
    from leaven.events.columns import Matched, Predictions, column_time
    from tests.experiments.ab_world import BEGIN

    rng = np.random.default_rng(1)
    at = column_time(BEGIN) + np.sort(rng.integers(0, 2 * 86_400_000_000, rows)).astype("m8[us]")
    number = rng.integers(0, rows // 5, rows)
    unit = np.array([f"u{each}" for each in range(rows // 5)], dtype=object)[number]
    canary = number % 2 == 1
    served = Predictions(
        np.array([f"p{each}" for each in range(rows)], dtype=object), at, unit,
        np.where(canary, "canary", "champion").astype(object), np.where(canary, "2", "1").astype(object),
        rng.random(rows), np.full(rows, 0.5), rng.gamma(2, 0.01, rows), np.full(rows, None, dtype=object), {},
    )  # fmt: skip
    late = at + rng.integers(0, 3_600_000_000, rows).astype("m8[us]")
    told = Matched(
        np.arange(rows), late, late, np.full(rows, "bought", dtype=object), np.full(rows, "label", dtype=object),
        (rng.random(rows) < 0.5).astype(float),
    )  # fmt: skip
    stage = ABTest(guardrails=[Guardrail(Outcome(Label("bought", within="12h")))])
    began = time.process_time()
    seen = observed(stage.design("log_loss"), traffic(World(served, told), 2.6), None)
    print(f"a bucket of two days, {rows:,} rows in memory, {sum(seen.sums.units.values()):,} units: "
          f"{time.process_time() - began:.1f} s once")  # fmt: skip


def promises(runs: int) -> bool:
    """Print how whole tests end."""
    stage, kept = ABTest(**HUNDRED), True
    for name, draw, few in (
        ("nothing differs, normal", normal(0.0), True), ("nothing differs, 10 %", binary(0.1), True),
        ("nothing differs, 1 %", binary(0.01), True), ("one look finds it in 80 %", normal(-EFFECT), False),
    ):  # fmt: skip
        told = ends(stage, draw, days=14, runs=runs, seed=1)
        promoted, stopped = share(told, "advance"), share(told, "stop")
        kept &= stopped <= 0.025 and (promoted <= 0.055 if few else promoted >= 0.77 - 3 * (0.77 * 0.23 / runs) ** 0.5)
        print(f"{name}: {promoted:.1%} promoted, {stopped:.1%} stopped as harm")
    for name, effect, outcome in (("twice as good", -2 * EFFECT, "advance"), ("twice as bad", 2 * EFFECT, "stop")):
        told = ends(stage, normal(effect), days=14, runs=max(1, runs // 4), seed=2)
        days = float(np.mean([day for each, day, _ in told if each == outcome]))
        kept &= outcome == "advance" or days <= 4.5
        print(f"{name}: {share(told, outcome):.1%} found, on day {days:.1f} on average")
    delays = ends_with_delays(max(1, runs // 4), over=10.0)
    wrong = sum(each in ("advance", "stop") for each in delays) / len(delays)
    print(f"labels after 1 day and 2 days, nothing differs: {wrong:.1%} promoted or stopped")
    return kept and wrong <= 0.06


if __name__ == "__main__":
    fast = verdicts()
    reading()
    fine = promises(int(sys.argv[1]) if len(sys.argv) > 1 else 4_000)
    sys.exit(0 if fast and fine else 1)
