"""`leaven versions`: which versions are there, and which of them serve?"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
import typer
from rich.console import Console
from rich.table import Table
from sqlalchemy import Connection

from leaven.cli.control import cause_of, moment, reading
from leaven.cli.output import AsJson, Home, emit
from leaven.registry import aliases, loops, versions
from leaven.registry.versions import VersionRecord

app = typer.Typer()


@app.command()
def show_versions(
    loop: Annotated[str | None, typer.Argument(help="A loop; all of them by default.", show_default=False)] = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """List the versions of a loop, or of all loops, with the names that they go by."""
    with reading(home) as connection:
        names = [record.name for record in loops.loops(connection)] if loop is None else [loop]
        found = [entry for name in names for entry in _entries(connection, name)]
    data = [msgspec.to_builtins(version) | {"aliases": known_as} for version, known_as in found]
    emit(data, as_json=as_json, human=lambda console: _show(console, found))


def _entries(connection: Connection, loop: str) -> list[tuple[VersionRecord, list[str]]]:
    """The loop's versions, each with its aliases."""
    loops.loop(connection, loop)  # says so where there is no such loop
    named: dict[int, list[str]] = {}
    for alias, number in aliases.aliases(connection, loop).items():
        named.setdefault(number, []).append(alias)
    return [(version, named.get(version.number, [])) for version in versions.versions(connection, loop)]


def _show(console: Console, found: list[tuple[VersionRecord, list[str]]]) -> None:
    if not found:
        console.print("There are no versions yet.")
        return
    table = Table("loop", "version", "is", "made", "how", "from", "because")
    for version, known_as in found:
        table.add_row(*_cells(version, known_as))
    console.print(table)


def _cells(version: VersionRecord, known_as: list[str]) -> list[Any]:
    rows = version.lineage.get("rows")
    source = [f"version {version.parent}"] if version.parent is not None and version.mode == "update" else []
    source += [f"{rows:,} rows"] if isinstance(rows, int) else []
    source += [str(version.lineage["name"])] if "name" in version.lineage else []
    by_mode = "fitted" if version.mode == "fit" else "updated"
    how = version.format if version.format in ("endpoint", "parameters") else by_mode
    return [version.loop, str(version.number), ", ".join(known_as), moment(version.created_at), how,
            ", ".join(source), cause_of(version)]  # fmt: skip
