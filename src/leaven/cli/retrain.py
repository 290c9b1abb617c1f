"""`leaven retrain`: start a refresh now."""

from __future__ import annotations

from typing import Annotated

import typer

from leaven.cli.output import AsJson, Home, emit
from leaven.cli.people import app_at, me
from leaven.controller.people import request_refresh

app = typer.Typer()


@app.command()
def retrain(
    loop: Annotated[str, typer.Argument(help="Name of the loop.")], home: Home = None, as_json: AsJson = False
) -> None:
    """Start a refresh now; the running controller carries it out."""
    installed = app_at(home)
    asked = request_refresh(installed.database, installed.loop(loop).name, by=me(), now=installed.clock.now())
    emit(
        {"refresh": asked.id, "loop": loop, "state": asked.state},
        as_json=as_json,
        human=lambda out: out.print(f"refresh {asked.id} is requested; watch it with: leaven status {loop}"),
    )
