"""`leaven cadence`: how often is a refresh worth its price?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from leaven.cli.ageing import (
    Ages,
    Asked,
    Data,
    LabelTime,
    MetricName,
    Models,
    Seed,
    Subject,
    Time,
    Window,
    aged,
)
from leaven.cli.output import AsJson, Home, emit
from leaven.duration import duration

if TYPE_CHECKING:
    from rich.console import Console

    from leaven.loop import Loop
    from leaven.training.cadence import Cadence

app = typer.Typer()

_DAY = 86_400.0


@app.command()
def cadence(
    loop: Subject,
    value: Annotated[
        float,
        typer.Option("--value", help="Money per day for each unit of loss: answers a day times its worth on one."),
    ],
    cost: Annotated[float, typer.Option("--cost", help="Money for one refresh: review, expected harm of its trial.")],
    cpu_hour: Annotated[
        float, typer.Option("--cpu-hour", help="Price of a CPU hour; training is added at what it took.")
    ] = 0.0,
    data: Data = None,
    time: Time = None,
    label_time: LabelTime = None,
    ages: Ages = "0,1,3,7,14,30",
    window: Window = "1d",
    models: Models = 120,
    metric: MetricName = None,
    seed: Seed = 0,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Recommend how many days to leave between refreshes, from measured staleness, its worth, and a refresh's price."""
    from leaven.training.cadence import recommend

    found = aged(Asked(loop, data, time, label_time, home, ages, window, models, metric, seed))
    labels, trial = found.loop.label.window.total_seconds() / _DAY, trial_days(found.loop)
    lag = labels + found.loop.holdout_length.total_seconds() / _DAY + trial
    cpu_s, runs = found.measured_cpu_s or found.test.mean_cpu_s, found.runs
    price = cost + cpu_hour * cpu_s / 3600
    advice = recommend(found.ageing, cost=price, value=value, lag=lag, floor_days=labels + trial)
    spent = {
        "refresh_cost": price, "train_cpu_s": cpu_s, "measured_runs": runs, "lag_days": lag, "trial_days": trial,
        "verdict": advice.verdict,
    }  # fmt: skip
    emit(msgspec.to_builtins(advice) | spent, as_json=as_json, human=lambda out: show(advice, spent, out))


def trial_days(loop: Loop) -> float:
    """Return how many days a loop's rollout takes at least."""
    return sum(step.at_least.total_seconds() for stage in loop.rollout for step in stage.steps()) / _DAY


def show(advice: Cadence, spent: dict[str, Any], out: Console) -> None:
    """Print the advice, and what it rests on."""
    low, high = ("never" if bound is None else f"{bound:.1f}" for bound in advice.ci)
    if advice.interval_days is not None:
        floor = ", before the floor" if advice.interval_days == advice.floor_days else ""
        out.print(f"[bold]refresh every {advice.interval_days:.1f} days[/bold] (95 %: {low} to {high}{floor})")
    else:
        out.print(f"[bold]{advice.verdict}[/bold]")
    out.print(advice.why)
    if advice.cost_per_day is not None:
        out.print(f"cost at that interval: {advice.cost_per_day:.3g} a day, staleness included")
    out.print(
        f"one refresh: {spent['refresh_cost']:.4g} (training took {spent['train_cpu_s']:.2g} CPU seconds, mean of "
        f"{_of(spent['measured_runs'])}); from the end of its data until it serves all: {spent['lag_days']:.1f} days, "
        f"{spent['trial_days']:.1f} of them on trial"
    )
    if advice.interval_days is not None:
        every = duration_text(advice.interval_days)
        out.print(f"in the loop file: triggers=[Every({every!r})]")


def _of(runs: int) -> str:
    return f"the {runs} newest versions of this installation" if runs else "the models of the back-test"


def duration_text(days: float) -> str:
    """Return days as a loop file writes them, rounded to whole hours below a week and to days above."""
    text = f"{max(1, round(24 * days))}h" if days < 7 else f"{round(days)}d"
    duration(text)
    return text
