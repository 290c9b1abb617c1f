"""How does a person read where a trial stands?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from rich.console import Console

    from leaven.controller.standing import Standing
    from leaven.experiments.showing import Shown

_MARKS = {"passed": "✓", "present": "▸", "ended": "✗"}


def show_standing(loop: str, found: Standing | None, out: Console) -> None:
    """Print state, plan, evidence, verdict and past of a trial."""
    if found is None:
        out.print(f"{loop} has had no trial; start one: leaven trial start {loop} VERSION")
        return
    role = "watched as champion, before it" if found.watching else "against"
    out.print(f"[bold]{found.id}[/bold] is {found.state}: version {found.challenger} {role} {found.champion}")
    if found.paused:
        out.print(f"paused since {escape(found.paused)}")
    for each in found.plan:
        mark = _MARKS.get(each.stands, " ")
        routed = f"{each.kind} {each.share:.4g}" if each.share else each.kind
        out.print(f" {mark} {each.step}. {escape(each.stage)}  [dim]{routed}, {each.stands}[/dim]")
    if found.state == "open":
        _show_present(found, out)
    elif not found.past and found.verdict is not None:  # ended by a person, or by an edit of its loop
        out.print(f"[bold]{found.verdict.outcome}[/bold]: {escape(found.verdict.why)}", soft_wrap=True)
    for past in found.past:
        out.print(f"\nstep {past.step}, {escape(past.stage)}: {past.outcome} at {past.at}, {escape(past.by)}")
        out.print(f"  {escape(past.why)}", soft_wrap=True)
        if past.evidence:
            out.print(evidence_table(past.evidence))


def _show_present(found: Standing, out: Console) -> None:
    looks = f"; {found.looks} looks spent" if found.looks else ""
    out.print(f"since {found.since}, {_left(found)}{looks}")
    if found.evidence:
        out.print(evidence_table(found.evidence))
    if found.verdict is None:
        out.print("nothing was looked at yet")
    else:
        out.print(f"[bold]{found.verdict.outcome}[/bold]: {escape(found.verdict.why)}", soft_wrap=True)


def evidence_table(rows: Sequence[Shown]) -> Table:
    """Return the rows of evidence as a table; columns that say nothing are left out."""
    table = Table(box=None)
    sliced, named = any(row.slice for row in rows), any(row.arm for row in rows)
    for heading in ("metric", *(("slice",) if sliced else ()), *(("arm",) if named else ())):
        table.add_column(heading)
    for heading in ("control", "value", "n", "difference", "interval"):
        table.add_column(heading, justify="right")
    for row in rows:
        first = (row.metric, *((row.slice or "all",) if sliced else ()), *((row.arm,) if named else ()))
        numbers = (_number(row.control), _number(row.value), _counts(row), _number(row.difference, "+"), _interval(row))
        table.add_row(*first, *numbers)
    return table


def _left(found: Standing) -> str:
    if found.at_least_days is None or found.at_most_days is None:
        return f"{found.elapsed_days:.3g} days"
    most = f"{found.at_most_days:.3g} days left at most"
    return f"{found.at_least_days:.3g} days left at least, {most}" if found.at_least_days else most


def _counts(row: Shown) -> str:
    control, arm = row.n
    return "" if not control and not arm else f"{arm:,}" if not control else f"{control:,} / {arm:,}"


def _interval(row: Shown) -> str:
    if row.low is None and row.high is None:
        return ""
    low, high = ("" if bound is None else f"{bound:+.4g}" for bound in (row.low, row.high))
    level = "" if row.level is None else f" ({100 * row.level:.4g} %)"
    return rf"\[{low or '-∞'}, {high or '∞'}]{level}"


def _number(value: float | None, sign: str = "") -> str:
    return "" if value is None else format(value, f"{sign}.4g")
