"""How would models of different ages, or trained on fewer rows, have done on the same days?

The loop's own recipe (data, learner, encoding) is trained on what lay before many moments of the past, and each model
answers the windows that came later.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import msgspec
import numpy as np
from numpy.typing import NDArray

from leaven.curation.snapshot import define_snapshot, read_snapshot
from leaven.curation.windows import Part, chosen
from leaven.errors import BadDefinition
from leaven.events.columns import Examples
from leaven.events.source import ExampleSource, Span
from leaven.learners.artifact import ModelArtifact, load_artifact
from leaven.learners.process import train_here
from leaven.loop import Loop
from leaven.stats.metrics import METRICS, default_metric
from leaven.training.learner import CannotLearn, training_set

Floats = NDArray[np.float64]
_FEWEST = 30  # labelled rows of a window that counts


class VolumeCurve(msgspec.Struct, frozen=True):
    """Loss of a fresh model by the share of the loop's data that it was trained on."""

    shares: tuple[float, ...]
    rows: tuple[float, ...]  # mean number of examples
    loss: tuple[float, ...]


class BackTest(msgspec.Struct, frozen=True):
    """Mean loss of each model age on each window, and what it took."""

    metric: str
    ages_days: tuple[float, ...]
    windows: tuple[str, ...]  # beginnings, RFC 3339
    losses: list[list[float | None]]  # by window, then by age
    volume: VolumeCurve
    models: int
    train_cpu_s: float
    mean_cpu_s: float  # of one model on all of the loop's data

    def matrix(self) -> Floats:
        """Return the losses, shape (windows, ages), NaN where there is none."""
        return np.array([[np.nan if loss is None else loss for loss in row] for row in self.losses])


@dataclass
class _Bench:
    """Trains at a moment and a share once, whoever asks."""

    loop: Loop
    source: ExampleSource
    as_of: datetime
    cpu: float = 0.0
    models: int = 0

    def examples(self, until: datetime) -> Examples | None:
        first = self.source.first()
        if first is None or first >= until:
            return None
        parts = self.loop.data.parts(until=until, first=first)
        if not parts or min(part.span.start for part in parts) < first:
            return None  # data that is not all there would make the older model the smaller one
        # As a refresh would read them: samples, arms, and each example once where parts overlap.
        asked = define_snapshot(
            self.loop.name, parts, holdout=None, rule=self.loop.label, as_of=self.as_of, marks=self.source.marks(),
            seed=self.loop.seed,
        )  # fmt: skip
        return read_snapshot(asked, self.source, self.loop.label)

    def model(self, examples: Examples) -> Callable[[Examples], Floats] | None:
        data = training_set(self.loop.schema, examples.predictions.features, examples.labels.value)
        try:
            made = train_here(self.loop.learner, data, mode="fit", seed=self.loop.seed)
        except CannotLearn:
            return None
        self.cpu, self.models = self.cpu + made.cpu_seconds, self.models + 1
        artifact = ModelArtifact(made.format, data.encoder, "", made.files)
        served = load_artifact(artifact.to_files())
        return lambda asked: served.answer(asked.predictions.features)


def back_test(
    loop: Loop,
    source: ExampleSource,
    *,
    ages_days: Sequence[float],
    window: timedelta,
    windows: int,
    end: datetime,
    as_of: datetime,
    metric: str | None = None,
    shares: Sequence[float] = (0.125, 0.25, 0.5, 1.0),
    progress: Callable[[float, str], None] = lambda share, what: None,
) -> BackTest:
    """Return the loss of models by age and by volume of data.

    Args:
        loop: Its data, learner, label.
        source: The past; labels count as they are known at `as_of`, so that only age differs between models.
        ages_days: Days between the end of the training data and the beginning of a window.
        window: Length of a test window.
        windows: How many, spread evenly over the past that is long enough for the oldest model.
        end: Windows end before it.
        as_of: The moment as of which labels count.
        metric: A loss of single rows; the task's own by default.
        shares: Of the loop's data, for the volume curve.
        progress: Told the share that is done, and what is being done.
    Raises:
        BadDefinition: the past is too short for 3 windows, or the metric is no loss.
    """
    name = metric or default_metric(loop.label.task)
    if name not in METRICS or METRICS[name].row_loss is None:
        losses = ", ".join(each for each, kind in METRICS.items() if kind.row_loss and loop.label.task in kind.tasks)
        raise BadDefinition("--metric", f"{name!r} is no loss of single rows", f"Use one of {losses}.")
    bench, starts = _Bench(loop, source, as_of), _starts(loop, source, ages_days, window, windows, end)
    tests = [source.examples(Span(at, at + window), loop.label, as_of=as_of).mature() for at in starts]
    asked = _asked(starts, ages_days)
    matrix = np.full((len(starts), len(ages_days)), np.nan)
    for done, (until, cells) in enumerate(sorted(asked.items())):
        progress(done / (len(asked) + len(shares) - 1), f"models that end {until:%Y-%m-%d}")
        examples = bench.examples(until)
        answers = None if examples is None else bench.model(examples)
        for row, column in cells if answers is not None else ():
            assert answers is not None
            matrix[row, column] = _loss(name, tests[row], answers)
    each = bench.cpu / max(1, bench.models)
    volume = _volume(bench, name, tests, starts, shares, matrix[:, 0], lambda done: progress(
        (len(asked) + done) / (len(asked) + len(shares) - 1), "models of less data"))  # fmt: skip
    return BackTest(
        name, tuple(float(age) for age in ages_days), tuple(at.isoformat() for at in starts),
        [[None if np.isnan(loss) else float(loss) for loss in row] for row in matrix], volume, bench.models, bench.cpu,
        each,
    )  # fmt: skip


