"""`leaven pause`: how does an owner stop a loop from acting by itself?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated
from uuid import uuid4

import typer
from sqlalchemy import Connection

from leaven.cli.control import writing
from leaven.cli.output import AsJson, Home, emit
from leaven.clock import clock_from
from leaven.registry import loops
from leaven.registry.decisions import Decision, record
from leaven.settings import settings_from

app = typer.Typer()

By = Annotated[str, typer.Option("--by", help="Who decides this; kept with the decision.")]


@app.command()
def pause(
    loop: Annotated[str, typer.Argument(help="The loop.")],
    why: Annotated[str, typer.Option("--why", help="Why; kept with the decision, and shown in the status.")] = "",
    by: By = "person",
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Stop automatic refreshes and trials of a loop; what serves now serves on."""
    with writing(home) as connection:
        changed = loops.pause(connection, loop, why=why)
        decided = record_word(connection, loop, "pause", home=home, why=why, by=by) if changed else None
    data = {"loop": loop, "paused": True, "changed": changed, "decision": decided}
    said = f"{loop} is paused. It serves on; leaven resume {loop} lets it act again."
    emit(data, as_json=as_json, human=lambda console: console.print(said if changed else f"{loop} was paused before."))


def record_word(connection: Connection, loop: str, word: str, *, home: Path | None, why: str, by: str) -> str:
    """Record that a person decided `word` about the loop, now by the installation's clock; return the decision's id."""
    at = clock_from(settings_from(home=home).clock).micros()
    return record(connection, Decision(f"{loop}-{word}-{uuid4().hex[:12]}", loop, at, word, "done", why=why, by=by)).id
