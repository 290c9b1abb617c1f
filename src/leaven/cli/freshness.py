"""`leaven freshness`: what is a fresh model worth?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from leaven.cli.ageing import (
    Aged,
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
from leaven.cli.output import AsJson, Home, emit, messages

if TYPE_CHECKING:
    from rich.console import Console

app = typer.Typer()


@app.command()
def freshness(
    loop: Subject,
    data: Data = None,
    time: Time = None,
    label_time: LabelTime = None,
    ages: Ages = "0,1,3,7,14,30",
    window: Window = "1d",
    models: Models = 120,
    metric: MetricName = None,
    seed: Seed = 0,
    plot: Annotated[Path | None, typer.Option("--plot", help="Draw both curves into this .svg or .png.")] = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Train the loop's recipe on data that ends some days before each test window, and compare what these models lose.

    Beside it: what fresh models lose that were trained on fewer rows, since more rows may help more than more often.
    """
    if plot is not None:
        from leaven.cli.plotting import check_plot

        check_plot(plot)  # not after minutes of training
    found = aged(Asked(loop, data, time, label_time, home, ages, window, models, metric, seed))
    if plot is not None:
        from leaven.cli.plotting_ageing import plot_freshness

        plot_freshness(found.ageing.curve, found.test, path=plot, title=found.loop.name)
        messages().print(f"drew {plot}")
    emit(record_of(found), as_json=as_json, human=lambda out: show(found, out))


def record_of(found: Aged) -> dict[str, object]:
    """Return the curve under the names of the contract, with what it was measured on."""
    curve, test = found.ageing.curve, found.test
    return {
        "ages_days": curve.ages_days, "loss": curve.loss, "band": curve.band, "slope_per_day": curve.slope_per_day,
        "slope_ci": curve.slope_ci, "metric": test.metric, "windows": curve.windows, "blocks": curve.blocks,
        "volume": test.volume, "models": test.models, "train_cpu_s": test.train_cpu_s,
    }  # fmt: skip


def show(found: Aged, out: Console) -> None:
    """Print both curves and what they say."""
    from rich.table import Table

    curve, test = found.ageing.curve, found.test
    table = Table(title=f"{test.metric} by age of the model, {curve.windows} windows, window effects taken out")
    for heading in ("days old", test.metric, "95 % band of the change", "change"):
        table.add_column(heading, justify="right")
    for age, loss, (low, high) in zip(curve.ages_days, curve.loss, curve.band, strict=True):
        table.add_row(
            f"{age:g}", f"{loss:.4f}", f"{low:.4f} to {high:.4f}", f"{100 * (loss / curve.loss[0] - 1):+.1f} %"
        )
    out.print(table)
    volume = Table(title=f"{test.metric} of fresh models by rows")
    for heading in ("of the loop's data", "rows", test.metric, "95 % band of the change"):
        volume.add_column(heading, justify="right")
    more = test.volume
    for share, rows, loss, (low, high) in zip(more.shares, more.rows, more.loss, more.band, strict=True):
        volume.add_row(f"{100 * share:g} %", f"{rows:,.0f}", f"{loss:.4f}", f"{low:.4f} to {high:.4f}")
    out.print(volume)
    low, high = curve.slope_ci
    sign = "more" if low > 0 else "less" if high < 0 else "neither clearly more nor less"
    out.print(
        f"a model loses {sign} each day: {curve.slope_per_day:+.3g} [{low:+.3g}, {high:+.3g}] a day "
        f"({test.models} models, {test.train_cpu_s:.1f} CPU seconds)"
    )
    out.print(_rows_or_days(found))


def _rows_or_days(found: Aged) -> str:
    """What twice the rows is worth, in days of age."""
    volume, curve = found.test.volume, found.ageing.curve
    if len(volume.loss) < 2 or volume.shares[-1] != 1.0:
        return "too few rows to say what more of them would be worth"
    gain, low = volume.loss[-2] - volume.loss[-1], volume.band[-2][0] - volume.loss[-1]
    words = f"the last doubling of the rows changed the loss by {-gain:+.4f}"
    if low <= 0:
        return f"{words}, which may be chance"
    if curve.slope_ci[0] > 0:
        return f"{words}, as much as {gain / curve.slope_per_day:.1f} days of age"
    return words
