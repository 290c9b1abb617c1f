"""How would this loop have done on that past?

The very controller that runs in production is driven by a virtual clock over a file of the past: the same triggers,
snapshots, learners, gates, trials and decisions, with the log, the database and the artifacts in memory.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Literal

import msgspec
import numpy as np

from leaven.controller import state
from leaven.controller.controller import Controller
from leaven.controller.history import HistoryLog
from leaven.controller.parts import Parts
from leaven.controller.people import request_refresh
from leaven.controller.refreshes import InlineRunner
from leaven.duration import floor_to, instant, micros
from leaven.errors import BadDefinition
from leaven.events.source import Span
from leaven.learners.process import TrainingOutcome, train_here
from leaven.loop import Loop
from leaven.registry import loops, routing, versions
from leaven.registry.decisions import Decision, decisions
from leaven.stats.answers import given
from leaven.stats.metrics import METRICS, shown_metrics
from leaven.storage.control.database import ControlDatabase
from leaven.storage.history_file import History
from leaven.training import Hybrid, Stateful, Stateless
from leaven.training.learner import Files, TrainingSet
from leaven.training.plans import Mode
from leaven.triggers import Cause

PlanName = Literal["frozen", "stateless", "stateful", "hybrid"]
PLANS: tuple[PlanName, ...] = ("frozen", "stateless", "stateful", "hybrid")
_MADE: dict[PlanName, type[Stateless] | type[Stateful] | type[Hybrid]] = {
    "stateless": Stateless,
    "stateful": Stateful,
    "hybrid": Hybrid,
}


class ReplayWindow(msgspec.Struct, frozen=True):
    """How the answers that were served in one window did on their final labels."""

    start: str  # RFC 3339
    end: str
    rows: int
    version: str  # of the champion at the window's end
    metrics: dict[str, float | None]


class ReplayRun(msgspec.Struct, frozen=True):
    """One plan over the whole past."""

    plan: str
    windows: list[ReplayWindow]
    metrics: dict[str, float | None]  # over all served rows
    mean_window_metrics: dict[str, float | None]
    refreshes: int
    promoted: int
    rejected: int  # by gates or trials
    rolled_back: int  # from a canary, or after a promotion
    train_cpu_s: float
    train_rows: int
    rows: int
    seconds: float
    decisions: list[Decision] = []


def variant(loop: Loop, plan: PlanName) -> Loop:
    """Return `loop` with another plan, at the pace of its own; frozen is the first version for ever.

    Where the loop's own plan is one of this kind, it stays as it is written.
    """
    if plan == "frozen":
        return replace(loop, triggers=(), plan=Stateless())
    return loop if isinstance(loop.plan, _MADE[plan]) else replace(loop, plan=_MADE[plan](), triggers=loop.pace)


def own_plan(loop: Loop) -> PlanName:
    """Return the name of the loop's own plan."""
    return next((name for name, kind in _MADE.items() if isinstance(loop.plan, kind)), "stateless")


def replay(
    loop: Loop,
    history: History,
    *,
    name: str,
    start: datetime,
    by_hand: Sequence[datetime] = (),
    window: timedelta = timedelta(days=7),
    progress: Callable[[float, datetime], None] = lambda share, now: None,
    trusted: tuple[str, ...] = (),
) -> ReplayRun:
    """Run `loop` over `history` and return how it did.

    Args:
        loop: The loop, whole.
        history: Its past, oldest first.
        name: What the run is called in the result.
        start: What is older is known when the loop starts; the first version is trained then.
        by_hand: When somebody asks for a refresh: it begins at the next tick, or once the loop is free.
        window: Length of the windows that the result is cut into; a rest of less than half of it is part of the last.
        progress: Told the share that is done, and the virtual time.
        trusted: What models may be made of beside what is known.

    Raises:
        BadDefinition: `start` leaves nothing to train on or nothing to serve; a moment of `by_hand` is not between
            `start` and the end.
    """
    began = time.perf_counter()
    driver = ReplayDriver(loop, history, trusted=trusted)
    end = instant(int(history.at[-1].astype(np.int64))) + timedelta(microseconds=1)
    first = instant(int(history.at[0].astype(np.int64)))
    if not first < start < end:
        raise BadDefinition("--start", f"{start:%Y-%m-%d} is not inside the data", f"It runs from {first} to {end}.")
    now = begin = floor_to(start, loop.tick_length)
    for moment in by_hand:
        if not begin < moment < end:
            what = f"{moment:%Y-%m-%d %H:%M} is not between the first version and the end"
            raise BadDefinition("--retrain", what, f"Give a moment after {begin} and before {end}.")
    driver.begin(now)
    asked = sorted(by_hand, reverse=True)
    while now < end:
        now = min(now + loop.tick_length, end)
        if asked and asked[-1] <= now and driver.ask(now):
            asked.pop()
        driver.step(now)
        progress(min(1.0, (now - begin) / (end - begin)), now)
    return driver.result(name, begin=begin, end=end, window=window, seconds=time.perf_counter() - began)


