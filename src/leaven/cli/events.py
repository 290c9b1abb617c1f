"""`leaven events`: look at, import and export predictions and feedback, erase units, keep the lake in shape."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from leaven.app import App
from leaven.cli.erase import erase, erasures
from leaven.cli.output import AsJson, Home, emit, rows_done
from leaven.cli.people import app_at
from leaven.cli.upkeep import compact, vacuum
from leaven.errors import BadDefinition

if TYPE_CHECKING:
    from rich.console import Console

    from leaven.loop import Loop
    from leaven.storage.importing import ImportReport
    from leaven.storage.lake import LoopStats
    from leaven.storage.writers import Backlog

app = typer.Typer(no_args_is_help=True)
for _command in (erase, erasures, compact, vacuum):
    app.command()(_command)

LoopName = Annotated[str, typer.Argument(metavar="LOOP", help="Name of the loop.")]


class Table(StrEnum):
    """The two tables of a loop."""

    predictions = "predictions"
    feedback = "feedback"


@app.command()
def tail(
    loop: LoopName,
    n: Annotated[int, typer.Option("-n", min=1, help="How many.")] = 20,
    table: Annotated[Table, typer.Option("--table", help="Which of the two tables.")] = Table.predictions,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Show the newest events that are in the lake, oldest first."""
    rows = app_at(home).lake.tail(loop, n, table=table.value)
    emit(rows, as_json=as_json, human=lambda out: _show_rows(rows, out))


