"""Whose models are measured, on which past, and how?"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer

from leaven.cli.option_values import numbers
from leaven.cli.output import progress
from leaven.duration import duration, instant
from leaven.errors import BadDefinition

if TYPE_CHECKING:
    from leaven.controller.backtest import BackTest
    from leaven.events.source import ExampleSource
    from leaven.gateway.answering import Answers
    from leaven.loop import Loop
    from leaven.training.freshness import Ageing

Subject = Annotated[str, typer.Argument(help="A loop file (with --data), or the name of a loop of the installation.")]
Data = Annotated[Path | None, typer.Option("--data", help="Parquet or CSV file of past requests with their outcomes.")]
Time = Annotated[str | None, typer.Option("--time", help="Column: when each prediction was needed.")]
LabelTime = Annotated[str | None, typer.Option("--label-time", help="Column: when each outcome became known.")]
Ages = Annotated[str, typer.Option("--ages", help="Days between the end of the training data and a test window.")]
Window = Annotated[str, typer.Option("--window", help="Length of a test window.")]
Models = Annotated[int, typer.Option("--models", min=4, help="How many to train, spread over the past: what it costs.")]
MetricName = Annotated[str | None, typer.Option("--metric", help="A loss of single rows. Default: the task's own.")]
Seed = Annotated[int, typer.Option("--seed", help="Seed of the bootstrap.")]

_DRAWS = 1_000
_RUNS = 20  # whose cost is the cost of the next


@dataclass(frozen=True, slots=True)
class Asked:
    """The options that all commands about ageing share."""

    subject: str
    data: Path | None
    time: str | None
    label_time: str | None
    home: Path | None
    ages: str
    window: str
    models: int
    metric: str | None
    seed: int


@dataclass(frozen=True, slots=True)
class Aged:
    """What was found: the back-test, how models age by it, and what the loop's own refreshes took."""

    loop: Loop
    test: BackTest
    ageing: Ageing
    runs: int  # the newest versions that were trained here, 20 at most
    measured_cpu_s: float | None  # the mean of training one of them


def aged(asked: Asked) -> Aged:
    """Back-test the loop that was asked for, and return how its models age."""
    from leaven.controller.backtest import back_test
    from leaven.training.freshness import ageing_of

    ages = sorted(numbers("--ages", asked.ages))
    if len(set(ages)) < 2 or ages[0] < 0:
        raise BadDefinition("--ages", f"{asked.ages} are no two ages", "Name two or more days, as 0,1,3,7.")
    loop, source, end, spent = _past(asked)
    with progress() as bar:
        task = bar.add_task("measuring", total=1.0)
        test = back_test(
            loop, source, ages_days=ages, window=duration(asked.window, where="--window"), models=asked.models,
            end=end, as_of=end, metric=asked.metric,
            progress=lambda share, what: bar.update(task, completed=share, description=what),
        )  # fmt: skip
    ageing = ageing_of(test.scores, ages, rng=np.random.default_rng(asked.seed), draws=_DRAWS)
    return Aged(loop, test, ageing, len(spent), float(np.mean(spent)) if spent else None)


def _past(asked: Asked) -> tuple[Loop, ExampleSource, datetime, list[float]]:
    """The loop, its past, the moment up to which that is known, and CPU seconds of its newest versions."""
    if asked.data is not None:
        return *_past_of_a_file(asked, asked.data), []
    if asked.subject.endswith(".py"):
        raise BadDefinition("--data", "a loop file has no past of its own", "Name a file of it, or a loop's name.")
    from leaven.cli.people import app_at
    from leaven.registry.versions import versions

    installed = app_at(asked.home)
    with installed.database.read() as connection:
        made = versions(connection, asked.subject)[-_RUNS:]
    spent = [float(one.lineage.get("training", {})["cpu_seconds"]) for one in made
             if "cpu_seconds" in one.lineage.get("training", {})]  # fmt: skip
    return installed.loop(asked.subject), installed.source(asked.subject), installed.watermark(), spent


def _past_of_a_file(asked: Asked, data: Path) -> tuple[Loop, ExampleSource, datetime]:
    from leaven.controller.history import HistoryLog
    from leaven.loopfile import load_loop
    from leaven.storage.history_file import read_history

    if asked.time is None:
        raise BadDefinition("--time", "it is missing", "Name the column of when each prediction was needed.")
    loop = load_loop(Path(asked.subject))
    history = read_history(data, loop, time=asked.time, label_time=asked.label_time)
    log = HistoryLog(history)
    end = instant(int(history.at[-1].astype(np.int64))) + timedelta(microseconds=1)
    log.serve(end, None, _nobody)
    return loop, log, end + loop.label.window


def _nobody(version: str) -> Answers:
    raise AssertionError(f"nothing was routed, and yet version {version} was asked")
