"""Builders of what learners learn from; a test names only what matters to it."""

from __future__ import annotations

from typing import Any

import numpy as np

from leaven.loop import Schema
from leaven.training.encoding import Encoder, encoder_for
from leaven.training.learner import TrainingSet

FEATURES = (("colour", "category", False), ("size", "float", False), ("count", "int", False), ("new", "bool", False))
EFFECT = {"red": 1.0, "green": -1.0}

Columns = dict[str, np.ndarray[Any, Any]]


def a_schema(features=FEATURES, task="binary") -> Schema:
    return Schema(tuple(features), "user", task)


def some_columns(rows: int, *, seed: int = 0, colours: str = "red green blue", gaps: bool = True) -> Columns:
    rng = np.random.default_rng(seed)
    colour = rng.choice(np.array(colours.split(), dtype=object), rows)
    size, count = rng.normal(size=rows), rng.integers(0, 9, rows).astype(float)
    if gaps:
        colour[rng.random(rows) < 0.05] = None
        size[rng.random(rows) < 0.05] = np.nan
    return {"colour": colour, "size": size, "count": count, "new": rng.integers(0, 2, rows).astype(float)}


def a_training_set(
    rows: int = 400,
    *,
    seed: int = 0,
    task: str = "binary",
    parent: Encoder | None = None,
    columns: Columns | None = None,
    label: Any = None,
    schema: Schema | None = None,
) -> TrainingSet:
    """Rows whose label follows colour and size, so that a learner has something to find."""
    schema = schema or a_schema(task=task)
    columns = columns or some_columns(rows, seed=seed)
    rng = np.random.default_rng(seed + 1)
    if label is None:
        effect = np.array([EFFECT.get(c, 0.0) for c in columns["colour"].tolist()]) + np.nan_to_num(columns["size"])
        label = (
            (effect + rng.logistic(size=len(effect)) > 0) if task == "binary" else effect + rng.normal(size=len(effect))
        )
    encoder = encoder_for(schema, columns, parent=parent)
    return TrainingSet(encoder.encode(columns), np.asarray(label, dtype=np.float64), encoder, schema)
