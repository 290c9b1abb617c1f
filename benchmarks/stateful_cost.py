"""What does a daily refresh cost if it continues the champion, against one that fits 30 days anew, and is it as good?

The same learner with the same settings on both sides, in `leaven replay`'s own driver, without gates or trials; both
begin with the very same model, fitted on the 30 days before. `Stateful()` then trains on each new example once. Streams
and learners where it does not pay are in the table as well; flights need the extra `demo`:

    python -m benchmarks.stateful_cost --data FOLDER [--only "flights, MLP"] [--days 334]
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

from leaven.settings import calm_threads

calm_threads()

import numpy as np  # noqa: E402
from sklearn.exceptions import ConvergenceWarning  # noqa: E402
from sklearn.linear_model import SGDClassifier  # noqa: E402
from sklearn.neural_network import MLPClassifier, MLPRegressor  # noqa: E402

from benchmarks.streams import STREAMS  # noqa: E402
from leaven.controller.replay import ReplayRun, replay, variant  # noqa: E402
from leaven.curation import Recent  # noqa: E402
from leaven.learners import ScikitLearn, XGBoost  # noqa: E402
from leaven.loop import Feature, Loop  # noqa: E402
from leaven.loopfile import load_loop  # noqa: E402
from leaven.storage.history_file import History, read_history  # noqa: E402
from leaven.training import Stateful, Stateless  # noqa: E402
from leaven.training.learner import Learner  # noqa: E402
from leaven.triggers import Every  # noqa: E402

_DAYS = {"flights": datetime(2013, 2, 1, tzinfo=UTC), "bike": datetime(2011, 2, 2, tzinfo=UTC),
         "metro": datetime(2012, 11, 5, tzinfo=UTC)}  # fmt: skip
_KINDS = {"hr", "hour", "weekday", "workingday"}  # numbers that a network had better see as categories


@dataclass(frozen=True, slots=True)
class Case:
    """A learner on a stream."""

    stream: str
    name: str
    learner: Learner
    imports: str  # what a training process loads before it trains


def _network(**settings: object) -> Learner:
    return ScikitLearn(MLPRegressor(hidden_layer_sizes=(64,), batch_size=24, max_iter=60, **settings),
                       categories="one-hot")  # fmt: skip


_SKLEARN = "leaven.learners.fitting, sklearn.neural_network, sklearn.compose, skops.io"
CASES = (
    Case("flights", "MLP", ScikitLearn(MLPClassifier(hidden_layer_sizes=(32,), alpha=1e-3, learning_rate_init=3e-4,
                                                     max_iter=15), categories="one-hot"), _SKLEARN),
    Case("flights", "logistic SGD", ScikitLearn(SGDClassifier(loss="log_loss", learning_rate="constant", eta0=2e-4,
                                                              max_iter=20, tol=1e-5), categories="one-hot"), _SKLEARN),
    Case("flights", "XGBoost", XGBoost(60, 4, 0.1, min_child_weight=30, update_rounds=2, threads=1),
         "leaven.learners.fitting, xgboost"),
    Case("bike", "MLP", _network(learning_rate_init=3e-3), _SKLEARN),
    Case("metro", "MLP", _network(learning_rate_init=3e-3), _SKLEARN),
)  # fmt: skip


def daily(case: Case, base: Loop) -> Loop:
    """Return the stream's loop with this learner, refreshed daily on 30 days, nothing proven."""
    network = isinstance(case.learner, ScikitLearn)
    features = [
        Feature(each.name, "category") if network and each.name in _KINDS else each for each in base.features
    ]  # fmt: skip
    return replace(
        base, features=features, learner=case.learner, data=Recent("30d"), plan=Stateless(), triggers=[Every("1d")],
        gates=[], rollout=[], holdout="1d", tick="1d",
    )  # fmt: skip


