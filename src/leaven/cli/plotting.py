"""How is what was measured drawn?"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from leaven.errors import BadDefinition
from leaven.stats.metrics import METRICS

if TYPE_CHECKING:
    from leaven.controller.replay import ReplayRun

COLOURS = ("#8a8f98", "#1f77b4", "#d9730d", "#2a9d57")


def plot_runs(runs: list[ReplayRun], *, metric: str, path: Path, title: str) -> None:
    """Draw the metric of each window, a line per run, into an SVG or PNG file; raises as `figure_for` does."""
    with figure_for(path, panels=1) as (figure, (axes,)):
        widths = np.linspace(3.5, 1.5, len(runs))  # of two plans that served the same, both are seen
        for run, colour, width in zip(runs, COLOURS * len(runs), widths, strict=False):
            values = [(_middle(w.start, w.end), w.metrics[metric]) for w in run.windows]
            at = np.array([start for start, value in values if value is not None])
            value = np.array([value for _, value in values if value is not None], dtype=float)
            mean = run.mean_window_metrics[metric]
            label = f"{run.plan} (mean {mean:.3g})" if mean is not None else run.plan
            axes.plot(at, value, marker="o", ms=3, lw=width, color=colour, label=label)
        axes.set_title(f"{title}: {metric} of the answers that were served, by window", loc="left")
        axes.set_ylabel(f"{metric} ({'higher' if METRICS[metric].higher_is_better else 'lower'} is better)")
        axes.legend(frameon=False)
        figure.autofmt_xdate()


def _middle(start: str, end: str) -> np.datetime64:
    begin = np.datetime64(start[:19])
    return begin + (np.datetime64(end[:19]) - begin) // 2


def check_plot(path: Path) -> None:
    """Refuse a file that could not be drawn, before what is to be drawn is computed.

    Raises:
        BadDefinition: its ending is neither .svg nor .png, it has no folder, or Matplotlib (the extra `plot`) is not
            installed.
    """
    if path.suffix not in (".svg", ".png"):
        raise BadDefinition("--plot", f"{path} is neither .svg nor .png", "Name a file with one of these endings.")
    if not path.absolute().parent.is_dir():
        raise BadDefinition("--plot", f"there is no folder {path.parent}", "Make it first.")
    if find_spec("matplotlib") is None:
        raise BadDefinition("--plot", "Matplotlib is not installed", "Run: pip install 'leaven[plot]'.")


@contextmanager
def figure_for(path: Path, *, panels: int, below: bool = False) -> Iterator[tuple[Any, list[Any]]]:
    """Give a figure with panels to draw into, side by side or one below the other, and write it to `path` afterwards.

    Raises:
        BadDefinition: as `check_plot`.
    """
    check_plot(path)
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot as plt

    size = (10.0, 3.2 * panels) if below else (10.0 if panels == 1 else 9.0, 4.5)
    rows, columns = (panels, 1) if below else (1, panels)
    figure, axes = plt.subplots(rows, columns, figsize=size, layout="constrained", squeeze=False)
    try:
        yield figure, list(axes.flat)
        for each in axes.flat:
            each.grid(alpha=0.25)
            each.spines[["top", "right"]].set_visible(False)
        figure.savefig(path, dpi=130)
    finally:
        plt.close(figure)
