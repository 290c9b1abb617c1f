"""`leaven prove`: put a version into a trial."""

from __future__ import annotations

from typing import Annotated

import typer

from leaven.cli.output import AsJson, Home, emit
from leaven.cli.people import app_at, me
from leaven.controller import people
from leaven.registry import aliases

app = typer.Typer()


@app.command()
def prove(
    loop: Annotated[str, typer.Argument(help="Name of the loop.")],
    version: Annotated[str, typer.Argument(help="Number of the version, or an alias such as previous.")],
    start_with: Annotated[str | None, typer.Option("--from", help="shadow or canary: skip the stages before.")] = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Put a version into a trial against the champion; the controller judges it by the loop's rollout."""
    installed = app_at(home)
    with installed.database.read() as connection:
        number = aliases.resolve(connection, loop, version)
    opened = people.prove(
        installed.parts(), installed.loop(loop), number, start_with=start_with, by=me(), now=installed.clock.now()
    )
    emit(
        opened,
        as_json=as_json,
        human=lambda out: out.print(
            f"version {number} is being proven in trial {opened.id}; see: leaven status {loop}"
        ),
    )
