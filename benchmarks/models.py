"""What does the direct form of a model save, against its library's own call?

    python -m benchmarks.models [--repeats 5]

For each learner and number of rows: microseconds of processor time of the library's call and of the model as it is
served, the best of some repeats each, in turn; and library over served (above 1: faster). Models without a direct form
are there as well.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import time
import timeit
from collections.abc import Callable
from typing import Any

import numpy as np

from leaven.learners import ScikitLearn, XGBoost, load
from leaven.learners.direct import DirectModel
from leaven.learners.xgboost import XGBoostModel, booster_in
from leaven.loop import Schema
from leaven.settings import calm_threads
from leaven.training.encoding import encoder_for
from leaven.training.learner import Files, Model, TrainingSet

ROWS = (1, 16, 64, 1000)


def learners() -> dict[str, Any]:
    """What is measured; scikit-learn is imported only now, when it has been told to use one thread."""
    from sklearn.ensemble import GradientBoostingClassifier, HistGradientBoostingClassifier, RandomForestClassifier
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return {
        "XGBoost, 100 trees": XGBoost(100, 6, threads=1),
        "one-hot + scaler + logistic": ScikitLearn(LogisticRegression(), categories="one-hot"),
        "scaler + logistic": ScikitLearn(make_pipeline(SimpleImputer(), StandardScaler(), LogisticRegression())),
        "ridge": ScikitLearn(make_pipeline(SimpleImputer(), Ridge())),
        "random forest, 100 trees": ScikitLearn(make_pipeline(SimpleImputer(), RandomForestClassifier(random_state=0))),
        "gradient boosting, 100 trees": ScikitLearn(make_pipeline(SimpleImputer(), GradientBoostingClassifier())),
        "histogram gradient boosting, 100 trees": ScikitLearn(HistGradientBoostingClassifier()),
    }


def main() -> None:
    """Measure, and print one JSON value."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--repeats", type=int, default=5)
    given = options.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    found = {name: measured(learner, given.repeats) for name, learner in learners().items()}
    print(json.dumps(found | {"encoder": {str(rows): encoding(rows, given.repeats) for rows in ROWS}}, indent=2))


def measured(learner: Any, repeats: int) -> dict[str, Any]:
    """How one learner's model answers, and how long it takes to load with its proof."""
    data = examples("regression" if "Ridge" in repr(learner) else "binary")
    files = learner.fit(data, seed=0)
    load(learner.format, files)  # imports
    began = time.process_time()
    served = load(learner.format, files)
    loading = time.process_time() - began
    direct = isinstance(served, DirectModel)
    library = as_its_library_asks(learner, files, served)
    return {"path": "direct" if direct else "library", "load_ms": round(1000 * loading, 1)} | {
        f"{rows} rows": compared(library.predict, served.predict, data.matrix[:rows].copy(), repeats) for rows in ROWS
    }


def as_its_library_asks(learner: Any, files: Files, served: Model) -> Model:
    """The model as anybody would ask it who has only its library."""
    if isinstance(learner, XGBoost):
        return XGBoostModel(booster_in(files))
    return served._library if isinstance(served, DirectModel) else served


def compared(library: Callable[[Any], Any], served: Callable[[Any], Any], rows: Any, repeats: int) -> dict[str, float]:
    """Microseconds of both, and their ratio."""
    times = [(best(library, rows), best(served, rows)) for _ in range(repeats)]
    theirs, ours = min(their for their, _ in times), min(our for _, our in times)
    return {"library_us": round(theirs, 1), "served_us": round(ours, 1), "library_over_served": round(theirs / ours, 2)}


def best(call: Callable[[Any], Any], given: Any) -> float:
    """Microseconds of one call, from about 30 ms of them; processor time, which what else runs here disturbs least."""
    once = timeit.timeit(lambda: call(given), number=2, timer=time.process_time) / 2
    number = max(2, int(0.03 / max(once, 1e-6)))
    return 1e6 * timeit.timeit(lambda: call(given), number=number, timer=time.process_time) / number


def encoding(rows: int, repeats: int) -> float:
    """Microseconds in which one category and nine numbers become a matrix."""
    columns = some_columns(rows)
    encoder = encoder_for(SCHEMA, columns)
    return round(min(best(encoder.encode, columns) for _ in range(repeats)), 1)


SCHEMA = Schema((("carrier", "category", False), *((f"x{i}", "float", False) for i in range(9))), "unit", "binary")


def some_columns(rows: int) -> dict[str, Any]:
    """One category of twenty, nine numbers."""
    rng = np.random.default_rng(0)
    carrier = np.array([f"C{code}" for code in rng.integers(0, 20, rows)], dtype=object)
    return {"carrier": carrier} | {f"x{i}": rng.normal(size=rows) for i in range(9)}


def examples(task: str) -> TrainingSet:
    """Four thousand rows with a label that takes some learning."""
    columns = some_columns(4000)
    encoder = encoder_for(SCHEMA, columns)
    value = columns["x1"] + columns["x2"] ** 2 + np.random.default_rng(1).normal(size=4000)
    label = value if task == "regression" else (value > 1).astype(float)
    return TrainingSet(encoder.encode(columns), label, encoder, Schema(SCHEMA.features, "unit", task))


if __name__ == "__main__":
    calm_threads(1)
    main()
