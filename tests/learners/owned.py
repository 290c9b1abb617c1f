"""What an owner has already: functions that train and load a small model of their own."""

import json

import numpy as np


def train(columns, label, *, parent, seed):
    """Count ones among the rows of each kind."""
    counts = json.loads(parent["counts.json"]) if parent else {}
    for kind, one in zip(kinds(columns), label.tolist(), strict=True):
        seen, ones = counts.get(kind, (0, 0.0))
        counts[kind] = (seen + 1, ones + one)
    return {"counts.json": json.dumps(counts, sort_keys=True).encode()}


def load(files):
    """Return the counts, ready to answer."""
    return Counts(json.loads(files["counts.json"]))


class Counts:
    """The share of ones among the rows of a kind, drawn towards a half where few were seen."""

    def __init__(self, counts):
        self.counts = counts

    def predict(self, columns):
        found = [self.counts.get(kind, (0, 0.0)) for kind in kinds(columns)]
        return np.array([(ones + 1) / (seen + 2) for seen, ones in found])


def kinds(columns):
    """A row is told apart by the first category and the first number that it has."""
    text = next(column for column in columns.values() if column.dtype == object)
    number = next(column for name, column in columns.items() if column.dtype != object and name != "count")
    return [
        f"{one}, {'high' if other > 0 else 'low'}" for one, other in zip(text.tolist(), number.tolist(), strict=True)
    ]
