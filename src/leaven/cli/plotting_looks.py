"""How is the history of a trial's looks drawn?"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from leaven.cli.plotting import canvas

if TYPE_CHECKING:
    from leaven.controller.standing import Drawn
    from leaven.experiments.showing import Shown


def plot_looks(history: Sequence[Drawn], *, path: Path, title: str) -> None:
    """Draw, for each step and number with an interval, how estimate and interval went over the looks.

    Raises:
        BadDefinition: the file's ending is neither .svg nor .png, or Matplotlib (the extra `plot`) is not installed.
    """
    plt = canvas(path)
    lines = _lines(history)
    figure, axes = plt.subplots(max(1, len(lines)), figsize=(10, 3.2 * max(1, len(lines))), layout="constrained",
                                squeeze=False)  # fmt: skip
    for axis, (name, points) in zip(axes[:, 0], lines.items(), strict=False):
        at = np.array([np.datetime64(moment[:19]) for moment, _ in points])
        estimate, low, high = (
            np.array(column, dtype=float) for column in zip(*map(_numbers, _rows(points)), strict=True)
        )
        axis.fill_between(at, low, np.where(np.isnan(high), np.nanmax([*high, *estimate, 0]), high), alpha=0.2)
        axis.plot(at, estimate, marker="o", ms=3)
        axis.axhline(0, color="#8a8f98", lw=1)
        axis.set_title(f"{title}, {name}", loc="left")
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
    if not lines:
        axes[0, 0].set_title(f"{title}: no look yet", loc="left")
    figure.autofmt_xdate()
    figure.savefig(path, dpi=130)
    plt.close(figure)


def _lines(history: Sequence[Drawn]) -> dict[str, list[tuple[str, Shown]]]:
    """The looks at each number, by step and name; single slices are left out."""
    found: dict[str, list[tuple[str, Shown]]] = {}
    for look in history:
        for row in look.evidence:
            if row.slice is None and (row.difference is not None or row.value is not None):
                said = f"step {look.step}: {row.metric}{f' of {row.arm}, difference' if row.arm else ''}"
                found.setdefault(said, []).append((look.at, row))
    return found


def _rows(points: list[tuple[str, Shown]]) -> list[Shown]:
    return [row for _, row in points]


def _numbers(row: Shown) -> tuple[float | None, float | None, float | None]:
    return (row.value if row.difference is None else row.difference), row.low, row.high
