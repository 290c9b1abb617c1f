"""`leaven parameters`: let a set of parameters (a prompt, a threshold) be a version of a loop."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from leaven.cli.output import AsJson, Home, emit
from leaven.cli.people import app_at, me
from leaven.errors import BadDefinition
from leaven.loop import PARAMETERS

if TYPE_CHECKING:
    from rich.console import Console

    from leaven.app import App
    from leaven.experiments.parameters import ParameterSet
    from leaven.loop import Loop

app = typer.Typer(no_args_is_help=True)

LoopName = Annotated[str, typer.Argument(metavar="LOOP", help="Name of a registered loop of parameters.")]
MOST_NAME = 200  # characters


@app.command()
def add(
    loop: LoopName,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="File with a JSON object; - reads it from stdin.")],
    name: Annotated[str | None, typer.Option("--name", help="What people call this version, as lists show it.")] = None,
    champion: Annotated[
        bool, typer.Option("--champion", help="Let everybody get it at once; the first one is champion anyway.")
    ] = False,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Register parameters as a version of a loop; the first version of a loop becomes its champion."""
    installed = app_at(home)
    owner = installed.loop(loop)
    if not owner.of_parameters:
        what = f"the versions of {loop!r} are models ({owner.learner!r})"
        raise BadDefinition(f"parameters add {loop}", what, "Give parameters a loop with learner=Parameters().")
    if name is not None and not (0 < len(name) <= MOST_NAME and name.isprintable()):
        raise BadDefinition("--name", f"{name!r:.60} names nothing", f"Give up to {MOST_NAME} printable characters.")
    found = _read(file)
    number = _register(installed, owner, found, name)
    why = _promoted(installed, loop, number, asked=champion)
    data = {"loop": loop, "version": number, "name": name, "champion": why is not None, "parameters": found}
    emit(data, as_json=as_json, human=lambda out: _show_added(out, loop, number, why))


@app.command()
def show(
    loop: LoopName,
    version: Annotated[str, typer.Argument(help="A number, or an alias such as challenger.")] = "champion",
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Show the parameters of a version, as callers get them."""
    from leaven.experiments.parameters import decoded
    from leaven.registry import aliases, versions

    installed = app_at(home)
    with installed.database.read() as connection:
        found = versions.version(connection, loop, aliases.resolve(connection, loop, version))
        known_as = [name for name, number in aliases.aliases(connection, loop).items() if number == found.number]
    if found.format != PARAMETERS:
        raise BadDefinition(f"version {found.number}", f"it is no set of parameters, but {found.format}",
                            "Look at it with: leaven show.")  # fmt: skip
    parameters, _ = decoded(installed.artifacts.get(found.artifact))
    data = {"loop": loop, "version": found.number, "name": found.lineage.get("name"), "aliases": known_as,
            "parameters": parameters}  # fmt: skip
    emit(data, as_json=as_json, human=lambda out: _show(out, data))


def _read(file: Path) -> ParameterSet:
    from leaven.experiments.parameters import MOST_BYTES, read_parameters

    where = "stdin" if str(file) == "-" else str(file)
    try:
        if str(file) == "-":
            written = sys.stdin.buffer.read(MOST_BYTES + 1)
        else:
            with file.open("rb") as opened:
                written = opened.read(MOST_BYTES + 1)
    except OSError as error:
        raise BadDefinition(where, str(error), "Name a file with a JSON object.") from error
    return read_parameters(written, where=where)


def _register(installed: App, loop: Loop, parameters: ParameterSet, name: str | None) -> int:
    from leaven.experiments.parameters import encoded
    from leaven.registry import versions

    digest = installed.artifacts.put(encoded(parameters))
    cause = {"trigger": "manual", "why": f"{me()} added parameters" + (f": {name}" if name else "")}
    lineage: dict[str, Any] = {"cause": cause} | ({"name": name} if name else {})
    with installed.database.write() as connection:
        return versions.register(
            connection, loop.name, artifact=digest, format=PARAMETERS, mode="fit", definition_digest=loop.digest,
            at=installed.clock.micros(), lineage=lineage,
        )  # fmt: skip


def _promoted(installed: App, loop: str, number: int, *, asked: bool) -> str | None:
    """Make the version champion where that was asked for or there is none; return why, or None."""
    from leaven.controller.people import promote_by_hand
    from leaven.registry import aliases

    with installed.database.read() as connection:
        there = aliases.alias(connection, loop, "champion")
    if there is not None and not asked:
        return None
    why = "there was no champion before it" if there is None else "added with --champion"
    promote_by_hand(installed.database, loop, number, by=me(), why=why, now=installed.clock.now())
    return why


def _show_added(out: Console, loop: str, number: int, why: str | None) -> None:
    if why is None:
        out.print(f"version {number} of {loop} is registered; nobody gets it yet", markup=False)
        text = f"prove it: leaven prove {loop} {number}, or promote it: leaven promote {loop} {number}"
        out.print(text, markup=False)
    else:
        out.print(f"version {number} of {loop} is the champion, and everybody gets it: {why}", markup=False)


def _show(out: Console, shown: dict[str, Any]) -> None:
    known = ", ".join(filter(None, [shown["name"], *shown["aliases"]]))
    out.print(f"{shown['loop']} version {shown['version']}{f' ({known})' if known else ''}", markup=False)
    text = msgspec.json.format(msgspec.json.encode(shown["parameters"]), indent=2).decode()
    out.print(text, markup=False, soft_wrap=True)