def past_loss(run: ReplayRun) -> float:
    """Return what the run's versions lost on an even sample of all that came before them, mean over refreshes."""
    told = [one.evidence.get("forgetting") for one in run.decisions if one.kind == "gate"]
    return float(np.mean([each["past"]["challenger"] for each in told if each and each["past"]]))


def start_up(imports: str) -> float:
    """Return the CPU seconds that a process takes to load what training needs."""

    def used() -> float:
        children = resource.getrusage(resource.RUSAGE_CHILDREN)
        return children.ru_utime + children.ru_stime

    before = used()
    subprocess.run([sys.executable, "-c", f"import {imports}"], check=True)
    return used() - before


def measured(case: Case, data: Path, days: int) -> Iterator[str]:
    """Give the lines of the table for one case."""
    stream = next(each for each in STREAMS if each.name == case.stream)
    loop = daily(case, load_loop(stream.loop))
    with TemporaryDirectory() as place:
        past = Path(place) / "past.parquet"
        stream.write(data, past)
        history = read_history(past, loop, time="event_time", label_time="label_time")
    start, week = _DAYS[case.stream], timedelta(days=7)
    until = np.datetime64((start + timedelta(days=days)).replace(tzinfo=None), "us")
    history = _cut(history, int(np.searchsorted(history.at, until)))
    # The frozen one comes first: the first training in a process loads libraries, and its cost is not compared.
    plans = {"frozen": variant(loop, "frozen"), "stateless": loop, "stateful": replace(loop, plan=Stateful())}
    runs = {name: replay(plan, history, name=name, start=start, window=week) for name, plan in plans.items()}
    full, onwards = runs["stateless"], runs["stateful"]
    alone = start_up(case.imports)
    loss = "log_loss" if loop.label.task == "binary" else "absolute_error"
    yield f"\n{case.stream}, {case.name}: {full.refreshes} daily refreshes"
    also = "" if loss == stream.metric else f"{loss:>10}"
    yield f"{'plan':<10}{stream.metric:>16}{also}{'on the past':>13}{'rows':>12}{'CPU s':>9}"
    for name, run in runs.items():
        new = run.mean_window_metrics
        more = "" if loss == stream.metric else f"{new[loss]:10.4f}"
        old = "–" if name == "frozen" else f"{past_loss(run):.4f}"
        yield f"{name:<10}{new[stream.metric]:16.4f}{more}{old:>13}{run.train_rows:12,d}{run.train_cpu_s:9.1f}"
    rows, cpu = full.train_rows / onwards.train_rows, full.train_cpu_s / onwards.train_cpu_s
    whole = (full.train_cpu_s + full.refreshes * alone) / (onwards.train_cpu_s + onwards.refreshes * alone)
    old = past_loss(onwards) / past_loss(full) - 1
    yield (f"stateless / stateful: {rows:.1f} × the rows, {cpu:.1f} × the CPU; {whole:.1f} × with {alone:.2f} CPU s of "
           f"start-up per training process; loss on the past {old:+.1%}")  # fmt: skip


def _cut(history: History, rows: int) -> History:
    features = {name: column[:rows] for name, column in history.features.items()}
    return History(history.at[:rows], history.label_at[:rows], history.outcome[:rows], history.unit[:rows], features)


def main() -> None:
    """Measure each case and print it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of the data sets")
    parser.add_argument("--only", default="", help='cases that begin so, such as "flights" or "flights, MLP"')
    parser.add_argument("--days", type=int, default=334, help="to go on for, after the first 30 or so")
    given = parser.parse_args()
    warnings.simplefilter("ignore", ConvergenceWarning)  # so many epochs are what is asked for
    warnings.filterwarnings("ignore", message="Got `batch_size`")  # a day in which an hour is missing
    for case in CASES:
        if f"{case.stream}, {case.name}".startswith(given.only):
            for line in measured(case, given.data, given.days):
                print(line, flush=True)


if __name__ == "__main__":
    main()
