"""`leaven demo`: watch a model of real flights being kept fresh."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from leaven.cli.output import AsJson, emit, messages, progress
from leaven.cli.replay import by_window
from leaven.errors import BadDefinition
from leaven.settings import calm_threads

if TYPE_CHECKING:
    from rich.console import Console

app = typer.Typer()


@app.command()
def demo(
    quick: Annotated[bool, typer.Option("--quick", help="A bundled slice of the flights, in half a minute.")] = False,
    home: Annotated[Path, typer.Option("--home", help="Folder to run in; an earlier demo's is emptied.")] = Path(
        ".leaven-demo"
    ),
    as_json: AsJson = False,
) -> None:
    """Watch a model of real flights going stale, being refreshed, proven, promoted, refused, rolled back."""
    if quick:
        calm_threads(1)  # the slice is too small for a second thread to be worth waking
    from leaven.demo.story import tell_story

    with progress() as bar:
        # While the bar lives, what is told must go through its console, or the two draw over each other.
        told = tell_story(home.absolute(), quick=quick, out=messages() if as_json else bar.console, bar=bar)
    picture = home.absolute() / "flights.png"
    drawn = None if quick else _draw(told, picture)
    emit(told, as_json=as_json, human=lambda out: _end(told, drawn, out))


def _draw(told: dict[str, Any], picture: Path) -> Path | None:
    from leaven.cli.plotting import plot_runs

    try:
        plot_runs(told["runs"], metric="roc_auc", path=picture, title="flights")
    except BadDefinition:
        return None  # Matplotlib is an extra: without it the table says the same
    return picture


def _end(told: dict[str, Any], drawn: Path | None, out: Console) -> None:
    out.print("\n[bold]3. What it was worth.[/bold]")
    out.print(by_window(told["runs"], "roc_auc"))
    if drawn is not None:
        out.print(f"picture: {drawn}")
    shown, leaven = f"--home {told['home']}", _own_name()
    out.print(
        f"took {told['seconds']:.0f} s. What to try next:\n"
        f"  {leaven} decisions flights {shown}     every decision with its evidence\n"
        f"  {leaven} status {shown}\n"
        f"  {leaven} show flights 1 {shown}\n"
        f"  {leaven} up {told['loop_file']} {shown}     the servers, in real time\n"
        f"  {leaven} init {told['flights']} --out mine.py     a loop file from your own data",
        soft_wrap=True,
    )


def _own_name() -> str:
    """How this command can be called again: by name, or by path where it is not on the user's PATH."""
    return "leaven" if shutil.which("leaven") else os.path.relpath(sys.argv[0])
