"""`leaven iterate`: has changing the model paid more, or the same model on newer data?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from leaven.cli.control import reading
from leaven.cli.output import AsJson, Home, emit

if TYPE_CHECKING:
    from rich.console import Console

    from leaven.training.iteration import Iterated, Paid, Tried

app = typer.Typer()

_NAMES = {"data": "the same model, newer data", "model": "another model", "curation": "other rows or plan"}
_LATEST = 12


@app.command()
def iterate(
    loop: Annotated[str, typer.Argument(help="The loop.")],
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Say from past refreshes whether model iteration or data iteration has paid more, and at what cost.

    What a challenger gained is measured at its gates, against the champion of then, on the same held-out rows.
    """
    from leaven.controller.iterating import iterated

    with reading(home) as connection:
        found = iterated(connection, loop)
    emit(found, as_json=as_json, human=lambda console: _show(console, loop, found))


def _show(console: Console, loop: str, found: Iterated) -> None:
    from rich.table import Table

    if not found.tried:
        console.print(f"No challenger of {loop} has met a champion at its gates yet, so nothing is known of gains.")
    else:
        console.print(f"[bold]{_HEADLINES[found.verdict]}[/bold]: {found.why}.")
        headings = ("what was tried", "tried", "promoted", f"gain in {found.metric}", "of the loss", "CPU s, each",
                    "CPU s for 1 %")  # fmt: skip
        table = Table(*headings)
        for kind, paid in found.kinds.items():
            table.add_row(_NAMES[kind], *_cells(paid))
        table.add_section()
        for part, paid in found.parts.items():
            table.add_row(f"with other {part}", *_cells(paid))
        console.print(table)
        console.print(_table_of_latest(found.tried))
        console.print(
            "Every challenger that met a champion at its gates counts, promoted or not: those that were promoted were "
            "chosen for their gain. A changed model had newer data too; the difference above is what the change added."
        )
    for why, count in found.unmeasured.items():
        console.print(f"not counted: {count} version{'s' if count > 1 else ''}, as {why}")


_HEADLINES = {
    "model": "Model iteration has paid more",
    "data": "Data iteration has paid more",
    "no difference shown": "Neither is shown to pay more",
    "not enough evidence": "Not enough evidence",
}


def _cells(paid: Paid) -> list[str]:
    gain, share, seconds = "–", "–", "–"
    if paid.gain is not None:
        bounds = f" [{paid.gain.low:+.4f}, {paid.gain.high:+.4f}]" if paid.tried > 1 else " (one alone has no interval)"
        gain = f"{paid.gain.estimate:+.4f}{bounds}"
        share = "–" if paid.share is None else f"{paid.share:+.1%}"
        seconds = "no gain is shown"
    if paid.seconds_per_share is not None and paid.seconds_range is not None:
        low, high = paid.seconds_range
        seconds = f"{paid.seconds_per_share:.3g} [{low:.3g}, {high:.3g}]"
    return [str(paid.tried), str(paid.promoted), gain, share, f"{paid.cpu_seconds:.3g}" if paid.tried else "–", seconds]


def _table_of_latest(tried: tuple[Tried, ...]) -> object:
    from rich.table import Table

    title = "The latest challengers" if len(tried) > _LATEST else "The challengers"
    table = Table(
        "version", "against", "changed", "gain", "standard error", "became", title=title, title_justify="left"
    )
    for one in tried[-_LATEST:]:
        changed = ", ".join(one.changed) or "nothing"
        became = "champion" if one.promoted else ""
        table.add_row(str(one.version), str(one.against), changed, f"{one.gain:+.4f}", f"{one.error:.4f}", became)
    return table
