"""What does the sentence encoder cost: a title in a training, a request, and what is kept of them?

    python -m benchmarks.embeddings --titles FOLDER/arxiv_titles.parquet [--rows 4000]

Needs the extra `text`. Times are processor time of one thread, but for those of a request.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import duckdb
import numpy as np
from sklearn.linear_model import SGDClassifier

from leaven.learners import Embedded, ScikitLearn, load
from leaven.learners.sentences import sentence_encoder
from leaven.loop import Schema
from leaven.training.learner import TrainingSet, answers_of, training_set

STEPS = SGDClassifier(loss="log_loss", alpha=1e-5, learning_rate="constant", eta0=0.2, max_iter=10, tol=None)


def titles(file: Path, rows: int) -> TrainingSet:
    """The first titles of the file, with their categories."""
    found = duckdb.sql(f"SELECT title, label FROM read_parquet('{file}') LIMIT {rows}").fetchall()
    kinds = tuple(sorted({label for _, label in found}))
    schema = Schema((("title", "text", False),), "id", "multiclass", classes=kinds)
    texts = np.array([title for title, _ in found], dtype=object)
    return training_set(schema, {"title": texts}, np.array([kinds.index(label) for _, label in found], np.float64))


def seconds(do: Callable[[], Any], clock: Callable[[], float] = time.process_time) -> float:
    """How long it takes."""
    began = clock()
    do()
    return clock() - began


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--titles", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=4000)
    given = parser.parse_args()
    data, learner = titles(given.titles, given.rows), Embedded(ScikitLearn(STEPS))
    rows = len(data.label)
    print(f"load the encoder: {seconds(lambda: sentence_encoder(learner.encoder)):.1f} s")
    with TemporaryDirectory() as place:
        keeping = replace(learner, kept_in=str(Path(place) / "kept.db"))
        for name, asked in (("nothing kept", learner), ("kept, first time", keeping), ("kept, again", keeping)):
            took = seconds(lambda asked=asked: asked.fit(data, seed=0))
            print(f"fit on {rows:,} titles, {name}: {took:.1f} s, {1000 * took / rows:.2f} ms a title")
        print(f"kept: {(Path(place) / 'kept.db').stat().st_size / rows:,.0f} bytes a title")
    files = learner.fit(data, seed=0)
    print(f"a version: {sum(map(len, files.values())):,} bytes")
    model = load(learner.format, files)

    def ask(title: str) -> float:
        texts = {"title": np.array([title], dtype=object)}
        return 1000 * seconds(lambda: answers_of(model, np.full((1, 1), np.nan), texts), time.perf_counter)

    asked = [f"{title}!" for title in data.texts["title"][:500]]  # none that was asked before
    for name in ("new", "asked before"):
        times = [ask(title) for title in asked]
        middle, most = np.quantile(times, [0.5, 0.95])
        print(f"one row, {name}: median {middle:.2f} ms, 95 % below {most:.2f} ms")


if __name__ == "__main__":
    main()
