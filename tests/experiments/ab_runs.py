"""Whole A/B tests in numbers: the sums of each day are drawn, and the stage judges them day by day."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import msgspec
import numpy as np

from leaven.experiments import ABTest
from leaven.experiments.ab_evidence import ARMS, ABEvidence, Bucket, Closed, Labelled, with_bucket
from leaven.experiments.measures import Cell
from leaven.experiments.verdict import Verdict
from leaven.stats.comoments import Comoments
from leaven.stats.moments import Moments

DAY = timedelta(days=1)
_DAY = 86_400_000_000


def two_arms(champion: Any, canary: Any) -> dict[str, Any]:
    return dict(zip(ARMS, (champion, canary), strict=True))


def with_day(
    evidence: ABEvidence, cells: dict[str, tuple[Comoments, Comoments]], *, lag: float = 1.0, **told: Any
) -> ABEvidence:
    """The evidence with one day more: sums per metric (`name`, or `name@slice`) of champion and challenger."""
    made = tuple(
        Cell(name.partition("@")[0], name.partition("@")[2] or None, two_arms(*arms)) for name, arms in cells.items()
    )
    measured = {arm: made[0].arms[arm].count for arm in ARMS}
    units = told.get("units", measured)
    number = len(evidence.buckets) + 1
    labelled = told.get("labelled", two_arms(*(Labelled(units[arm], measured[arm], Moments()) for arm in ARMS)))
    slices = tuple(cell.slice for cell in made if cell.slice is not None)
    bucket = Bucket(int((number + lag) * _DAY), units, measured, made[0].arms)
    grown = with_bucket(evidence, Closed(bucket, made, {"rule": labelled}, slices, {}))
    came = sum(units.values())
    return msgspec.structs.replace(
        grown,
        units={arm: evidence.units[arm] + units[arm] for arm in ARMS},
        entered=(*evidence.entered, came),
    )


def judged(stage: ABTest, evidence: ABEvidence, *, days: float | None = None, metric: str = "log_loss") -> Any:
    elapsed = timedelta(microseconds=evidence.buckets[-1].closed_after) if days is None else days * DAY
    (step,) = stage.steps()
    return stage.judge(step, evidence, elapsed=elapsed, look=1, metric=metric)


def normal_sums(rng: np.random.Generator, count: int, mean: float, sd: float = 1.0) -> Comoments:
    """What is kept of so many normal numbers, drawn as such."""
    spread = sd * sd * float(rng.chisquare(count - 1))
    return Comoments(count, (mean + sd * float(rng.normal()) / count**0.5,), (spread,))


def ends(stage: ABTest, draw: Any, *, days: int, runs: int, seed: int) -> list[tuple[str, int, str]]:
    """How each run ended: outcome, day, words; `draw(rng)` gives the two arms' sums of a day."""
    rng, told = np.random.default_rng(seed), []
    for _ in range(runs):
        evidence, verdict = ABEvidence(), Verdict("hold", "")
        while verdict.outcome == "hold" and len(evidence.buckets) < days:
            evidence = with_day(evidence, {"log_loss": draw(rng)})
            verdict = judged(stage, evidence)
        told.append((verdict.outcome, len(evidence.buckets), verdict.why))
    return told
