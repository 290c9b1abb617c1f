"""How is a replay drawn, and on what?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from leaven.errors import BadDefinition

if TYPE_CHECKING:
    from leaven.controller.replay import ReplayRun

_COLOURS = ("#8a8f98", "#1f77b4", "#d9730d")


def plot_runs(runs: list[ReplayRun], *, metric: str, path: Path, title: str) -> None:
    """Draw the metric of each window, a line per run, into an SVG or PNG file.

    Raises:
        BadDefinition: the file's ending is neither, or Matplotlib (the extra `plot`) is not installed.
    """
    plt = canvas(path)
    figure, axes = plt.subplots(figsize=(10, 4.5), layout="constrained")
    for run, colour in zip(runs, _COLOURS * len(runs), strict=False):
        values = [(np.datetime64(w.start[:19]), w.metrics[metric]) for w in run.windows]
        at = np.array([start for start, value in values if value is not None])
        value = np.array([value for _, value in values if value is not None], dtype=float)
        mean = run.mean_window_metrics[metric]
        label = f"{run.plan} (mean {mean:.3f})" if mean is not None else run.plan
        axes.plot(at, value, marker="o", ms=3, color=colour, label=label)
    axes.set_title(f"{title}: {metric} of the answers that were served, by window", loc="left")
    axes.set_ylabel(metric)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    figure.autofmt_xdate()
    figure.savefig(path, dpi=130)
    plt.close(figure)


def canvas(path: Path) -> Any:
    """Return Matplotlib's pyplot, drawing into files, where it can write `path`.

    Raises:
        BadDefinition: the file's ending is neither .svg nor .png, or Matplotlib (the extra `plot`) is not installed.
    """
    if path.suffix not in (".svg", ".png"):
        raise BadDefinition("--plot", f"{path} is neither .svg nor .png", "Name a file with one of these endings.")
    try:
        import matplotlib as mpl
    except ModuleNotFoundError as error:
        raise BadDefinition("--plot", "Matplotlib is not installed", "Run: pip install 'leaven[plot]'.") from error
    mpl.use("agg")
    from matplotlib import pyplot as plt

    return plt
