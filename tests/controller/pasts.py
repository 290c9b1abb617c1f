"""Small pasts, loops over them, and learners that do as they are told; a test names only what matters to it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import skops.io
from sklearn.linear_model import LogisticRegression

from leaven.controller import state
from leaven.controller.people import request_refresh
from leaven.controller.replay import ReplayDriver
from leaven.curation import Recent
from leaven.duration import micros
from leaven.events import Label
from leaven.experiments import Canary, Shadow
from leaven.experiments.routing import RoutingTable
from leaven.experiments.trial import Trial
from leaven.gates import NotWorse, Sane
from leaven.learners import ScikitLearn
from leaven.loop import Feature, Loop
from leaven.registry import aliases, routing
from leaven.registry.decisions import Decision, decisions
from leaven.storage.history_file import History
from leaven.training import Stateless
from leaven.training.learner import TrainingSet
from leaven.triggers import Every

FIRST = datetime(2026, 1, 1, tzinfo=UTC)
PLAIN = ScikitLearn(LogisticRegression())


def day(count: float) -> datetime:
    return FIRST + timedelta(days=count)


def a_past(days: int = 24, *, per_day: int = 120, seed: int = 0, turns_on: float | None = None) -> History:
    """Users with two numbers, the first of which says whether they buy; from day `turns_on` on, it says the reverse."""
    rng = np.random.default_rng(seed)
    rows = days * per_day
    at = np.datetime64("2026-01-01", "us") + np.sort(rng.integers(0, days * 86_400_000_000, rows)).astype("m8[us]")
    x, z = rng.normal(size=rows), rng.normal(size=rows)
    turned = at >= np.datetime64(day(turns_on).replace(tzinfo=None), "us") if turns_on is not None else np.zeros(rows)
    bought = rng.random(rows) < 1 / (1 + np.exp(-2.5 * np.where(turned, -x, x)))
    told = at + rng.integers(60, 5 * 3600, rows).astype("m8[s]").astype("m8[us]")
    told[rng.random(rows) < 0.02] = np.datetime64("NaT", "us")  # some never say
    unit = np.array([f"user-{number}" for number in rng.integers(0, 200, rows)], dtype=object)
    return History(at, told, bought.astype(np.float64), unit, {"x": x, "z": z})


def a_loop(**other: Any) -> Loop:
    given: dict[str, Any] = {
        "features": [Feature("x", "float"), Feature("z", "float")],
        "unit": "user",
        "label": Label("bought", above=0.5, within="6h"),
        "learner": PLAIN,
        "data": Recent("4d"),
        "plan": Stateless(),
        "triggers": [Every("4d")],
        "gates": [NotWorse("log_loss", margin=0.25, min_rows=50), Sane()],
        "rollout": [
            Shadow("12h", margin=0.25, min_units=40),
            Canary(0.3, 0.6, each="12h", margin=0.5, min_units=20, patience="6d"),
        ],
        "holdout": "1d",
        "tick": "6h",
    }
    return Loop(other.pop("name", "shop"), **(given | other))


class Scripted:
    """A learner whose n-th model is as the n-th word of its script says; the last word holds from there on.

    `good` fits, `reversed` fits the opposite of the labels, `nan` answers with no number.
    """

    format, stateful = "skops", False

    def __init__(self, *script: str) -> None:
        self.script, self.made = script, 0

    def __repr__(self) -> str:
        return f"Scripted{self.script}"

    def fit(self, data: TrainingSet, *, seed: int) -> dict[str, bytes]:
        word = self.script[min(self.made, len(self.script) - 1)]
        self.made += 1
        if word == "reversed":
            data = replace(data, label=1 - data.label)
        files = dict(PLAIN.fit(data, seed=seed))
        if word == "nan":
            model = skops.io.loads(files["model.skops"])
            model.coef_[:] = np.nan
            files["model.skops"] = skops.io.dumps(model)
        return files


class Watched(ReplayDriver):
    """A replay that keeps what was trained on and every table that was routed, and can be run up to a moment."""

    def __init__(self, loop: Loop, past: History) -> None:
        super().__init__(loop, past)
        self.trained: list[TrainingSet] = []
        self.modes: list[str] = []
        train = self.parts.train

        def keep(loop: Loop, data: TrainingSet, **other: Any) -> Any:
            self.trained.append(data)
            self.modes.append(other["mode"])
            return train(loop, data, **other)

        self.parts.train = keep
        self.now = FIRST

    def run(self, until: float, *, start: float = 6) -> Watched:
        if self.now == FIRST:
            self.now = day(start)
            self.begin(self.now)
        while self.now < day(until):
            self.now += self.loop.tick_length
            self.step(self.now)
        return self

    def until_trial(self, kind: str = "shadow", *, within: float = 20) -> Trial:
        """Run until a trial is at a step of this kind, and return it."""
        end = self.now + timedelta(days=within) if self.now != FIRST else day(within)
        if self.now == FIRST:
            self.run(6)
        while self.now < end:
            trial = self.trial()
            table = self.table()
            if trial is not None and ("canary" in [arm.arm for arm in table.arms]) == (kind == "canary"):
                return trial
            self.now += self.loop.tick_length
            self.step(self.now)
        raise AssertionError(f"no trial reached {kind}")

    def trial(self) -> Trial | None:
        with self.database.read() as connection:
            return state.active_trial(connection, self.loop.name)

    def trials(self) -> list[Trial]:
        with self.database.read() as connection:
            return state.latest_trials(connection, self.loop.name)[::-1]

    def refreshes(self) -> list[state.Refresh]:
        with self.database.read() as connection:
            found = state.latest_refreshes(connection, self.loop.name, limit=100)
        return sorted(found, key=lambda one: one.created_at)

    def decisions(self, kind: str | None = None) -> list[Decision]:
        with self.database.read() as connection:
            return decisions(connection, self.loop.name, kind=kind)

    def outcomes(self, kind: str) -> list[str]:
        return [decision.outcome for decision in self.decisions(kind)]

    def alias(self, name: str) -> int | None:
        with self.database.read() as connection:
            return aliases.alias(connection, self.loop.name, name)

    def table(self) -> RoutingTable:
        with self.database.read() as connection:
            table = routing.latest(connection, self.loop.name)
        assert table is not None
        return table

    def everything(self) -> dict[str, Any]:
        """All that the database holds of the loop, to see whether something changed it."""
        with self.database.read() as connection:
            history = aliases.history(connection, self.loop.name)
        return {
            "decisions": self.decisions(), "trials": self.trials(), "refreshes": self.refreshes(),
            "aliases": history, "table": self.table(),
        }  # fmt: skip

    def ask(self) -> state.Refresh:
        return request_refresh(self.database, self.loop.name, by="ada", now=self.now)

    @property
    def micros(self) -> int:
        return micros(self.now)
