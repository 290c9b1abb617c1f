"""`leaven resume`: how does an owner let a paused loop act again?"""

from __future__ import annotations

from typing import Annotated

import typer

from leaven.cli.control import writing
from leaven.cli.output import AsJson, Home, emit
from leaven.cli.pause import By, record_word
from leaven.registry import loops

app = typer.Typer()


@app.command()
def resume(
    loop: Annotated[str, typer.Argument(help="The loop.")],
    why: Annotated[str, typer.Option("--why", help="Why; kept with the decision.")] = "",
    by: By = "person",
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Let a paused loop act by itself again."""
    with writing(home) as connection:
        changed = loops.resume(connection, loop)
        decided = record_word(connection, loop, "resume", home=home, why=why, by=by) if changed else None
    data = {"loop": loop, "paused": False, "changed": changed, "decision": decided}
    said = f"{loop} acts by itself again." if changed else f"{loop} was not paused."
    emit(data, as_json=as_json, human=lambda console: console.print(said))