class ReplayDriver:
    """The controller with a past in place of the world; each step lets one tick of time pass."""

    def __init__(
        self, loop: Loop, history: History, *, log: HistoryLog | None = None, trusted: tuple[str, ...] = ()
    ) -> None:
        self.loop = loop
        self.log = log or HistoryLog(history, label=loop.label.name, classes=len(loop.classes))
        self.database = ControlDatabase("sqlite://")
        self.database.migrate()
        self.parts = Parts(
            database=self.database,
            artifacts=_Artifacts(),
            loop=lambda name: loop,
            source=lambda name: self.log,
            train=_train,
            fence=lambda connection: None,
            trusted=trusted,
        )
        self._runner = InlineRunner(self.parts)
        self._controller = Controller(self.parts, self._runner)

    def begin(self, now: datetime) -> None:
        """Make the first version out of what is known by `now`."""
        self.log.serve(now, None, self._answers)
        cause = Cause("first", "the loop has no version yet")
        self.enter(now)
        with self.database.write() as connection:
            opened = state.open_refresh(connection, self.loop.name, cause, as_of=micros(now), now=micros(now))
        self._runner.start(opened, now=now)
        with self.database.read() as connection:
            ended = state.refresh(connection, opened.id)
        if ended.state != "promoted":
            why = ended.error or ended.payload.get("why", "its gates refused it")
            raise BadDefinition(f"the first refresh, as of {now:%Y-%m-%d}", f"{ended.state}: {why}",
                                "Start later (--start), or make holdout or the label window shorter.")  # fmt: skip

    def enter(self, now: datetime) -> None:
        """Register the loop, as `leaven up` does."""
        with self.database.write() as connection:
            loops.put(connection, self.loop, path="", source="", at=micros(now))

    def ask(self, now: datetime) -> bool:
        """Ask for a refresh as `leaven retrain` does; False where one, or a trial, is under way."""
        try:
            request_refresh(self.database, self.loop.name, by="person:replay", now=now)
        except state.RefreshUnderWay:
            return False
        return True

    def step(self, now: datetime) -> None:
        """Serve what was asked up to `now`, then tick."""
        with self.database.read() as connection:
            table = routing.latest(connection, self.loop.name)
        self.log.serve(now, table, self._answers)
        self._controller.tick(self.loop, now)

    def _answers(self, version: str):  # type: ignore[no-untyped-def]
        return self.parts.model(self.loop.name, int(version))

    def result(self, name: str, *, begin: datetime, end: datetime, window: timedelta, seconds: float) -> ReplayRun:
        """Return how the served answers did, and what the loop did."""
        with self.database.read() as connection:
            made = versions.versions(connection, self.loop.name)
            decided = decisions(connection, self.loop.name)
            ended = state.latest_refreshes(connection, self.loop.name, limit=1_000_000)
            trials = state.latest_trials(connection, self.loop.name, limit=1_000_000)
        cut = [self._window(span, end + self.loop.label.window) for span in cuts(begin, end, window)]
        whole = self._window(Span(begin, end), end + self.loop.label.window)
        names = shown_metrics(self.loop.label.task)
        states = [one.state for one in ended]
        training = [cost for one in made for cost in _costs(one.lineage)]
        return ReplayRun(
            plan=name,
            windows=cut,
            metrics=whole.metrics,
            mean_window_metrics={metric: _mean([one.metrics[metric] for one in cut]) for metric in names},
            refreshes=len(states),
            promoted=states.count("promoted"),
            rejected=states.count("refused") + states.count("rejected"),
            rolled_back=sum(trial.state == "rolled_back" for trial in trials),
            train_cpu_s=sum(one.get("cpu_seconds", 0.0) for one in training),
            train_rows=sum(one.get("rows", 0) for one in training),
            rows=whole.rows,
            seconds=seconds,
            decisions=decided,
        )

    def _window(self, span: Span, as_of: datetime) -> ReplayWindow:
        served = self.log.examples(span, self.loop.label, as_of=as_of)
        judged = served.take(given(served.predictions.answer)).mature()
        label, answer = judged.labels.value, judged.predictions.answer
        metrics: dict[str, float | None] = {}
        for name in shown_metrics(self.loop.label.task):
            value = METRICS[name].measure(label, answer).estimate if len(judged) else np.nan
            metrics[name] = None if np.isnan(value) else float(value)
        champions = served.predictions.version[served.predictions.arm == "champion"]
        version = str(champions[-1]) if len(champions) else ""
        return ReplayWindow(span.start.isoformat(), span.end.isoformat(), len(served), version, metrics)


def cuts(begin: datetime, end: datetime, window: timedelta) -> list[Span]:
    """Return the stretches of length `window` between `begin` and `end`, in order.

    Windows count alike in their mean. So a rest that is shorter than half a window is part of the last one.
    """
    count = max(1, int((end - begin) / window + 0.5))
    edges = [begin + i * window for i in range(count)]
    return [Span(*each) for each in zip(edges, [*edges[1:], end], strict=True)]


def _costs(lineage: dict[str, Any]) -> list[dict[str, Any]]:
    """What was trained for a version: itself, and the other model where two were compared."""
    return [lineage.get("training", {}), lineage.get("compared", {}).get("other", {})]


class _Artifacts:
    """Keeps model files in memory, for as long as the replay lasts."""

    def __init__(self) -> None:
        self._kept: dict[str, Files] = {}

    def put(self, files: Files) -> str:
        digest = f"memory-{len(self._kept)}"
        self._kept[digest] = dict(files)
        return digest

    def get(self, digest: str) -> Files:
        return self._kept[digest]


def _train(
    loop: Loop, data: TrainingSet, *, mode: Mode, parent: Files | None, cancelled: Callable[[], bool]
) -> TrainingOutcome:
    return train_here(loop.learner, data, mode=mode, parent=parent, seed=loop.seed)


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None
