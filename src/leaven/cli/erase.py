"""`leaven events erase` and `leaven events erasures`: take a unit out of the lake, and see how far that is."""

from __future__ import annotations

import time
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from leaven.app import App, this_process
from leaven.cli.control import moment
from leaven.cli.output import AsJson, Home, emit, messages
from leaven.cli.people import app_at, me
from leaven.duration import duration
from leaven.errors import BadDefinition, LeavenError

if TYPE_CHECKING:
    from rich.console import Console

    from leaven.registry.erasures import ErasureRecord

LEASE_SECONDS = 60.0
PATIENCE_SECONDS = 600.0

Units = list[str]


class NotErasedYet(LeavenError, RuntimeError):
    """The flusher did not carry out an erasure in time."""

    def __init__(self, seconds: float) -> None:
        super().__init__(seconds)
        self.seconds = seconds

    def __str__(self) -> str:
        return (
            f"the flusher has not carried the erasure out within {self.seconds:g} s. It is asked for and is carried "
            "out as soon as the flusher can: see its log, and `leaven events erasures`."
        )


def erase(
    loop: Annotated[str, typer.Argument(metavar="LOOP", help="Name of the loop.")],
    unit: Annotated[Units | None, typer.Option("--unit", help="The unit; may be given more than once.")] = None,
    unit_file: Annotated[Path | None, typer.Option("--unit-file", help="A file with one unit a line.")] = None,
    now: Annotated[bool, typer.Option("--now", help="At once, and not with the next batch.")] = False,
    grace: Annotated[
        str | None,
        typer.Option(
            "--grace", help="How long what still comes of the unit is erased too. Default: LEAVEN_ERASE_GRACE."
        ),
    ] = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Erase units: their predictions, the feedback on these, and the feedback on the units.

    The request is kept, and carried out by the flusher in batches (LEAVEN_ERASE_EVERY), since whole days are rewritten
    for it; with --now at once. It is done when no file of the lake holds the unit: `leaven events erasures` says so.
    """
    units = _units(unit or [], unit_file)
    installed = app_at(home)
    asked = _ask(installed, loop, units, now=now, grace=grace)
    if now:
        _carry_out(installed, asked)
    _show_all(installed, loop, [each.id for each in asked], as_json=as_json)


def erasures(
    loop: Annotated[str | None, typer.Argument(metavar="[LOOP]", help="Name of one loop. Default: all.")] = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """List what was asked to be erased, and how far that is."""
    _show_all(app_at(home), loop, None, as_json=as_json)


def _units(given: Units, file: Path | None) -> Units:
    units = list(given)
    if file is not None:
        try:
            units += [line.strip() for line in file.read_text().splitlines() if line.strip()]
        except (OSError, UnicodeDecodeError) as error:
            raise BadDefinition(
                str(file), f"it cannot be read ({error})", "Give a text file, a unit a line."
            ) from error
    if not units or not all(units):
        raise BadDefinition("leaven events erase", "no unit is named", "Give --unit UNIT, or --unit-file FILE.")
    return units


def _ask(installed: App, loop: str, units: Units, *, now: bool, grace: str | None) -> list[ErasureRecord]:
    from leaven.registry import erasures as requests
    from leaven.registry import loops

    settings, at = installed.settings, installed.clock.micros()
    if loop not in installed.lake.loops():
        installed.loop_names()
        with installed.database.read() as connection:
            loops.loop(connection, loop)  # says which there are
    wait = timedelta(0) if now else duration(settings.erase_every, where="LEAVEN_ERASE_EVERY")
    given = grace if grace is not None else settings.erase_grace
    kept = timedelta(0) if given.strip("smhdw") in ("0", "0.0") else duration(given, where="--grace")
    with installed.database.write() as connection:
        return requests.ask(
            connection, loop, units, at=at, by=me(), due_at=at + wait // timedelta(microseconds=1),
            grace_until=at + kept // timedelta(microseconds=1),
        )  # fmt: skip


def _carry_out(installed: App, asked: list[ErasureRecord]) -> None:
    """Erase now: in this process if no flusher runs, and else in that one."""
    from leaven.controller.keeping import Keeping
    from leaven.storage.control.leases import Lease
    from leaven.storage.flusher import Flusher

    lease = Lease(installed.database, "flusher", this_process("erase"), seconds=LEASE_SECONDS)
    if lease.acquire():
        try:
            Flusher(installed.settings.wal, installed.lake, hold=lease.keep).flush_once()
            keeping = Keeping(installed, lease.keep)
            keeping.erase_due()
            installed.lake.vacuum(asked[0].loop, hours=0)
            keeping.erase_due()
        finally:
            lease.release()
        return
    messages().print("a flusher runs, and is asked to carry it out")
    wanted, end = [each.id for each in asked], time.monotonic() + PATIENCE_SECONDS
    while any(each.state == "requested" for each in _found(installed, None, wanted)):
        if time.monotonic() > end:
            raise NotErasedYet(PATIENCE_SECONDS)
        time.sleep(0.2)
    installed.lake.vacuum(asked[0].loop, hours=0)


def _found(installed: App, loop: str | None, wanted: list[str] | None) -> list[ErasureRecord]:
    """All requests, oldest first; or those that are wanted, in that order."""
    from leaven.registry import erasures as requests

    with installed.database.read() as connection:
        found = requests.erasures(connection, loop)
    return found if wanted is None else sorted((e for e in found if e.id in wanted), key=lambda e: wanted.index(e.id))


def _show_all(installed: App, loop: str | None, wanted: list[str] | None, *, as_json: bool) -> None:
    from leaven.registry.erasures import ErasureShown

    found = [ErasureShown.of(each) for each in _found(installed, loop, wanted)]
    emit({"erasures": found}, as_json=as_json, human=lambda out: _show(out, found))


def _show(out: Console, found: list[Any]) -> None:
    if not found:
        out.print("nothing was asked to be erased")
        return
    from rich.table import Table

    grid = Table(box=None)
    for heading in ("erasure", "unit", "state", "asked for", "predictions", "feedback", "next"):
        grid.add_column(heading, justify="right" if heading in ("predictions", "feedback") else "left")
    for each in found:
        following = {
            "requested": f"carried out by {moment(each.due_at)}",
            "rewritten": f"what comes until {moment(each.grace_until)} is erased too; then its files go",
            "done": f"done {moment(each.done_at)}",
        }[each.state]
        grid.add_row(each.id, each.unit or "forgotten", each.state, moment(each.requested_at),
                     f"{each.predictions:,}", f"{each.feedback:,}", following)  # fmt: skip
    out.print(grid)
