"""`leaven retrain`: start a refresh now."""

from __future__ import annotations

from typing import Annotated

import typer

from leaven.cli.moments import moment_from
from leaven.cli.output import AsJson, Home, emit
from leaven.cli.people import app_at, me
from leaven.controller.people import request_refresh

app = typer.Typer()


@app.command()
def retrain(
    loop: Annotated[str, typer.Argument(help="Name of the loop.")],
    as_of: Annotated[
        str | None, typer.Option("--as-of", help="Learn from what was known at this date (UTC). Default: now.")
    ] = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Start a refresh now; the running controller carries it out."""
    installed = app_at(home)
    moment = None if as_of is None else moment_from(as_of, where="--as-of")
    owner, now = installed.loop(loop), installed.clock.now()
    owner.need_model(f"retrain {loop}")
    asked = request_refresh(installed.database, owner.name, by=me(), now=now, as_of=moment)
    emit(
        {"refresh": asked.id, "loop": loop, "state": asked.state},
        as_json=as_json,
        human=lambda out: out.print(f"refresh {asked.id} is requested; watch it with: leaven status {loop}"),
    )
