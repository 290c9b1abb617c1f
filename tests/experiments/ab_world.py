"""A log in memory for A/B tests: who was served what, and what came back; a test names only what matters to it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import numpy as np

from leaven.events import Label
from leaven.events.columns import Examples, Matched, Predictions, column_time
from leaven.events.meetings import crowds, newcomers
from leaven.events.source import Span
from leaven.experiments import ABTest
from leaven.experiments.ab_evidence import ABEvidence
from leaven.experiments.stage import Traffic
from tests.curation.builders import objects

BEGIN = datetime(2026, 3, 1, tzinfo=UTC)
BOUGHT = Label("bought", above=0.5, within="12h")
ARM = {"champion": "1", "canary": "2"}


def day(count: float) -> datetime:
    return BEGIN + timedelta(days=count)


@dataclass
class World:
    """An example source that remembers which stretches it was asked for."""

    served: Predictions
    told: Matched  # `row` counts the rows of `served`
    asked: list[tuple[datetime, datetime]] = field(default_factory=list)

    def examples(self, span: Span, rule: Any, *, as_of: datetime, marks: Any = None) -> Examples:
        self.asked.append((span.start, span.end))
        rows = np.flatnonzero((self.served.at >= column_time(span.start)) & (self.served.at < column_time(span.end)))
        place = np.full(len(self.served), -1)
        place[rows] = np.arange(len(rows))
        told = self.told.take(place[self.told.row] >= 0)
        told = Matched(place[told.row], told.at, told.received_at, told.name, told.kind, told.value)
        served = self.served.take(rows)
        return Examples(served, rule.resolve(served.at, told, as_of=as_of))

    def crowds(self, span: Span, arms: Any, *, every: timedelta, as_of: datetime) -> Any:
        return crowds(self.served, span, arms, every=every)

    def newcomers(self, span: Span, arms: Any, *, first_in: Span, as_of: datetime) -> Any:
        return newcomers(self.served, span, arms, first_in=first_in)


def a_world(rows: list[dict[str, Any]]) -> World:
    """Rows of `unit` and `day`, as needed `arm`, `answer`, `error`, `seconds`, `told`: {name: (hours, value)}."""
    rows = sorted(rows, key=lambda row: row["day"])
    at = np.array([column_time(day(row["day"])) for row in rows], dtype="datetime64[us]")
    arm = [row.get("arm", "champion") for row in rows]
    told = [(place, name, *what) for place, row in enumerate(rows) for name, what in row.get("told", {}).items()]
    late = np.array([timedelta(hours=hours) for _, _, hours, _ in told], dtype="m8[us]")
    when = at[[place for place, *_ in told]] + late
    served = Predictions(
        objects([f"p{place:06d}" for place in range(len(rows))]), at, objects([row["unit"] for row in rows]),
        objects(arm), objects([row.get("version", ARM.get(each, "1")) for row, each in zip(rows, arm, strict=True)]),
        np.array([row.get("answer", 0.5) for row in rows], dtype=float), np.full(len(rows), 0.5),
        np.array([row.get("seconds", 0.01) for row in rows]), objects([row.get("error") for row in rows]),
        {name: objects([row.get(name) for row in rows]) for name in ("country",)},
    )  # fmt: skip
    return World(
        served,
        Matched(
            np.array([place for place, *_ in told], dtype=np.int64), when, when,
            objects([name for _, name, *_ in told]),
            objects(["label"] * len(told)), np.array([value for *_, value in told], dtype=float),
        ),
    )  # fmt: skip


def a_crowd(
    days: int = 5, *, per_day: int = 300, effect: float = 0.0, seed: int = 0, **world: Any
) -> list[dict[str, Any]]:
    """Units that come at random, some again and again, and buy at random; the challenger's more often by `effect`."""
    rng, rows = np.random.default_rng(seed), []
    habit = rng.random(10 * days * per_day)
    for number in range(days * per_day):
        unit = int(rng.integers(0, days * per_day)) if rng.random() < 0.3 else days * per_day + number
        arm = "canary" if unit % 2 else "champion"
        likely = 0.1 + 0.4 * habit[unit] + (effect if arm == "canary" else 0.0)
        bought = rng.random() < likely
        row = {
            "unit": f"u{unit}", "day": days * rng.random(), "arm": arm, "country": "DE" if unit % 3 else "FR",
            "answer": float(np.clip(likely + 0.1 * rng.normal(), 0.01, 0.99)), "seconds": float(rng.gamma(2, 0.01)),
            "told": {"bought": (float(rng.uniform(0.1, 11)), float(bought)), "stars": (1.0, float(rng.integers(1, 6)))},
        }  # fmt: skip
        if rng.random() < 0.05:
            row["told"].pop("bought")
        rows.append(row | world)
    return rows


def traffic(world: World, until: float, *, since: float = 0.0, **other: Any) -> Traffic:
    given: dict[str, Any] = {"label": BOUGHT, "champion": "1", "challenger": "2", "metric": "log_loss"}
    return Traffic(world, since=day(since), now=day(until), **(given | other))


def seen(stage: ABTest, world: World, until: float, before: ABEvidence | None = None, **other: Any) -> ABEvidence:
    """What a stage has seen by `until`, as it comes back from the database."""
    if stage.metric is not None:
        other.setdefault("metric", stage.metric)
    (step,) = stage.steps()
    found = stage.observe(step, traffic(world, until, **other), before)
    stored = msgspec.json.encode(msgspec.to_builtins(found))
    return msgspec.convert(msgspec.json.decode(stored), ABEvidence)