def _starts(
    loop: Loop, source: ExampleSource, ages_days: Sequence[float], window: timedelta, windows: int, end: datetime
) -> list[datetime]:
    """Beginnings of the windows, whole windows apart, the newest one as late as labels allow."""
    first = source.first()
    last = end - loop.label.window - window
    if first is None:
        raise BadDefinition("freshness", "there are no examples", "Import history: leaven events import.")
    reach = _reach(loop, last, first) + timedelta(days=max(ages_days))
    room = int((last - first - reach) / window)
    if room < 2:
        need = reach + 3 * window + loop.label.window
        raise BadDefinition(
            "freshness", f"{(end - first).days} days of examples leave {max(0, room + 1)} test windows",
            f"{need.days} days are needed for 3: bring more, or ask for younger --ages or a shorter --window.",
        )  # fmt: skip
    apart = max(1, room // max(1, windows - 1))
    return [last - i * apart * window for i in reversed(range(min(windows, room // apart + 1)))]


def _reach(loop: Loop, until: datetime, first: datetime) -> timedelta:
    """How far back the loop's data goes; data that takes all there is may do with a third of it."""
    parts = loop.data.parts(until=until, first=first)
    start = min((part.span.start for part in parts), default=first)
    return (until - first) / 3 if start <= first else until - start


def _asked(starts: Sequence[datetime], ages_days: Sequence[float]) -> dict[datetime, list[tuple[int, int]]]:
    """Which cells of the matrix each end of training data serves: windows share models where days coincide."""
    asked: dict[datetime, list[tuple[int, int]]] = {}
    for row, at in enumerate(starts):
        for column, age in enumerate(ages_days):
            asked.setdefault(at - timedelta(days=age), []).append((row, column))
    return asked


def _loss(metric: str, test: Examples, answers: Callable[[Examples], Floats]) -> float:
    row_loss = METRICS[metric].row_loss
    assert row_loss is not None
    return float(row_loss(test.labels.value, answers(test)).mean()) if len(test) >= _FEWEST else np.nan


def _volume(
    bench: _Bench, metric: str, tests: Sequence[Examples], starts: Sequence[datetime], shares: Sequence[float],
    fresh: Floats, told: Callable[[int], None],
) -> VolumeCurve:  # fmt: skip
    """The youngest models again, on fewer rows: on a few of the windows, whose losses with all rows are known."""
    picked = np.linspace(0, len(starts) - 1, min(6, len(starts))).round().astype(int)
    losses, rows = np.full((len(picked), len(shares)), np.nan), np.zeros(len(shares))
    for column, share in enumerate(shares):
        told(column)
        for row, at in enumerate(picked.tolist()):
            examples = bench.examples(starts[at])
            if examples is None:
                continue
            served = examples.predictions
            kept = max(2, round(share * len(examples)))
            part = Part(Span(starts[at], starts[at]), kept)
            fewer = examples.take(chosen(served.id, served.at, part, seed=bench.loop.seed))
            rows[column] += len(fewer) / len(picked)
            answers = bench.model(fewer) if share < 1 else None
            losses[row, column] = fresh[at] if answers is None else _loss(metric, tests[at], answers)
    whole = ~np.isnan(losses).any(axis=1)
    means = losses[whole].mean(axis=0) if whole.any() else np.full(len(shares), np.nan)
    known = [i for i, mean in enumerate(means) if not np.isnan(mean)]
    return VolumeCurve(tuple(float(shares[i]) for i in known), tuple(float(rows[i]) for i in known),
                       tuple(float(means[i]) for i in known))  # fmt: skip
