"""`leaven doctor`: what is wrong with an installation, and what can be mended?"""

from __future__ import annotations

import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from leaven.cli.output import DONE, FAILED, NO, AsJson, Home, emit, messages
from leaven.clock import SystemClock
from leaven.errors import BadDefinition
from leaven.settings import Settings, process_environment, settings_from

if TYPE_CHECKING:
    from rich.console import Console

    from leaven.doctor.examination import CheckResult

app = typer.Typer()

_MARKS = {"healthy": "green]✓", "notes": "yellow]•", "problems": "red]✗", "failed": "red]?"}


@app.command()
def doctor(
    mend: Annotated[bool, typer.Option("--mend", help="Do what can be done about what is found.")] = False,
    deep: Annotated[bool, typer.Option("--deep", help="Read every file, however long that takes.")] = False,
    only: Annotated[list[str] | None, typer.Option("--only", help="Only this check; give several times.")] = None,
    seconds: Annotated[
        float | None,
        typer.Option("--seconds", min=0.1, help="That each check may take. Default: 15; 3600 with --deep."),
    ] = None,
    port: Annotated[int, typer.Option("--port", help="Where a gateway would listen.", min=1, max=65535)] = 8080,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Find out what is wrong with an installation, and mend what can be mended.

    Nothing is changed without --mend. Exit codes: 0 nothing is wrong, 1 something is, 3 a check itself failed.
    """
    from leaven.doctor.checks import CHECKS
    from leaven.doctor.examination import examine
    from leaven.doctor.finding import Subject

    strange = set(only or ()) - CHECKS.keys()
    if strange:
        raise BadDefinition("--only", f"there is no check {', '.join(strange)}", f"There are {', '.join(CHECKS)}.")
    environment = process_environment()
    subject = Subject(
        _readable(environment, home), environment, SystemClock().micros(), socket.gethostname(), port, deep
    )
    chosen = {name: check for name, check in CHECKS.items() if not only or name in only}
    with messages().status("") as status:
        results = examine(
            subject, chosen, seconds=seconds or (3600.0 if deep else 15.0), timer=time.perf_counter, mend=mend,
            tell=lambda name: status.update(f"looking at {name}"),
        )  # fmt: skip
    states = {result.state for result in results}
    facts = {
        "home": str(subject.settings.home),
        "healthy": not states & {"problems", "failed"},
        "checks": [msgspec.to_builtins(result) for result in results],
    }
    emit(facts, as_json=as_json, human=lambda out: _show(results, out, mend=mend))
    raise typer.Exit(FAILED if "failed" in states else NO if "problems" in states else DONE)


def _readable(environment: Mapping[str, str], home: Path | None) -> Settings:
    """The settings, without the variables that cannot be meant; the check of the settings tells about those."""
    try:
        return settings_from(environment, home=home)
    except BadDefinition:
        kept: dict[str, str] = {}
        for name, given in environment.items():
            try:
                settings_from({name: given})
            except BadDefinition:
                continue
            kept[name] = given
        return settings_from(kept, home=home)


def _show(results: list[CheckResult], out: Console, *, mend: bool) -> None:
    from rich.markup import escape

    for result in results:
        out.print(f"[{_MARKS[result.state]}[/] {result.check:<10} {escape(result.summary)}", soft_wrap=True)
        for found in result.findings:
            colour = "red" if found.level == "problem" else "yellow"
            what = escape(f"{found.where}: {found.what}")
            out.print(f"    [{colour}]{found.level:<7}[/]  {what}", soft_wrap=True)
            if found.mended is not None:
                out.print(f"             [green]mended:[/green] {escape(found.mended)}", soft_wrap=True)
            else:
                out.print(f"             {escape(found.mend)}", soft_wrap=True)
            if found.trouble is not None:
                out.print(f"             [red]not mended:[/red] {escape(found.trouble)}", soft_wrap=True)
    left = [found for result in results for found in result.findings if found.mended is None]
    problems = sum(found.level == "problem" for found in left)
    mendable = sum(found.mendable for found in left)
    said = f"{problems} problem{'s' * (problems != 1)}" if problems else "nothing is wrong"
    if mendable and not mend:
        said += f"; {mendable} of what was found can be mended: leaven doctor --mend"
    out.print(said)
