"""`leaven flusher`: from write-ahead log to lake."""

from __future__ import annotations

import logging
from typing import Annotated

import typer

from leaven.app import this_process
from leaven.cli.output import Home
from leaven.cli.people import app_at
from leaven.cli.running import told_to_stop
from leaven.clock import SystemClock
from leaven.runfile import announced

app = typer.Typer()

_log = logging.getLogger(__name__)


@app.command()
def flusher(
    every: Annotated[
        float | None, typer.Option("--every", help="Seconds between rounds. Default: as often as segments are sealed.")
    ] = None,
    home: Home = None,
) -> None:
    """Run the flusher alone. A second one waits until the first is gone, then takes over."""
    from leaven.controller.keeping import Keeping, days_kept
    from leaven.storage.control.leases import Lease
    from leaven.storage.flusher import Flusher

    installed = app_at(home)
    stop = told_to_stop("flusher", installed.settings)
    settings = installed.settings
    lease = Lease(installed.database, "flusher", this_process("flusher"))
    keeping = Keeping(installed, lease.keep)
    days_kept(settings.keep_days, "")  # a setting that means nothing is said at once
    flushing = Flusher(settings.wal, installed.lake, hold=lease.keep, keep_hours=keeping.keep_hours, also=keeping.tend)
    _log.info("from %s to %s", settings.wal, settings.lake)
    with announced(settings.run, "flusher", at=SystemClock().micros()):
        flushing.run(stop, every=every if every is not None else min(0.5, settings.seal_seconds))
    if lease.held():
        lease.release()
    _log.info("stopped: %s", ", ".join(f"{count} {name}" for name, count in flushing.counters().items() if count))
