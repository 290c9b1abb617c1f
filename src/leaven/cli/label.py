"""`leaven label`: hand predictions to people for a label, and take their answers back."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer
from rich.markup import escape

from leaven.cli.moments import moment_from
from leaven.cli.output import AsJson, Home, emit
from leaven.cli.people import app_at, me

if TYPE_CHECKING:
    from rich.console import Console

    from leaven.cli.label_queue import Queue
    from leaven.storage.hand_labels import HandLabels

app = typer.Typer(no_args_is_help=True)

LoopName = Annotated[str, typer.Argument(metavar="LOOP", help="Name of a registered loop.")]


class Imported(msgspec.Struct, frozen=True):
    """What became of the rows of a file of labels."""

    rows: int
    posted: int  # now in the log, for good
    already: int  # posted by an earlier import
    empty: int  # rows without a value: not labelled yet
    rejected: dict[str, int]  # by reason
    rejects: str | None  # file that holds what was rejected
    readable: bool  # in the lake already; else the flusher brings it there


@app.command()
def queue(
    loop: LoopName,
    rows: Annotated[int, typer.Option("--rows", min=1, help="How many predictions.")] = 50,
    by: Annotated[
        str,
        typer.Option("--by", help="uncertainty, margin, diversity, disagreement or evenly; several joined by +."),
    ] = "uncertainty",
    at: Annotated[float, typer.Option("--at", help="Of margin: the answer at which a decision changes.")] = 0.5,
    against: Annotated[
        str | None,
        typer.Option(
            "--against",
            help="Of disagreement: the version that shadowed. Default: of the latest trial.",
            show_default=False,
        ),
    ] = None,
    since: Annotated[
        str | None, typer.Option("--since", help="Served from this time on. Default: 28 days ago.", show_default=False)
    ] = None,
    still_open: Annotated[
        bool, typer.Option("--open", help="Also predictions whose label may still come by itself.")
    ] = False,
    exclude: Annotated[
        list[Path] | None,
        typer.Option(
            "--exclude", help="A queue that was handed out before (CSV); may be repeated.", show_default=False
        ),
    ] = None,
    csv: Annotated[Path | None, typer.Option("--csv", help="Write the queue there.", show_default=False)] = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """List predictions whose label did not come, those most worth one first.

    With --csv they go to a file with an empty column `value`: fill it in and hand the file to `leaven label import`.
    Nothing is kept of who got what; give the files that are out with --exclude and nobody gets a row of theirs.
    """
    from leaven.cli.label_queue import Asked, build_queue, write_queue

    installed = app_at(home)
    start = None if since is None else moment_from(since, where="--since")
    asked = Asked(rows=rows, by=by, at=at, against=against, since=start, still_open=still_open)
    found = build_queue(installed, installed.loop(loop), asked, exclude=exclude or [])
    if csv is not None:
        write_queue(found, csv)
    emit(found, as_json=as_json, human=lambda out: _show_queue(out, found, csv))


@app.command("import")
def import_(
    loop: LoopName,
    file: Annotated[Path, typer.Argument(help="CSV file: prediction, value; if wanted source, labelled_at.")],
    source: Annotated[
        str | None, typer.Option("--source", help="Who labelled, of rows that do not say. Default: you.")
    ] = None,
    rejects: Annotated[
        Path | None,
        typer.Option("--rejects", help="Where rows that are not taken go. Default: FILE.rejects.ndjson, here."),
    ] = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Take labels that people gave: each becomes a correction, which wins over reports of machines.

    A value is what feedback would report (the label rule is applied to it): the number, or 1 and 0 for an event. It is
    kept before the command ends, and once, however often the file is imported.
    """
    from leaven.cli.posting import post
    from leaven.storage.hand_labels import read_labels

    installed = app_at(home)
    owner = installed.loop(loop)
    owner.need_model(f"label import {loop}")
    found = read_labels(installed.lake, owner, file, source=source or me(), now=installed.clock.micros())
    readable = post(installed, found.labels)
    path = found.write_rejects(rejects or Path(f"{file.name}.rejects.ndjson"))
    data = _imported(found, path, readable)
    emit(data, as_json=as_json, human=lambda out: _show_import(out, data))


def _imported(found: HandLabels, rejects: Path | None, readable: bool) -> Imported:
    reasons: dict[str, int] = {}
    for bad in found.rejected:
        reasons[bad.kind] = reasons.get(bad.kind, 0) + 1
    told = None if rejects is None else str(rejects)
    return Imported(found.rows, len(found.labels), found.already, found.empty, reasons, told, readable)


def _show_queue(out: Console, found: Queue, csv: Path | None) -> None:
    from rich.table import Table

    out.print(f"{len(found.predictions)} of {found.candidates:,} predictions without a label, by {found.by}")
    for note in found.notes:
        out.print(f"[yellow]note[/yellow] {escape(note)}", soft_wrap=True)
    if csv is not None:
        out.print(f"written to {escape(str(csv))}; fill in `value`, then: "
                  f"leaven label import {found.loop} {escape(str(csv))}", soft_wrap=True)  # fmt: skip
        return
    table = Table("prediction", "served", "unit", "answer", "why", box=None)
    for each in found.predictions:
        answer = "" if each.answer is None else f"{each.answer:.4g}" if isinstance(each.answer, float) else each.answer
        table.add_row(escape(each.prediction), f"{each.at:%Y-%m-%d %H:%M}", escape(each.unit), answer, each.why)
    out.print(table)


def _show_import(out: Console, data: Imported) -> None:
    out.print(f"{data.rows:,} rows: {data.posted:,} labels are new, and kept")
    for count, what in (
        (data.already, "were there already, or came twice"),
        (data.empty, "have no value yet"),
        *((count, f"rejected: {reason}") for reason, count in data.rejected.items()),
    ):
        if count:
            out.print(f"  {count:,} {what}")
    if data.rejects:
        out.print(f"  what was rejected is in {escape(data.rejects)}, with its row and the reason", soft_wrap=True)
    if data.posted and not data.readable:
        out.print("  the flusher brings them into the lake")
