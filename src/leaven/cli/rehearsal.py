"""Can this loop's learner learn and answer?"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from leaven.cli.findings import Finding, split
from leaven.curation.windows import Part, chosen
from leaven.duration import EPOCH
from leaven.errors import LeavenError
from leaven.events.columns import Examples
from leaven.events.source import Span
from leaven.learners.artifact import ModelArtifact, load_artifact
from leaven.learners.process import train_here
from leaven.loop import FeatureType, Loop
from leaven.settings import settings_from
from leaven.stats.answers import given
from leaven.stats.metrics import METRICS, shown_metrics
from leaven.storage.history_file import History
from leaven.training.learner import training_set

_ROWS = 20_000
_MADE_UP_ROWS = 200

Columns = dict[str, np.ndarray[Any, np.dtype[Any]]]


def rehearse_on(loop: Loop, history: History) -> Iterator[Finding]:
    """Yield how a model trained at the end of the file, on at most 20,000 rows, answers the newest rows."""
    train, holdout = split(loop, history)
    if len(train) > _ROWS:
        whole = Part(Span(EPOCH, EPOCH), _ROWS)
        train = train.take(chosen(train.predictions.id, train.predictions.at, whole, seed=loop.seed))
    yield from _rehearse(loop, dict(train.predictions.features), train.labels.value, holdout)


def rehearse_alone(loop: Loop) -> Iterator[Finding]:
    """Yield whether the learner can be trained, stored, loaded and asked, on made-up rows of the features' types."""
    rng = np.random.default_rng(loop.seed)
    made = {feature.name: _made_up(feature.type, rng) for feature in loop.features}
    label = np.arange(_MADE_UP_ROWS) % max(2, len(loop.classes))
    yield from _rehearse(loop, made, label.astype(np.float64), None)


def _rehearse(loop: Loop, columns: Columns, label: np.ndarray[Any, Any], holdout: Examples | None) -> Iterator[Finding]:
    data = training_set(loop.schema, columns, label)
    began = time.monotonic()
    try:
        outcome = train_here(loop.learner, data, mode="fit", seed=loop.seed)
        made = ModelArtifact(outcome.format, data.encoder, repr(loop.learner), outcome.files)
        served = load_artifact(made.to_files(), trusted=settings_from().trusted_types)  # as it will be served
        answer = served.answer(columns if holdout is None else dict(holdout.predictions.features))
    except LeavenError as error:
        yield Finding("problem", "learner", str(error))
        return
    size = sum(map(len, outcome.files.values())) / 2**20
    rows = f"{len(label)} {'made-up ' if holdout is None else ''}rows"
    took = f"{time.monotonic() - began:.1f} s"
    yield Finding("ok", "learner", f"it learnt {rows}, was stored ({size:.1f} MB), loaded, and answered, in {took}")
    if not given(answer).all():
        yield Finding("problem", "answers", f"{int((~given(answer)).sum())} of {len(answer)} are no numbers")
    elif holdout is not None and len(holdout) > 1:
        yield _measured(loop, holdout, answer)


def _measured(loop: Loop, holdout: Examples, answer: np.ndarray[Any, Any]) -> Finding:
    found = {name: METRICS[name].measure(holdout.labels.value, answer) for name in shown_metrics(loop.label.task)}
    told = ", ".join(f"{name} {interval.estimate:.4g}" for name, interval in found.items())
    return Finding("ok", "answers", f"to the {len(holdout)} newest labelled rows: {told}")


def _made_up(kind: FeatureType, rng: np.random.Generator) -> np.ndarray[Any, Any]:
    if kind == "category":
        return rng.choice(np.array(["a", "b", "c"], dtype=object), _MADE_UP_ROWS)
    if kind == "text":
        words = np.array(["sun", "rain", "snow", "wind", "fog"], dtype=object)
        return np.array([" ".join(rng.choice(words, 4)) for _ in range(_MADE_UP_ROWS)], dtype=object)
    if kind == "float":
        return rng.normal(size=_MADE_UP_ROWS)
    return rng.integers(0, 2 if kind == "bool" else 100, _MADE_UP_ROWS).astype(np.float64)
