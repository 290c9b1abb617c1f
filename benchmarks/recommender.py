"""What does a recommender gain from being kept fresh, and what does an update cost beside a fit?

Ratings of films by real users (MovieTweetings 100K), replayed week by week: the model that serves a week was made of
the weeks before it. Frozen, fitted anew every week, and updated every week with that week's rows alone; beside biases
without factors, and the mean of all older ratings. With `--likes`, the question is whether a rating is above 7:

    python benchmarks/recommender.py --data FOLDER [--likes]

FOLDER holds `ratings.parquet` with user_id, imdb_id, rating and event_time.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

from leaven.settings import calm_threads

calm_threads()

import numpy as np  # noqa: E402

from leaven import Feature, Label, Loop  # noqa: E402
from leaven.controller.replay import PlanName, ReplayRun, replay, variant  # noqa: E402
from leaven.curation import AllHistory  # noqa: E402
from leaven.duration import instant  # noqa: E402
from leaven.gates import Sane  # noqa: E402
from leaven.learners import ALS  # noqa: E402
from leaven.storage.history_file import History, read_history  # noqa: E402
from leaven.training import Stateless  # noqa: E402
from leaven.triggers import Every  # noqa: E402

BEFORE_THE_FIRST = timedelta(days=28)
NO_FACTORS = 1e9  # as penalty: what is left are the biases


def loop_of(*, likes: bool) -> Loop:
    """Who rates which film how; a refresh every week, on all that was rated until then."""
    return Loop(
        "films",
        features=[Feature("user_id", "category"), Feature("imdb_id", "category")],
        unit="user_id",
        label=Label("rating", above=7 if likes else None, within="1h"),
        learner=ALS("user_id", "imdb_id", threads=1),
        data=AllHistory(),
        plan=Stateless(),
        triggers=[Every("7d")],
        gates=[Sane()],
        tick="1d",
        holdout="1h",
    )


def mean_of_what_came_before(history: History, start: np.datetime64) -> tuple[float, float]:
    """Return MAE and RMSE of answering the mean of all older ratings."""
    ratings = history.outcome
    means = np.cumsum(ratings)[:-1] / np.arange(1, len(ratings))
    gone = (ratings[1:] - means)[history.at[1:] >= start]
    return float(np.abs(gone).mean()), float(np.sqrt((gone**2).mean()))


def figures_of(run: ReplayRun, *, likes: bool) -> tuple[float, float]:
    """Return AUC and log loss, or MAE and RMSE, of all answers that were served."""
    found = {name: math.nan if figure is None else figure for name, figure in run.metrics.items()}
    if likes:
        return found["roc_auc"], found["log_loss"]
    return found["absolute_error"], math.sqrt(found["squared_error"])


def main() -> None:
    """Print a line for each model and plan."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--data", type=Path, required=True)
    arguments.add_argument("--likes", action="store_true")
    given = arguments.parse_args()
    loop = loop_of(likes=given.likes)
    history = read_history(given.data / "ratings.parquet", loop, time="event_time", label_time=None)
    begin = history.at[0].astype("datetime64[D]") + np.timedelta64(BEFORE_THE_FIRST)
    heads = ("AUC", "log loss") if given.likes else ("MAE", "RMSE")
    biases = replace(loop, learner=ALS("user_id", "imdb_id", 1, NO_FACTORS, threads=1))
    asked: list[tuple[str, Loop, PlanName]] = [
        ("ALS", loop, "frozen"),
        ("ALS", loop, "stateless"),
        ("ALS", loop, "stateful"),
        ("biases alone", biases, "stateless"),
        ("biases alone", biases, "stateful"),
    ]
    print(f"{len(history):,} ratings, first model {begin.astype('datetime64[D]')}")
    print(f"{'model':14}{'plan':11}{heads[0]:>9}{heads[1]:>9}{'refreshes':>11}{'CPU s':>8}{'rows':>12}")
    if not given.likes:
        mae, rmse = mean_of_what_came_before(history, begin)
        print(f"{'mean':14}{'always':11}{mae:9.4f}{rmse:9.4f}")
    for model, its_loop, plan in asked:
        run = replay(
            variant(its_loop, plan), history, name=plan, start=instant(int(begin.astype("datetime64[us]").astype(int)))
        )
        first, second = figures_of(run, likes=given.likes)
        print(
            f"{model:14}{plan:11}{first:9.4f}{second:9.4f}{run.refreshes:11d}{run.train_cpu_s:8.1f}{run.train_rows:12,d}",
            flush=True,
        )


if __name__ == "__main__":
    main()
