"""`leaven check`: prove a loop file, alone or on data, before anything runs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from leaven.cli.findings import Finding, column_findings, outcome_findings, size_findings
from leaven.cli.guess import guess_times
from leaven.cli.offers import champion_findings
from leaven.cli.output import DONE, NO, AsJson, Home, emit
from leaven.cli.parity import Parity, compare_served, parity_findings
from leaven.cli.rehearsal import rehearse_alone, rehearse_on
from leaven.cli.sample import Sample, open_sample
from leaven.loop import Loop
from leaven.loopfile import load_loop
from leaven.storage.history_file import read_history

if TYPE_CHECKING:
    from rich.console import Console

app = typer.Typer()


class Checked(msgspec.Struct, frozen=True):
    """What was found about a loop; `ok` if nothing is a problem."""

    ok: bool
    loop: str
    digest: str
    definition: str
    findings: list[Finding]
    parity: Parity | None = None


@app.command()
def check(
    loop_file: Annotated[Path, typer.Argument(help="The loop file.")],
    data: Annotated[
        Path | None, typer.Option(help="Parquet or CSV file of past requests with outcomes.", show_default=False)
    ] = None,
    time: Annotated[
        str | None, typer.Option(help="Column of the request's time. Default: guessed.", show_default=False)
    ] = None,
    label_time: Annotated[
        str | None, typer.Option(help="Column of when the outcome was known. Default: guessed.", show_default=False)
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Loop to check, where the file defines several.", show_default=False)
    ] = None,
    parity: Annotated[
        str | None,
        typer.Option(help="Function that computes served features again: module:function.", show_default=False),
    ] = None,
    rows: Annotated[int, typer.Option(min=1, help="Of --parity: how many served predictions, the newest.")] = 1000,
    tolerance: Annotated[
        float, typer.Option(min=0, help="Of --parity: the share of a number that it may be off by.")
    ] = 1e-6,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Prove a loop file, alone or on data, before anything runs; exit code 1 if there is a problem.

    With --parity, features that were served and logged are compared with those that a function of yours computes now:
    function(unit, at, features) returns those it can, by name.
    """
    loop = load_loop(loop_file, name=name)
    if data is not None:
        loop.need_model("--data")
    compared = None
    if parity is not None:
        compared = compare_served(loop, loop_file, parity, rows=rows, tolerance=tolerance, home=home)
    if loop.of_parameters:
        told = f"people write its versions: leaven parameters add {loop.name} FILE.json"
        found = [Finding("ok", "parameters", told)]
    elif data is None:
        found = list(rehearse_alone(loop))
    else:
        with open_sample(data) as sample:
            found = list(_on_data(loop, sample, time=time, label_time=label_time))
    if not (loop.of_parameters or loop.pace):
        found.append(
            Finding("note", "triggers", f"none: a refresh begins when somebody runs leaven retrain {loop.name}")
        )
    if compared is not None:
        found += parity_findings(compared)
    found += champion_findings(loop, home)
    ok = not any(finding.level == "problem" for finding in found)
    checked = Checked(ok, loop.name, loop.digest, repr(loop), found, compared)
    emit(checked, as_json=as_json, human=lambda console: _show(console, checked, loop))
    raise typer.Exit(DONE if ok else NO)


def _on_data(loop: Loop, sample: Sample, *, time: str | None, label_time: str | None) -> Iterator[Finding]:
    columns = list(column_findings(loop, sample))
    yield from columns
    if any(finding.level == "problem" for finding in columns):
        return  # what follows would only fail on the same columns
    when, known = guess_times(sample, time=time, label_time=label_time)
    if when is None:
        yield Finding("note", "time", "no column holds times, so nothing that depends on time was checked")
        yield from rehearse_alone(loop)
        return
    told = "known at once" if known is None else f"known at {known.column} ({known.why})"
    yield Finding("ok", "time", f"requests at {when.column} ({when.why}), outcomes {told}")
    history = read_history(sample.path, loop, time=when.column, label_time=known.column if known else None)
    yield from outcome_findings(loop, history)
    yield from size_findings(loop, history)
    yield from rehearse_on(loop, history)


def _show(console: Console, checked: Checked, loop: Loop) -> None:
    from rich.markup import escape
    from rich.table import Table

    console.print(f"[bold]{checked.loop}[/bold] (definition {checked.digest})")
    for line in _as_in_a_file(loop):
        console.print(f"  {escape(line)}", soft_wrap=True)
    table = Table(box=None, show_header=False, pad_edge=False)
    colours = {"ok": "green", "note": "yellow", "problem": "red"}
    for finding in checked.findings:
        shown = f"[{colours[finding.level]}]{finding.level}[/]"
        table.add_row(shown, escape(finding.about), escape(finding.text))
    console.print(table)
    problems = sum(finding.level == "problem" for finding in checked.findings)
    console.print("[green]It works.[/]" if checked.ok else f"[red]{problems} to mend, then check again.[/]")


def _as_in_a_file(loop: Loop) -> Iterator[str]:
    """The loop as it is written in a file, one argument to a line."""
    from dataclasses import fields

    for field in fields(loop):
        given = getattr(loop, field.name)
        items = given if isinstance(given, tuple) else (given,)
        for i, item in enumerate(items):
            yield f"{field.name + ' ' if not i else '':<10}{item if isinstance(item, str) else repr(item)}"
