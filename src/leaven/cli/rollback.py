"""`leaven rollback`: end the open trial, or go back to the champion before this one."""

from __future__ import annotations

from typing import Annotated

import typer

from leaven.cli.output import AsJson, Home, emit
from leaven.cli.people import app_at, me
from leaven.controller.people import roll_back
from leaven.registry import aliases, loops

app = typer.Typer()


@app.command()
def rollback(
    loop: Annotated[str, typer.Argument(help="Name of the loop.")],
    why: Annotated[str, typer.Option("--why", help="Kept with the decision.")] = "",
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """End an open trial; with none open, go back to the champion before this one. Gateways follow within a second."""
    installed = app_at(home)
    with installed.database.read() as connection:
        loops.loop(connection, loop)
    decided = roll_back(installed.database, loop, by=me(), why=why, now=installed.clock.now())
    with installed.database.read() as connection:
        champion = aliases.alias(connection, loop, "champion")
    what = f"trial {decided.trial} is ended" if decided.trial else "rolled back"
    emit(
        decided,
        as_json=as_json,
        human=lambda out: out.print(f"{what}; version {champion} serves {loop} (decision {decided.id})"),
    )
