"""What do our learners cost beside the libraries that they stand on?

    python -m benchmarks.learners [--rows 50000] [--new 2000]

CPU seconds, the least of three runs, one thread: a fit on all rows, an update on the new ones, an answer to 1,000 rows,
and loading; each beside the library called by hand on the same matrix. "Ours" includes our checks and storing.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import lightgbm as lgb
import numpy as np
import xgboost as xgb
from river import linear_model, tree
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import SGDClassifier

from leaven.learners import LightGBM, River, ScikitLearn, XGBoost, load
from leaven.loop import Schema
from leaven.training.encoding import Encoder
from leaven.training.learner import Learner, TrainingSet

NUMBERS, KINDS = 8, ("alpha", "beta", "gamma", "delta")
QUIET = {"objective": "binary", "verbosity": -1, "num_threads": 1, "deterministic": True, "force_row_wise": True}
XGB = {"objective": "binary:logistic", "tree_method": "hist", "nthread": 1}


def rows_of(count: int, *, seed: int) -> TrainingSet:
    """Eight numbers and a category, whose sum leans to one of two classes."""
    rng = np.random.default_rng(seed)
    features = (("kind", "category", False), *((f"x{i}", "float", False) for i in range(NUMBERS)))
    numbers = rng.normal(size=(count, NUMBERS))
    kinds = rng.integers(0, len(KINDS), count)
    label = (numbers.sum(1) + kinds + rng.logistic(size=count) * 2 > 1.5).astype(float)
    schema = Schema(features, "unit", "binary")
    return TrainingSet(np.column_stack([kinds, numbers]), label, Encoder(features, {"kind": KINDS}), schema)


def took(what: Callable[[], Any], *, times: int = 3) -> float:
    """CPU seconds of the quickest run."""
    found = []
    for _ in range(times):
        began = time.process_time()
        what()
        found.append(time.process_time() - began)
    return min(found)


def by_hand(name: str, data: TrainingSet, new: TrainingSet) -> tuple[Callable[[], Any], Callable[[Any], Any]]:
    """A fit, and an update of what it gives, by the library alone."""
    X, y, Xn, yn = data.matrix, data.label.astype(int), new.matrix, new.label.astype(int)  # noqa: N806
    if name.startswith("XGBoost"):
        refresh = "refresh" in name
        more = {"process_type": "update", "updater": "refresh"} if refresh else {}
        settings = {name: kept for name, kept in XGB.items() if not (refresh and name == "tree_method")} | more
        table = xgb.DMatrix if refresh else xgb.QuantileDMatrix
        return (
            lambda: xgb.train(XGB, xgb.QuantileDMatrix(X, y), 100),
            lambda old: xgb.train(settings, table(Xn, yn), 100 if refresh else 20, xgb_model=old),
        )
    if name.startswith("LightGBM"):

        def fitted() -> Any:
            return lgb.train(QUIET, lgb.Dataset(X, y, categorical_feature=[0], free_raw_data=False), 100)

        if "refit" in name:
            return fitted, lambda old: old.refit(Xn, yn)
        return fitted, lambda old: lgb.train(
            QUIET, lgb.Dataset(Xn, yn, categorical_feature=[0], free_raw_data=False), 20, init_model=old
        )
    if name.startswith("River"):
        model = linear_model.LogisticRegression() if "linear" in name else tree.HoeffdingTreeClassifier()
        names = [f"x{i}" for i in range(NUMBERS)]

        def learn(learner: Any, matrix: Any, label: Any) -> Any:
            for row, one in zip(matrix.tolist(), label.tolist(), strict=True):
                kind = {f"kind={KINDS[int(row[0])]}": 1.0} if "linear" in name else {"kind": KINDS[int(row[0])]}
                learner.learn_one(kind | dict(zip(names, row[1:], strict=True)), bool(one))
            return learner

        return lambda: learn(model.clone(), X, y), lambda old: learn(old, Xn, yn)
    if "forest" in name:

        def grown(old: Any) -> Any:
            return old.set_params(n_estimators=len(old.estimators_) + 20, warm_start=True).fit(Xn, yn)

        return lambda: RandomForestClassifier(100, max_depth=10, random_state=1).fit(X, y), grown
    steady = SGDClassifier(loss="log_loss", learning_rate="constant", eta0=0.01, random_state=1)
    return lambda: steady.fit(X, y), lambda old: old.partial_fit(Xn, yn)


LEARNERS: dict[str, Learner] = {
    "XGBoost": XGBoost(100, update_rounds=20, threads=1),
    "XGBoost, refresh": XGBoost(100, update_by="refresh", threads=1),
    "LightGBM": LightGBM(100, update_rounds=20, threads=1),
    "LightGBM, refit": LightGBM(100, update_by="refit", threads=1),
    "scikit-learn, SGD": ScikitLearn(SGDClassifier(loss="log_loss", learning_rate="constant", eta0=0.01)),
    "scikit-learn, forest of 100": ScikitLearn(RandomForestClassifier(100, max_depth=10), update_rounds=20),
    "River, linear": River(linear_model.LogisticRegression(), categories="one-hot"),
    "River, Hoeffding tree": River(tree.HoeffdingTreeClassifier(), trusted=["river-pickle"]),
}


def main() -> None:
    """Print a line for each learner."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--new", type=int, default=2_000)
    given = parser.parse_args()
    data, new = rows_of(given.rows, seed=1), rows_of(given.new, seed=2)
    print(f"{given.rows:,} rows, then {given.new:,} new ones; CPU seconds")
    heads = ("fit ours", "alone", "update ours", "alone", "load", "1,000 rows", "MB")
    print(f"{'learner':28}" + "".join(f"{head:>12}" for head in heads))
    for name, learner in LEARNERS.items():
        times = 1 if name.startswith("River") or "forest" in name else 3
        fit, update = by_hand(name, data, new)
        files = learner.fit(data, seed=1)
        child = learner.update(files, new, seed=2)
        ours = took(lambda: learner.fit(data, seed=1), times=times)  # noqa: B023  # called at once
        ours_update = took(lambda: learner.update(files, new, seed=2))  # noqa: B023
        alone = took(fit, times=times)
        olds = iter([fit() for _ in range(times)])
        alone_update = took(lambda: update(next(olds)), times=times)  # noqa: B023
        model = load(learner.format, child, trusted=["river-pickle"])
        loaded = took(lambda: load(learner.format, child, trusted=["river-pickle"]))  # noqa: B023
        answered = took(lambda: model.predict(new.matrix[:1000]))  # noqa: B023
        size = sum(map(len, child.values())) / 2**20
        figures = (ours, alone, ours_update, alone_update, loaded, answered, size)
        print(f"{name:28}" + "".join(f"{figure:12.4f}" for figure in figures))


if __name__ == "__main__":
    main()
