"""`leaven reproduce`: does a version come out again as it was?"""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from leaven.cli.output import NO, AsJson, Home, emit
from leaven.cli.people import app_at
from leaven.controller.reproducing import Reproduction, reproduce
from leaven.registry import aliases

app = typer.Typer()


@app.command()
def reproduce_version(
    loop: Annotated[str, typer.Argument(help="The loop.")],
    version: Annotated[str, typer.Argument(help="A number, or an alias such as champion.")] = "champion",
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Train a version again from its snapshot, with its seed and parent, and compare the two.

    Exit codes: 0 the same (bit by bit, or within what the learner promises), 1 not the same, 3 it cannot be made again:
    rows were erased, the loop file was edited, it was not trained here.
    """
    installed = app_at(home)
    definition = installed.loop(loop)
    with installed.database.read() as connection:
        number = aliases.resolve(connection, loop, version)
    found = reproduce(installed.parts(), definition, number)
    emit(found, as_json=as_json, human=lambda console: _show(console, found))
    if not found.equal:
        raise typer.Exit(NO)


def _show(console: Console, found: Reproduction) -> None:
    verdict = "[bold]comes out again[/bold]" if found.equal else "[bold]does not come out again[/bold]"
    console.print(f"{found.loop} version {found.version} {verdict}: {escape(found.why)}")
    console.print(f"artifact {found.artifact}; {found.cpu_seconds:.3g} s of CPU to train it again")
