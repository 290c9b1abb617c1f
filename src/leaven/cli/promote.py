"""`leaven promote`: make a version the champion, on your own word."""

from __future__ import annotations

from typing import Annotated

import typer

from leaven.cli.output import AsJson, Home, emit
from leaven.cli.people import app_at, me
from leaven.controller.people import promote_by_hand
from leaven.registry import aliases

app = typer.Typer()


@app.command()
def promote(
    loop: Annotated[str, typer.Argument(help="Name of the loop.")],
    version: Annotated[str, typer.Argument(help="Number of the version, or an alias such as challenger.")],
    why: Annotated[str, typer.Option("--why", help="Kept with the decision.")] = "",
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Make a version the champion at once, without a trial; the gateways follow within a second."""
    installed = app_at(home)
    with installed.database.read() as connection:
        number = aliases.resolve(connection, loop, version)
    decided = promote_by_hand(installed.database, loop, number, by=me(), why=why, now=installed.clock.now())
    emit(
        decided,
        as_json=as_json,
        human=lambda out: out.print(f"version {number} is champion of {loop} (decision {decided.id})"),
    )
