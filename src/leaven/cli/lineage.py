"""`leaven lineage`: which version came of which, and why?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.tree import Tree

from leaven.cli.control import reading
from leaven.cli.output import AsJson, Home, emit, messages
from leaven.controller.lineage import Lineage, Node, lineage_of
from leaven.errors import BadDefinition
from leaven.registry import aliases, loops

if TYPE_CHECKING:
    from leaven.training.rebuilding import RebuildAdvice

app = typer.Typer()

_NOT_TRAINED = ("endpoint", "parameters")  # formats of versions that people enter


@app.command()
def show_lineage(
    loop: Annotated[str, typer.Argument(help="The loop.")],
    version: Annotated[
        str | None,
        typer.Argument(help="A number or an alias: only that one and what it goes back to.", show_default=False),
    ] = None,
    svg: Annotated[Path | None, typer.Option("--svg", help="Draw the graph into this file as well.")] = None,
    value: Annotated[
        float | None, typer.Option("--value", help="Worth of one unit of loss for a day, to advise on rebuilds.")
    ] = None,
    cpu_price: Annotated[
        float | None, typer.Option("--cpu-price", help="Price of one CPU second, in the same currency.")
    ] = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Show which version came of which: snapshots, code, libraries, causes, gates, trials, costs."""
    if svg is not None and svg.suffix != ".svg":
        raise BadDefinition("--svg", f"{svg} does not end in .svg", "Name a file that does.")
    with reading(home) as connection:
        loops.loop(connection, loop)
        number = None if version is None else aliases.resolve(connection, loop, version)
        found = lineage_of(connection, loop, number, value=value, cpu_price=cpu_price)
    if svg is not None:
        from leaven.cli.lineage_svg import drawn

        svg.write_text(drawn(found))
        messages().print(f"drew {svg}")
    emit(found, as_json=as_json, human=lambda console: _show(console, found))


def _show(console: Console, found: Lineage) -> None:
    if not found.versions:
        console.print(f"{found.loop} has no versions yet.")
        return
    tree = Tree(f"[bold]{found.loop}[/bold]")
    branches: dict[int, Tree] = {}
    for node in found.versions:
        above = branches.get(node.parent, tree) if node.parent is not None else tree
        branches[node.version] = above.add("\n".join([escape(headline(node)), *map(_dim, details(node))]))
    console.print(tree)
    console.print(rebuild_line(found.rebuild))


def headline(node: Node) -> str:
    """Return what a version is, on one line."""
    how = "fitted" if node.mode == "fit" else "updated"
    how = node.format if node.format in _NOT_TRAINED else how
    words = [f"version {node.version}", *node.aliases, how]
    if "rows" in node.training:
        words.append(f"{node.training['rows']:,} rows")
    if "cpu_seconds" in node.training:
        words.append(f"{node.training['cpu_seconds']:.3g} s CPU")
    if node.gate is not None:
        words.append(f"gates: {node.gate['outcome']}")
    words += [f"trial: {trial['state'].replace('_', ' ')}" for trial in node.trials]
    return " · ".join(words)


def details(node: Node) -> list[str]:
    """Return what else is known of a version, a line each."""
    lines = reasons(node)
    if node.compared is not None:
        lines.append(str(node.compared["why"]))
    if node.otherwise is not None:
        lines.append(otherwise_line(node.otherwise))
    made_of = [f"snapshot {node.snapshot.digest[:12]}"] if node.snapshot is not None else []
    made_of += [f"definition {node.definition}", *([f"code {node.code}"] if node.code else [])]
    made_of += [f"{name} {version}" for name, version in node.environment.items()]
    return [*lines, ", ".join(made_of)]


def reasons(node: Node) -> list[str]:
    """Return when and why a version was made, and why in that way, as far as it is known."""
    cause, plan = node.cause.get("why") or node.cause.get("trigger"), node.plan.get("why")
    since = f"{node.created_at[:16].replace('T', ' ')} UTC"
    return [f"{since}: {cause}" if cause else since, *([plan] if plan else [])]


def otherwise_line(otherwise: dict[str, object]) -> str:
    """Return the estimate of what the other way would have cost, in words."""
    how = "fitting from scratch" if otherwise["mode"] == "fit" else "an update"
    source = "as measured beside it" if otherwise["version"] is None else f"as version {otherwise['version']} did"
    return (
        f"{how} would have taken {otherwise['rows']:,} rows and {otherwise['cpu_seconds']:.3g} s CPU (estimate: "
        f"{source})"
    )


def rebuild_line(advice: RebuildAdvice) -> str:
    """Return the advice on rebuilding in words."""
    if advice.updates is None:
        return f"rebuilding: {advice.why}"
    low, high = (f"{bound:.3g}" if bound is not None else "never" for bound in (advice.low, advice.high))
    return f"rebuilding pays best every {advice.updates:.3g} updates [{low}, {high}]: {advice.why}"


def _dim(line: str) -> str:
    return f"[dim]{escape(line)}[/dim]"
