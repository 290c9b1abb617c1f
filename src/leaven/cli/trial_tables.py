"""How does a person read the analysis of a trial?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.table import Table

if TYPE_CHECKING:
    from rich.console import Console

    from leaven.cli.trial_size import Sized
    from leaven.experiments.analysis import Analysis
    from leaven.experiments.conclusion import Result
    from leaven.experiments.measures import Sums

_COLOURS = {"promote": "green", "stop": "red", "hold": "yellow"}


def show_analysis(found: Analysis, sums: Sums, control: str, alpha: float, out: Console) -> None:
    """Print arms, split, results and verdict."""
    out.print(_arms(sums, control))
    split = "[red]broken[/red]" if found.srm.broken else "as planned"
    out.print(f"split: {split} (p = {found.srm.p_value:.3g}, {found.srm.method})\n")
    out.print(_results(found, alpha))
    if found.results and found.results[0].estimator.endswith("over clusters"):
        control_clusters, clusters = found.results[0].n
        out.print(f"errors count clusters: {control_clusters:,} of the control, {clusters:,} of the arm")
    if any(row.bayesian is not None for row in found.results):
        usual = next(row.bayesian.usual_effect for row in found.results if row.bayesian is not None)
        out.print(f"\nbelieved, true differences being {100 * usual:g} % as a rule (display only, not peek-safe):")
        out.print(_beliefs(found))
    decision = found.verdict.decision
    colour = _COLOURS.get(decision, "bold")
    out.print(f"\n[{colour}]{decision}[/{colour}]: {found.verdict.why}", markup=True)


def show_size(found: Sized, out: Console) -> None:
    """Print units and days, and what was read from the log."""
    control, arm = found.control, found.arm
    each = f"{control:,} in each of two arms" if control == arm else f"{control:,} control, {arm:,} in the arm"
    out.print(f"{control + arm:,} units: {each}")
    if found.asked:
        out.print(days_in_words(found.days, found.days_between))
    if found.log is not None:
        if found.sd is not None:
            long = "a day" if found.over == 1 else f"{found.over:g} days"
            spread = f"each measured for {long}, units have a spread of {found.sd:.4g} in {found.log.metric}"
            out.print(f"[dim]{spread}[/dim]")
        for line in found.log.in_words():
            out.print(f"[dim]{line}[/dim]")


def days_in_words(days: int | None, between: tuple[int | None, int | None] | None) -> str:
    """Return how long it takes, and between what, where that is not the same."""
    said = "so many never come" if days is None else f"{days:,} days"
    if between is None or between[0] == between[1]:
        return said
    soonest, latest = ("never" if each is None else f"{each:,}" for each in between)
    return f"{said} (between {soonest} and {latest})"


def show_boundaries(looks: Sequence[float], z: Sequence[float], nominal: Sequence[float], out: Console) -> None:
    """Print one row per look."""
    table = Table(box=None)
    for heading in ("information", "z", "p at this look"):
        table.add_column(heading, justify="right")
    for look, bound, p in zip(looks, z, nominal, strict=True):
        table.add_row(f"{100 * look:.4g} %", f"{bound:.6f}", f"{p:.3g}")
    out.print(table)


def _arms(sums: Sums, control: str) -> Table:
    table = Table(box=None)
    for heading in ("arm", "units", "mature"):
        table.add_column(heading, justify="left" if heading == "arm" else "right")
    for arm, units in sums.units.items():
        table.add_row(f"{arm} (control)" if arm == control else arm, f"{units:,}", f"{sums.mature[arm]:,}")
    return table


def _results(found: Analysis, alpha: float) -> Table:
    table = Table(box=None)
    level = f"{100 * (1 - alpha):g} %"
    sliced = any(row.slice is not None for row in found.results)
    for heading in (*(("slice",) if sliced else ()), "metric", "arm"):
        table.add_column(heading)
    for heading in ("control", "arm", "difference", level, "shrunk", "relative", level, "p"):
        table.add_column(heading, justify="right")
    for row in found.results:
        table.add_row(*((row.slice or "all",) if sliced else ()), row.metric, row.arm, *_numbers(row, alpha))
    return table


def _beliefs(found: Analysis) -> Table:
    table = Table(box=None)
    sliced = any(row.slice is not None for row in found.results)
    for heading in (*(("slice",) if sliced else ()), "metric", "arm"):
        table.add_column(heading)
    for heading in ("chance to win", "lift", "95 %", "risk of control", "risk of arm"):
        table.add_column(heading, justify="right")
    for row in found.results:
        if (held := row.bayesian) is not None:
            numbers = (
                f"{100 * held.chance_to_win:.1f} %", _percent(held.lift), _interval(held.ci, "+.2f", 100),
                f"{100 * held.risk.control:.2f} %", f"{100 * held.risk.arm:.2f} %",
            )  # fmt: skip
            table.add_row(*((row.slice or "all",) if sliced else ()), row.metric, row.arm, *numbers)
    return table


def _numbers(row: Result, alpha: float) -> list[str]:
    p = f"{row.p_value:.3g}"
    return [
        _number(row.control_mean), _number(row.arm_mean), _number(row.difference, sign="+"),
        _interval(row.ci, "+.4g", 1), _number(row.shrunk, sign="+"), _percent(row.relative),
        _interval(row.relative_ci, "+.2f", 100),
        f"[bold]{p}[/bold]" if row.p_value < alpha else p,
    ]  # fmt: skip


def _number(value: float | None, *, sign: str = "") -> str:
    return "" if value is None else format(value, f"{sign}.4g")


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:+.2f} %"


def _interval(bounds: tuple[float | None, float | None], form: str, factor: float) -> str:
    low, high = ("?" if bound is None else format(factor * bound, form) for bound in bounds)
    return "" if bounds == (None, None) else rf"\[{low}, {high}]"
