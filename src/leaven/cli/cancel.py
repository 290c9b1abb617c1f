"""`leaven cancel`: end the running refresh or trial of a loop."""

from __future__ import annotations

from typing import Annotated

import typer

from leaven.cli.output import AsJson, Home, emit
from leaven.cli.people import app_at, me
from leaven.controller.people import request_cancel

app = typer.Typer()


@app.command()
def cancel(
    loop: Annotated[str, typer.Argument(help="Name of the loop.")], home: Home = None, as_json: AsJson = False
) -> None:
    """End the running refresh or trial of a loop; the champion serves on."""
    installed = app_at(home)
    ended = request_cancel(installed.database, installed.loop(loop).name, by=me(), now=installed.clock.now())
    emit(
        {"cancelled": ended, "loop": loop},
        as_json=as_json,
        human=lambda out: out.print(f"{ended} is called off; the champion serves on"),
    )
