"""How is the history of a trial's looks drawn?"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from leaven.cli.plotting import figure_for

if TYPE_CHECKING:
    from leaven.controller.standing import Drawn
    from leaven.experiments.showing import Shown


def plot_looks(history: Sequence[Drawn], *, path: Path, title: str) -> None:
    """Draw how estimates and intervals went over the looks, a panel per step and number; raises as `figure_for`."""
    lines = _lines(history)
    with figure_for(path, panels=max(1, len(lines)), below=True) as (figure, panels):
        for axes, (name, points) in zip(panels, lines.items(), strict=False):
            at = np.array([np.datetime64(moment[:19]) for moment, _ in points])
            estimate, low, high = (
                np.array(column, dtype=float) for column in zip(*map(_numbers, _rows(points)), strict=True)
            )
            axes.fill_between(at, low, np.where(np.isnan(high), np.nanmax([*high, *estimate, 0]), high), alpha=0.2)
            axes.plot(at, estimate, marker="o", ms=3)
            axes.axhline(0, color="#8a8f98", lw=1)
            axes.set_title(f"{title}, {name}", loc="left")
        if not lines:
            panels[0].set_title(f"{title}: no look yet", loc="left")
        figure.autofmt_xdate()


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
