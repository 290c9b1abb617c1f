"""`leaven prove`: put a version into a trial; `leaven trial start` under its older name."""

from __future__ import annotations

import typer

from leaven.cli.trial_flow import start

app = typer.Typer()
app.command("prove")(start)
