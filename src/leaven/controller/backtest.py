"""How would models of different ages, or trained on fewer rows, have done on the same days?

The loop's own recipe (data, learner, encoding) is trained on what lay before many moments of the past, and each model
answers the windows that came later.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import msgspec
import numpy as np
from numpy.typing import NDArray

from leaven.controller.backtest_plan import Plan, planned
from leaven.curation.snapshot import define_snapshot, read_snapshot
from leaven.curation.windows import Part, chosen
from leaven.errors import BadDefinition
from leaven.events.columns import Examples, column_time
from leaven.events.source import ExampleSource, Span
from leaven.learners.artifact import ModelArtifact, load_artifact
from leaven.learners.process import train_here
from leaven.loop import Loop
from leaven.stats.metrics import METRICS, default_metric
from leaven.training.freshness import Scores
from leaven.training.learner import CannotLearn, training_set

Floats = NDArray[np.float64]
_DAY = timedelta(days=1)
_VOLUME_MODELS = 12  # of each share


class VolumeCurve(msgspec.Struct, frozen=True):
    """Loss of a fresh model by the share of the loop's data that it was trained on."""

    shares: tuple[float, ...]
    rows: tuple[float, ...]  # mean number of examples
    loss: tuple[float, ...]
    band: tuple[tuple[float, float], ...]  # 95 %, of the difference from all of the data, added to its loss


@dataclass(frozen=True, slots=True)
class BackTest:
    """How models of many ages did on the windows of the past, and what it took."""

    metric: str
    scores: Scores
    windows: tuple[datetime, ...]  # beginnings of those that were scored
    volume: VolumeCurve
    models: int
    train_cpu_s: float
    mean_cpu_s: float  # of one model on all of the loop's data


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
    models: int,
    end: datetime,
    as_of: datetime,
    metric: str | None = None,
    shares: Sequence[float] = (0.125, 0.25, 0.5, 1.0),
    progress: Callable[[float, str], None] = lambda share, what: None,
) -> BackTest:
    """Return the loss of models by age and by volume of data.

    Each model answers every window that begins within the ages that are asked for, so that a model is fitted once and
    not once per age.

    Args:
        loop: Its data, learner, label.
        source: The past; labels count as they are known at `as_of`, so that only age differs between models.
        ages_days: The youngest and the oldest are measured, and all between: days between the end of the training data
            and the beginning of a window. Ascending.
        window: Length of a test window.
        models: How many are fitted on all of the loop's data, evenly over the past; over its newest part where they
            would lie further apart than a quarter of the oldest age.
        end: Windows end before it.
        as_of: The moment as of which labels count.
        metric: A loss of single rows; the task's own by default.
        shares: Of the loop's data, for the volume curve, ascending.
        progress: Told the share that is done, and what is being done.
    Raises:
        BadDefinition: the past is too short, or the metric is no loss.
    """
    name = metric or default_metric(loop.label.task)
    if name not in METRICS or METRICS[name].row_loss is None:
        losses = ", ".join(each for each, kind in METRICS.items() if kind.row_loss and loop.label.task in kind.tasks)
        raise BadDefinition("--metric", f"{name!r} is no loss of single rows", f"Use one of {losses}.")
    bench = _Bench(loop, source, as_of)
    plan = planned(loop, source, ages_days, window, models, end)
    fewer = [plan.ends[i] for i in sorted(set(np.linspace(0, len(plan.ends) - 1, _VOLUME_MODELS).round().astype(int)))]
    whole = len(plan.ends) + len(fewer) * sum(share for share in shares if share < 1)
    found: list[Scores] = []
    for done, until in enumerate(plan.ends):
        progress(done / whole, f"models that end {until:%Y-%m-%d}")
        found.append(_scores(bench, plan, name, until))
    each = bench.cpu / max(1, bench.models)
    volume = _volume(bench, plan, name, fewer, shares, found, lambda done: progress(
        (len(plan.ends) + done) / whole, "models of less data"))  # fmt: skip
    scores = Scores(*(np.concatenate([getattr(one, field) for one in found]) for field in Scores.__slots__))
    begun = tuple(plan.newest + timedelta(days=at) for at in np.unique(scores.window).tolist())
    return BackTest(name, scores, begun, volume, bench.models, bench.cpu, each)


def _scores(bench: _Bench, plan: Plan, metric: str, until: datetime, *, share: float = 1.0) -> Scores:
    """The scores of one model on the windows after its data; none where it could not be made."""
    examples, starts = bench.examples(until), plan.windows_after(until)
    if examples is not None and share < 1:
        examples = _fewer(examples, share, until, seed=bench.loop.seed)
    answers = None if examples is None or not starts else bench.model(examples)
    if answers is None:
        return Scores(*(np.empty(0) for _ in Scores.__slots__))
    span = Span(starts[0], starts[-1] + plan.window)
    test = bench.source.examples(span, bench.loop.label, as_of=bench.as_of).mature()
    row_loss = METRICS[metric].row_loss
    assert row_loss is not None
    losses = row_loss(test.labels.value, answers(test)) if len(test) else np.empty(0)
    which = np.searchsorted(np.array([column_time(at) for at in starts]), test.predictions.at, side="right") - 1
    rows = np.bincount(which, minlength=len(starts)).astype(np.float64)
    mean = np.bincount(which, losses, minlength=len(starts)) / np.maximum(rows, 1)
    began = np.array([(at - plan.newest) / _DAY for at in starts])
    scored = rows > 0
    return Scores(began[scored], began[scored] - (until - plan.newest) / _DAY, mean[scored], rows[scored])


def _fewer(examples: Examples, share: float, until: datetime, *, seed: int) -> Examples:
    served, kept = examples.predictions, max(2, round(share * len(examples)))
    return examples.take(chosen(served.id, served.at, Part(Span(until, until), kept), seed=seed))


def _volume(
    bench: _Bench, plan: Plan, metric: str, ends: Sequence[datetime], shares: Sequence[float],
    found: Sequence[Scores], told: Callable[[float], None],
) -> VolumeCurve:  # fmt: skip
    """Some of the models again, on fewer rows: on the windows while they are fresh, beside the model of all rows."""
    fresh = plan.youngest + max(plan.window, plan.oldest / 8)
    losses, rows, done = np.full((len(ends), len(shares)), np.nan), np.zeros(len(ends)), 0.0
    for row, until in enumerate(ends):
        examples = bench.examples(until)
        rows[row] = np.nan if examples is None else len(examples)
        for column, share in enumerate(shares):
            told(done)
            whole = share == 1
            scores = found[plan.ends.index(until)] if whole else _scores(bench, plan, metric, until, share=share)
            young = scores.age_days < fresh / _DAY
            losses[row, column] = np.average(scores.loss[young], weights=scores.rows[young]) if young.any() else np.nan
            done += 0.0 if whole else share
    rows, losses = rows[~np.isnan(losses).any(axis=1)], losses[~np.isnan(losses).any(axis=1)]
    if not len(losses):
        return VolumeCurve((), (), (), ())
    mean, apart = losses.mean(axis=0), losses - losses[:, -1:]
    reach = _t(len(losses)) * apart.std(axis=0, ddof=1) / math.sqrt(len(losses)) if len(losses) > 1 else mean * np.inf
    band = zip((mean - reach).tolist(), (mean + reach).tolist(), strict=True)
    return VolumeCurve(
        tuple(shares), tuple(share * float(rows.mean()) for share in shares), tuple(mean.tolist()), tuple(band)
    )


def _t(models: int) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(models - 1, 0.975))
