"""Does a network that goes on do as well as one from scratch, and what does each way of not forgetting cost?

    python -m benchmarks.torch_learner --data bike_hourly.parquet

Hourly bike rentals, replayed through the product: weekly refreshes, demand grows. Needs the extra `torch`. Columns:
mean absolute error of the served answers (mean over windows of 28 days), that of the last model on the months before
the first, rows trained on, CPU.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from leaven.settings import calm_threads

calm_threads(1)

import numpy as np  # noqa: E402

from leaven import Feature, Label, Loop  # noqa: E402
from leaven.controller.replay import ReplayDriver, ReplayRun, variant  # noqa: E402
from leaven.curation import Recent  # noqa: E402
from leaven.learners import Torch, XGBoost  # noqa: E402
from leaven.storage.history_file import History, read_history  # noqa: E402
from leaven.training import Stateful, Stateless  # noqa: E402
from leaven.triggers import Every  # noqa: E402

START = datetime(2011, 6, 1, tzinfo=UTC)
KINDS = {"hr": "category", "weekday": "category", "weathersit": "category", "workingday": "bool"}
NUMBERS = ("temp", "atemp", "hum", "windspeed")
NET = Torch([64, 32], epochs=20, update_epochs=10, learning_rate=0.003, batch_size=128)
LOOP = Loop(
    "bikes",
    features=[Feature(*kind) for kind in KINDS.items()] + [Feature(name, "float") for name in NUMBERS],
    unit="hour",
    label=Label("cnt", within="1h"),
    learner=NET,
    data=Recent("180d"),
    plan=Stateless(),
    triggers=[Every("7d")],
    gates=[],
    rollout=[],
    tick="1d",
    holdout="1h",
)
WAYS = {
    "stateful": replace(LOOP, plan=Stateful()),
    "stateful, ewc": replace(LOOP, plan=Stateful(), learner=replace(NET, ewc=1.0)),
    "stateful, lwf": replace(LOOP, plan=Stateful(), learner=replace(NET, lwf=[0.3, 1.0])),
    "stateful, replay 1.0": replace(LOOP, plan=Stateful(replay=1.0)),
    "stateful, replay, shrink": replace(LOOP, plan=Stateful(replay=1.0), learner=replace(NET, shrink=[0.9, 0.01])),
    "stateless, XGBoost": replace(LOOP, learner=XGBoost(150, 5, 0.1, threads=1)),
    "stateless": LOOP,
}


def run(loop: Loop, history: History, *, name: str) -> tuple[ReplayRun, float]:
    """Replay, and return how it went and how far off the last champion is on what was known before it began."""
    driver = ReplayDriver(loop, history)
    end = history.at[-1].astype(datetime).replace(tzinfo=UTC)
    now = START
    driver.begin(now)
    while now < end:
        now += timedelta(days=1)
        driver.step(now)
    found = driver.result(name, begin=START, end=end, window=timedelta(days=28), seconds=0.0)
    past = history.at < np.datetime64(START.replace(tzinfo=None))
    last = driver.parts.model(loop.name, int(found.windows[-1].version))
    answers = last.answer({key: column[past] for key, column in history.features.items()})
    return found, float(np.abs(answers - history.outcome[past]).mean())


def main() -> None:
    """Print a line for each way."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="bike_hourly.parquet (UCI data set 275)")
    parser.add_argument("--only", help="a way to run alone")
    given = parser.parse_args()
    history = read_history(given.data, LOOP, time="event_time", label_time=None)
    print(f"{'way':26}{'MAE':>8}{'on old':>8}{'refreshes':>11}{'rows':>10}{'CPU s':>8}")
    for name, loop in {"frozen": variant(LOOP, "frozen"), **WAYS}.items():
        if given.only in (None, name):
            found, old = run(loop, history, name=name)
            mae = found.mean_window_metrics["absolute_error"] or float("nan")
            figures = f"{found.refreshes:11d}{found.train_rows:10,d}{found.train_cpu_s:8.1f}"
            print(f"{name:26}{mae:8.1f}{old:8.1f}{figures}", flush=True)


if __name__ == "__main__":
    main()
