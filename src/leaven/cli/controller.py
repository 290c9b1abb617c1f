"""`leaven controller`: refreshes, trials, decisions."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from leaven.cli.output import Home
from leaven.cli.people import app_at
from leaven.cli.running import told_to_stop
from leaven.clock import SystemClock
from leaven.runfile import announced

app = typer.Typer()


@app.command()
def controller(
    loop_files: Annotated[list[Path] | None, typer.Argument(help="Loop files to register first.")] = None,
    home: Home = None,
) -> None:
    """Run the controller alone. A second one waits until the first is gone, then takes over."""
    from leaven.controller.service import run_controller

    installed = app_at(home)
    for path in loop_files or []:
        installed.enter(path)
    stop = told_to_stop("controller", installed.settings)
    with announced(installed.settings.run, "controller", at=SystemClock().micros()):
        run_controller(installed, stop)
