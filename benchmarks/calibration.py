"""How often do the rules of a trial err, and how soon do they find what is there?

By simulation, each line with its own seed: `python -m benchmarks.calibration`. Exit code 1 where a promise is missed.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from leaven.stats.confidence_sequence import mixture, one_sided_evidence
from leaven.stats.failures import more_failures_evidence
from leaven.stats.split import split_evidence
from tests.stats.simulated_trials import (
    a_canary,
    daily,
    effect_found_by_a_single_look,
    first_day,
    group_sequential_bounds,
    hourly_split,
    label_delays,
)

FIXED = 1.959964
HARM = {"spread": mixture(0.1, 7_000)}  # one-sided 5 %, tightest at half the plan


@dataclass(frozen=True)
class Measured:
    what: str
    value: float
    unit: str
    runs: int
    seed: int
    most: float | None = None
    least: float | None = None

    @property
    def kept(self) -> bool:
        return (self.most is None or self.value <= self.most) and (self.least is None or self.value >= self.least)

    def __str__(self) -> str:
        bound = f"<= {self.most:g}" if self.most is not None else f">= {self.least:g}" if self.least is not None else ""
        said = "" if not bound else "kept" if self.kept else "MISSED"
        return (f"{self.what:<66} {self.value:7.2f} {self.unit:<7} {bound:<8} {said:<7} "
                f"({self.runs:,} runs, seed {self.seed})")  # fmt: skip


def promotions() -> Iterator[Measured]:
    """Group-sequential, 14 daily looks."""
    bounds = group_sequential_bounds()
    for binary, name in ((False, "normal"), (True, "binary")):
        null, _ = daily(14, trials=20_000, effect=0, binary=binary, seed=11)
        false = 100 * (np.abs(null) >= bounds).any(axis=1).mean()
        yield Measured(f"false promotions, 14 daily looks, {name}", false, "%", 20_000, 11, most=5.5)
        peeked = 100 * (np.abs(null) >= FIXED).any(axis=1).mean()
        yield Measured(f"  the same read daily by a t-test, {name}", peeked, "%", 20_000, 11)
        effect = effect_found_by_a_single_look(binary=binary)
        found, _ = daily(14, trials=20_000, effect=effect, binary=binary, seed=12)
        single = 100 * (np.abs(found[:, -1]) >= FIXED).mean()
        yield Measured(f"  power of a single look at the end, {name}", single, "%", 20_000, 12)
        power = 100 * (found >= bounds).any(axis=1).mean()
        yield Measured(f"power, 14 daily looks, {name}", power, "%", 20_000, 12, least=77)


def harm() -> Iterator[Measured]:
    """The one-sided confidence sequence, 14 daily looks."""
    for binary, name in ((False, "normal"), (True, "binary")):
        null, n = daily(14, trials=20_000, effect=0, binary=binary, seed=15)
        false = 100 * (one_sided_evidence(-null, n, **HARM) >= 20).any(axis=1).mean()
        yield Measured(f"false rollbacks, 14 daily looks, {name}", false, "%", 20_000, 15, most=2.5)
        effect = -2 * effect_found_by_a_single_look(binary=binary)
        hurt, n = daily(14, trials=10_000, effect=effect, binary=binary, seed=16)
        caught = one_sided_evidence(-hurt, n, **HARM) >= 20
        yield Measured(f"  twice the planned effect as harm: found, {name}", 100 * caught.any(axis=1).mean(), "%",
                       10_000, 16)  # fmt: skip
        days = float(first_day(caught).mean())
        yield Measured(f"twice the planned effect as harm: mean day, {name}", days, "days", 10_000, 16, most=4.5)


def split() -> Iterator[Measured]:
    """The sequential split test, hourly for 28 days, 1,008 units a day."""
    false = (split_evidence(hourly_split(0.5, trials=4_000, per_hour=42, seed=6), [1, 1]) > 100).any(axis=1).mean()
    yield Measured("even split called broken, hourly for 28 days", 100 * false, "%", 4_000, 6, most=1)
    broken = split_evidence(hourly_split(0.52, trials=1_000, per_hour=42, seed=7), [1, 1]) > 100
    yield Measured("  52 : 48 called broken within 28 days", 100 * broken.any(axis=1).mean(), "%", 1_000, 7)


def delays() -> Iterator[Measured]:
    """Labels 1 and 2 days late, no difference."""
    for day in (7, 14, 28):
        misled = 100 * (np.abs(label_delays(20_000, closed=False, at_day=day, seed=12)) > FIXED).mean()
        yield Measured(f"  labels 1 and 2 days late, all compared on day {day}: significant", misled, "%", 20_000, 12)
    right = 100 * (np.abs(label_delays(20_000, closed=True, at_day=28, seed=12)) > FIXED).mean()
    yield Measured("labels 1 and 2 days late, closed windows, day 28", right, "%", 20_000, 12, most=6)


def canary() -> Iterator[Measured]:
    """Failures, looked at every second: 50 requests a second, 10 % to the canary."""
    caught = more_failures_evidence(*a_canary((0.005, 0.02), seconds=600, trials=1_000, seed=1), share=0.1) >= 20
    first = np.where(caught.any(axis=1), caught.argmax(axis=1) + 1, 600)
    yield Measured("canary, failures from 0.5 % to 2 %: median until caught", float(np.median(first)) / 60, "minutes",
                   1_000, 1, most=3)  # fmt: skip
    false = more_failures_evidence(*a_canary((0.03, 0.03), seconds=1_800, trials=2_000, seed=2), share=0.1) >= 20
    yield Measured("canary, 3 % fail in both arms: rolled back within 30 minutes", 100 * false.any(axis=1).mean(), "%",
                   2_000, 2, most=5)  # fmt: skip


def main() -> int:
    every = [each for part in (promotions, harm, split, delays, canary) for each in part()]
    print("\n".join(map(str, every)))
    return 0 if all(each.kept for each in every) else 1


if __name__ == "__main__":
    sys.exit(main())
