"""How is drawn how models age, and what more rows are worth beside it?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from leaven.cli.plotting import COLOURS, figure_for

if TYPE_CHECKING:
    from leaven.controller.backtest import BackTest
    from leaven.training.freshness import FreshnessCurve


def plot_freshness(curve: FreshnessCurve, test: BackTest, *, path: Path, title: str) -> None:
    """Draw the loss by model age with its band, and beside it, on the same scale, the loss by rows.

    Raises as `figure_for` does.
    """
    name = test.metric.replace("_", " ")
    with figure_for(path, panels=2) as (_, (by_age, by_rows)):
        _line(by_age, curve.ages_days, curve.loss, curve.band, COLOURS[1])
        by_age.set_title(f"{title}: {name} by age", loc="left")
        by_age.set_xlabel("days since the model's data ended (band: 95 %)")
        by_age.set_ylabel(f"{name} (lower is better)")
        by_age.axhline(curve.loss[0], color=COLOURS[0], lw=1, ls="--", zorder=0)
        by_age.annotate(_slope(curve), (0.03, 0.97), xycoords="axes fraction", va="top", color="#4a4f57")
        if not test.volume.loss:
            by_rows.set_title("too few rows to train on fewer", loc="left")
            return
        # What rows are worth shows in the change; the level is that of other windows, so it is moved to the curve's.
        volume, level = test.volume, curve.loss[0] - test.volume.loss[-1]
        band = [(low + level, high + level) for low, high in volume.band]
        _line(by_rows, volume.rows, [loss + level for loss in volume.loss], band, COLOURS[2])
        by_rows.sharey(by_age)
        by_rows.axhline(curve.loss[0], color=COLOURS[0], lw=1, ls="--", zorder=0)
        by_rows.set_xscale("log", base=2)
        by_rows.set_xticks(volume.rows, [f"{rows:,.0f}" for rows in volume.rows])
        by_rows.minorticks_off()
        by_rows.set_title("fresh models by rows", loc="left")
        by_rows.set_xlabel("examples trained on (bands: 95 %)")


def _line(axes: Any, x: Any, y: Any, band: Any, colour: str) -> None:
    low, high = np.array(band).T
    axes.fill_between(x, low, high, color=colour, alpha=0.18, lw=0)
    axes.plot(x, y, marker="o", color=colour, lw=2)


def _slope(curve: FreshnessCurve) -> str:
    low, high = curve.slope_ci
    return f"{curve.slope_per_day:+.2g} a day\n95 %: {low:+.2g} to {high:+.2g}"