@app.command()
def stats(
    loop: Annotated[str | None, typer.Argument(metavar="[LOOP]", help="Name of one loop. Default: all.")] = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Show how much is in the lake, and how much waits in the write-ahead log."""
    from leaven.storage.writers import backlog

    installed = app_at(home)
    found = [installed.lake.stats(name) for name in ([loop] if loop is not None else installed.lake.loops())]
    waiting, until = backlog(installed.settings.wal), installed.watermark()
    data = {
        "loops": msgspec.to_builtins(found),
        "backlog": {"writers": waiting.writers, "living": waiting.living, "segments": waiting.segments,
                    "bytes": waiting.bytes},
        "watermark": until,
    }  # fmt: skip
    emit(data, as_json=as_json, human=lambda out: _show_stats(found, waiting, until, out))


@app.command("import")
def import_(
    loop: Annotated[str, typer.Argument(metavar="LOOP", help="Name of a registered loop, or a loop file.")],
    file: Annotated[
        Path,
        typer.Argument(help="Parquet, CSV or NDJSON file (the latter two also .gz) of past requests with outcomes."),
    ],
    time: Annotated[str, typer.Option("--time", help="Column: when each prediction was needed.")],
    label_time: Annotated[
        str | None, typer.Option("--label-time", help="Column: when each outcome became known. Default: at once.")
    ] = None,
    unit: Annotated[str | None, typer.Option("--unit", help="Column of the unit. Default: the loop's unit.")] = None,
    rejects: Annotated[
        Path | None,
        typer.Option("--rejects", help="Where rows that are not taken go. Default: FILE.rejects.ndjson, here."),
    ] = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Bring past requests with their outcomes into the lake. What was imported before is recognised and left out."""
    from leaven.storage.importing import import_history

    installed = app_at(home)
    owner = _loop(installed, loop)
    owner.need_model(f"events import {loop}")
    with rows_done() as told:
        report = import_history(
            installed.lake, owner, file, time=time, label_time=label_time, unit=unit,
            rejects=rejects or Path(f"{file.name}.rejects.ndjson"), progress=told,
        )  # fmt: skip
    emit(report, as_json=as_json, human=lambda out: _show_import(report, out))


@app.command()
def export(
    loop: Annotated[str, typer.Argument(metavar="LOOP", help="Name of a registered loop, or a loop file.")],
    file: Annotated[Path, typer.Argument(help="Where to: .parquet, .csv or .ndjson (the latter two also .gz).")],
    since: Annotated[str | None, typer.Option("--since", help="Served from this time on. Default: the first.")] = None,
    until: Annotated[str | None, typer.Option("--until", help="Served before this time. Default: now.")] = None,
    as_of: Annotated[str | None, typer.Option("--as-of", help="Labels as known at this time. Default: now.")] = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Write predictions with their labels to a file; of a loop of parameters, exposures."""
    from leaven.events.source import Span
    from leaven.storage.exporting import export_examples

    installed = app_at(home)
    owner = _loop(installed, loop)
    source, now = installed.source(owner.name), installed.clock.now()
    start = _moment("--since", since) or source.first() or now
    # The clock may show the moment of the newest event itself.
    end = _moment("--until", until) or now + timedelta(microseconds=1)
    examples = source.examples(Span(start, end), owner.label, as_of=_moment("--as-of", as_of) or now)
    wanted = examples if owner.of_parameters else examples.predicted()
    written = export_examples(installed.lake, wanted, file)
    emit({"rows": written, "file": file}, as_json=as_json,
         human=lambda out: out.print(f"wrote {written:,} examples to {file}"))  # fmt: skip


def _loop(installed: App, given: str) -> Loop:
    """A loop by its name, or by its file, which is registered on the way."""
    return installed.enter(Path(given)) if given.endswith(".py") else installed.loop(given)


def _moment(option: str, given: str | None) -> datetime | None:
    if given is None:
        return None
    try:
        moment = datetime.fromisoformat(given)
    except ValueError as error:
        raise BadDefinition(option, f"{given!r} is no time", "Write it as 2026-03-01 or 2026-03-01T12:00Z.") from error
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


def _show_rows(rows: list[dict[str, Any]], out: Console) -> None:
    if not rows:
        out.print("no events in the lake yet")
        return
    from rich.table import Table as Grid

    left_out = {"seq", "day", "revision", "seconds"}
    names = [name for name in rows[0] if name not in left_out and any(row[name] is not None for row in rows)]
    grid = Grid(box=None)
    for name in names:
        grid.add_column(name.removeprefix("f_"), no_wrap=True)
    for row in rows:
        grid.add_row(*(_shown(row[name]) for name in names))
    out.print(grid)


def _shown(value: object) -> str:
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M:%S}"
    if isinstance(value, float):
        return f"{value:.4g}"
    return "" if value is None else str(value)


def _show_stats(found: list[LoopStats], waiting: Backlog, until: datetime, out: Console) -> None:
    from rich.table import Table as Grid

    grid = Grid(box=None)
    for heading in ("loop", "table", "rows", "files", "MB", "first", "last"):
        grid.add_column(heading, justify="right" if heading in ("rows", "files", "MB") else "left")
    for each in found:
        for name, table in (("predictions", each.predictions), ("feedback", each.feedback)):
            grid.add_row(
                each.loop, name, f"{table.rows:,}", str(table.files), f"{table.bytes / 1e6:.1f}",
                _shown(table.first), _shown(table.last),
            )  # fmt: skip
    out.print(grid if found else "no events in the lake yet")
    out.print(
        f"write-ahead log: {waiting.bytes / 1e6:.1f} MB in {waiting.segments} segments of {waiting.writers} writers "
        f"({waiting.living} alive); readable up to {_shown(until)}"
    )


def _show_import(report: ImportReport, out: Console) -> None:
    out.print(f"{report.rows:,} rows: {report.predictions:,} predictions and {report.feedback:,} labels are new")
    for count, what in (
        (report.already, "were there already, or came twice"),
        (report.unlabelled, "have no outcome"),
        (report.without_unit, "have no unit: each counts as a unit of its own"),
        *((count, f"rejected: {reason}") for reason, count in report.rejected.items()),
    ):
        if count:
            out.print(f"  {count:,} {what}")
    if report.rejects:
        out.print(f"  what was rejected is in {report.rejects}, with its row and the reason")
    if report.absent:
        out.print(f"  the file has no column for {', '.join(report.absent)}: missing in every row")
