"""`leaven diff`: what differs between two versions of a loop?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from leaven.cli.control import cause_of, measured, moment, reading
from leaven.cli.output import AsJson, Home, emit
from leaven.cli.show import Story, story_of
from leaven.registry import aliases, loops
from leaven.registry.written import part_of, written_parts

app = typer.Typer()


Part = Literal["version", "definition", "snapshot", "training", "metrics"]


class Difference(msgspec.Struct, frozen=True):
    """One thing that is not the same for both versions; None where it is not known."""

    part: Part
    name: str
    a: Any
    b: Any


@app.command()
def show_differences(
    loop: Annotated[str, typer.Argument(help="The loop.")],
    a: Annotated[str, typer.Argument(help="A number, or an alias such as champion.")],
    b: Annotated[str, typer.Argument(help="The other one.")],
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Show what differs between two versions: definition, examples, training, metrics."""
    with reading(home) as connection:
        loops.loop(connection, loop)
        first, second = (story_of(connection, loop, aliases.resolve(connection, loop, text)) for text in (a, b))
    found = differences(first, second)
    data = {"loop": loop, "a": first.version.number, "b": second.version.number, "differences": found}
    emit(data, as_json=as_json, human=lambda console: _show(console, first, second, found))


def differences(a: Story, b: Story) -> list[Difference]:
    """Return what is not the same for both versions, part by part."""
    found: list[Difference] = []
    parts: tuple[tuple[Part, Mapping[str, Any], Mapping[str, Any]], ...] = (
        ("version", _identity(a), _identity(b)),
        ("definition", written_parts(a.definition), written_parts(b.definition)),
        ("snapshot", _snapshot(a), _snapshot(b)),
        ("training", _training(a), _training(b)),
        ("metrics", a.metrics, b.metrics),
    )
    for part, theirs, ours in parts:
        names = dict.fromkeys([*theirs, *ours])
        pairs = [(name, theirs.get(name), ours.get(name)) for name in names]
        found += [Difference(part, part_of(name), one, other) for name, one, other in pairs if one != other]
    return found


def _identity(story: Story) -> dict[str, Any]:
    version = story.version
    return {
        "made": moment(version.created_at),
        "because": cause_of(version),
        "mode": version.mode,
        "parent": version.parent,
        "format": version.format,
        "artifact": version.artifact[:12],
        "definition": version.definition_digest,
    }


def _snapshot(story: Story) -> dict[str, Any]:
    if story.snapshot is None:
        return {}
    return story.snapshot.definition | {"rows": story.snapshot.rows, "digest": story.snapshot.digest}


def _training(story: Story) -> Mapping[str, Any]:
    lineage = story.version.lineage
    training = lineage.get("training")
    how = {"plan": lineage.get("plan", {}).get("why"), "surgery": lineage.get("surgery", {}).get("operation"),
           "teacher": lineage.get("teacher")}  # fmt: skip
    return (training if isinstance(training, dict) else {}) | {name: told for name, told in how.items() if told}


def _show(console: Console, a: Story, b: Story, found: list[Difference]) -> None:
    if not found:
        console.print(f"{a.version.loop}: versions {a.version.number} and {b.version.number} are the same.")
        return
    table = Table("", "", f"version {a.version.number}", f"version {b.version.number}", show_lines=False)
    part: str | None = None
    for each in found:
        if part not in (None, each.part):
            table.add_section()
        texts = [_text(each.part, each.name, value) for value in (each.a, each.b)]
        table.add_row("" if part == each.part else each.part, escape(each.name), *map(escape, texts))
        part = each.part
    console.print(table)


def _text(part: str, name: str, value: Any) -> str:
    if value is None:
        return "-"
    if part == "metrics":
        return measured(value)
    if part == "snapshot":
        return _snapshot_text(name, value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _snapshot_text(name: str, value: Any) -> str:
    """Times and stretches of a snapshot's definition as people read them."""
    if name == "as_of":
        return moment(value)
    if isinstance(value, dict) and {"start", "end"} <= value.keys():
        return f"{moment(value['start'])} to {moment(value['end'])}{_sampled(value)}"
    if isinstance(value, list):
        return "\n".join(_snapshot_text(name, item) for item in value)
    return f"{value:,}" if isinstance(value, int) else str(value)


def _sampled(stretch: Mapping[str, Any]) -> str:
    """How many rows of a stretch were drawn, and how."""
    if not stretch.get("rows"):
        return ""
    told = f", {stretch['rows']:,} rows"
    told += f" by {stretch['by']}" if stretch.get("by") else ""
    told += f", half-life {stretch['half_life'] / 86_400_000_000:.3g} days" if stretch.get("half_life") else ""
    return told + (f", {stretch['balance']:.3g} of them with label 1" if stretch.get("balance") else "")
