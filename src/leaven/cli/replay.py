"""`leaven replay`: judge a loop on its history, under a virtual clock."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import numpy as np
import typer

from leaven.cli.moments import moment_from
from leaven.cli.output import AsJson, emit, messages, progress
from leaven.duration import duration, instant
from leaven.errors import BadDefinition
from leaven.settings import settings_from

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import Console
    from rich.progress import Progress, TaskID
    from rich.table import Table

    from leaven.controller.replay import PlanName, ReplayRun
    from leaven.registry.decisions import Decision
    from leaven.storage.history_file import History

app = typer.Typer()

_MANY_WINDOWS = 16  # more are shown by month


@app.command()
def replay(
    loop_file: Annotated[Path, typer.Argument(help="The loop file.")],
    data: Annotated[Path, typer.Option("--data", help="Parquet or CSV file of past requests with their outcomes.")],
    time: Annotated[str, typer.Option("--time", help="Column: when each prediction was needed.")],
    label_time: Annotated[
        str | None, typer.Option("--label-time", help="Column: when each outcome became known. Default: at once.")
    ] = None,
    compare: Annotated[
        str | None, typer.Option("--compare", help="Plans to run, by commas: frozen, stateless, stateful, hybrid.")
    ] = None,
    plan: Annotated[str | None, typer.Option("--plan", help="One plan to run in place of the loop's own.")] = None,
    start: Annotated[
        str | None, typer.Option("--start", help="Date of the first version. Default: after a sixth of the time.")
    ] = None,
    retrain: Annotated[
        list[str] | None,
        typer.Option("--retrain", help="As if somebody had run `leaven retrain` then; may be repeated. Not of frozen."),
    ] = None,
    window: Annotated[str, typer.Option("--window", help="Length of the windows of the report.")] = "7d",
    plot: Annotated[Path | None, typer.Option("--plot", help="Draw the windows into this .svg or .png.")] = None,
    as_json: AsJson = False,
) -> None:
    """Run the loop over its past: same triggers, gates, trials and decisions as live, in seconds."""
    from leaven.controller import replay as replaying
    from leaven.loopfile import load_loop
    from leaven.storage.history_file import read_history

    loop = load_loop(loop_file)
    loop.need_model(f"replay {loop_file}")
    plans = _plans(compare, plan, default=replaying.own_plan(loop))
    if plot is not None:
        from leaven.cli.plotting import check_plot

        check_plot(plot)  # not after minutes of replaying
    history = read_history(data, loop, time=time, label_time=label_time)
    begin = _start(start, history)
    by_hand = [moment_from(text, where="--retrain") for text in retrain or ()]
    runs: list[ReplayRun] = []
    with progress() as bar:
        for name in plans:
            task = bar.add_task(f"replaying {name}", total=1.0)
            told = _teller(bar, task, name)
            chosen = replaying.variant(loop, name)
            runs.append(
                replaying.replay(
                    chosen, history, name=name, start=begin, by_hand=() if name == "frozen" else by_hand,
                    window=duration(window), progress=told, trusted=settings_from().trusted_types,
                )
            )  # fmt: skip
    if plot is not None:
        from leaven.cli.plotting import plot_runs

        plot_runs(runs, metric=loop_metric(runs), path=plot, title=loop.name)
        messages().print(f"drew {plot}")
    emit({"runs": [_record(run) for run in runs]}, as_json=as_json, human=lambda out: show_runs(runs, out))


def _teller(bar: Progress, task: TaskID, name: str) -> Callable[[float, datetime], None]:
    return lambda share, now: bar.update(task, completed=share, description=f"replaying {name} {now:%Y-%m-%d}")


def _plans(compare: str | None, plan: str | None, *, default: PlanName) -> list[PlanName]:
    from leaven.controller.replay import PLANS

    if compare is not None and plan is not None:
        raise BadDefinition("--plan and --compare", "both say which plans to run", "Keep one of the two.")
    asked = [name.strip() for name in (compare or plan or default).split(",")]
    for name in asked:
        if name not in PLANS:
            where = "--compare" if compare else "--plan"
            raise BadDefinition(where, f"there is no plan {name!r}", f"Use {', '.join(PLANS)}.")
    return asked  # type: ignore[return-value]


def _start(start: str | None, history: History) -> datetime:
    first, last = (instant(int(history.at[i].astype(np.int64))) for i in (0, -1))
    if start is None:
        return first + (last - first) / 6
    return moment_from(start, where="--start")


def _record(run: ReplayRun) -> dict[str, object]:
    return {name: kept for name, kept in msgspec.to_builtins(run).items() if name != "decisions"}


def loop_metric(runs: list[ReplayRun]) -> str:
    """Return the metric that people look at first."""
    return "roc_auc" if "roc_auc" in runs[0].metrics else next(iter(runs[0].metrics))


def show_runs(runs: list[ReplayRun], out: Console) -> None:
    """Print one line per run, its windows beside those of the others, and why refreshes were rejected."""
    from rich.markup import escape
    from rich.table import Table

    metric = loop_metric(runs)
    table = Table(title=f"what was served ({metric}, mean over windows), and what it took with the first version")
    headings = (metric, "refreshes", "promoted", "rejected", "rolled back", "rows trained on", "training CPU")
    table.add_column("plan")
    for heading in headings:
        table.add_column(heading, justify="right")
    for run in runs:
        table.add_row(
            run.plan, _shown(run.mean_window_metrics[metric]), str(run.refreshes), str(run.promoted),
            str(run.rejected), str(run.rolled_back), f"{run.train_rows:,}", f"{run.train_cpu_s:.2f} s",
        )  # fmt: skip
    out.print(table)
    out.print(by_window(runs, metric))
    for run in runs:
        last = _last_rejection(run)
        if last is not None:
            out.print(f"{run.plan}: last rejected on {instant(last.at):%Y-%m-%d}: {escape(last.why.splitlines()[-1])}")
    rows, seconds = sum(run.rows for run in runs), sum(run.seconds for run in runs)
    out.print(f"replayed {rows:,} answers in {seconds:.1f} s")


def _last_rejection(run: ReplayRun) -> Decision | None:
    """The newest decision of gates or a trial against a version."""
    against = {"gate": ("fail", "undecided"), "trial": ("stop", "give_up", "roll_back")}
    return next((one for one in reversed(run.decisions) if one.outcome in against.get(one.kind, ())), None)


def by_window(runs: list[ReplayRun], metric: str) -> Table:
    """Return a table of the metric by window, or by the month in which windows began where they are many."""
    from rich.table import Table

    from leaven.stats.metrics import METRICS

    starts = sorted({window.start for run in runs for window in run.windows})
    months = len(starts) > _MANY_WINDOWS
    several_a_day = len({start[:10] for start in starts}) < len(starts)
    length = len("2026-01") if months else len("2026-01-29T00:00" if several_a_day else "2026-01-29")
    table = Table(title=f"{metric} by {'month' if months else 'window'}")
    table.add_column("month" if months else "from")
    for run in runs:
        table.add_column(run.plan, justify="right")
    better = max if METRICS[metric].higher_is_better else min
    for name in dict.fromkeys(start[:length] for start in starts):
        values = [_mean_of(run, name, metric) for run in runs]
        best = better((value for value in values if value is not None), default=None)
        shown = (_bold(value, value == best and len(runs) > 1) for value in values)
        table.add_row(name.replace("T", " "), *shown)
    return table


def _mean_of(run: ReplayRun, began: str, metric: str) -> float | None:
    """The mean of the windows whose start, as text, begins with `began`."""
    known = [w.metrics[metric] for w in run.windows if w.start.startswith(began) and w.metrics[metric] is not None]
    return float(np.mean(np.array(known, dtype=float))) if known else None


def _shown(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


def _bold(value: float | None, bold: bool) -> str:
    return f"[bold]{_shown(value)}[/bold]" if bold else _shown(value)
