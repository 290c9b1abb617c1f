"""`leaven decisions`: what was decided, on what evidence, by what rule or person?"""

from __future__ import annotations

from typing import Annotated

import msgspec
import typer
from rich.console import Console
from rich.markup import escape
from rich.syntax import Syntax
from rich.table import Table

from leaven.cli.control import moment, reading
from leaven.cli.output import NO, AsJson, Home, emit
from leaven.registry import loops
from leaven.registry.decisions import Decision, decision, decisions

app = typer.Typer()


@app.command()
def show_decisions(
    loop: Annotated[str | None, typer.Argument(help="A loop; all of them by default.", show_default=False)] = None,
    id: Annotated[str | None, typer.Option("--id", help="Show this one whole, with rule and evidence.")] = None,
    kind: Annotated[str | None, typer.Option(help="Only this kind, such as gate, trial, promote.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="The newest so many.")] = 50,
    verify: Annotated[
        bool,
        typer.Option("--verify", help="Judge each again, by its rule and evidence on record; exit 1 if one differs."),
    ] = False,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Show what was decided, newest last; with --id one decision whole."""
    if id is not None:
        with reading(home) as connection:
            one = decision(connection, id)
        emit(one, as_json=as_json, human=lambda console: _show_one(console, one))
        return
    with reading(home) as connection:
        if loop is not None:
            loops.loop(connection, loop)
        found = decisions(connection, loop, kind=kind, limit=limit)
    if verify:
        _verify(found, as_json=as_json)
        return
    emit(found, as_json=as_json, human=lambda console: _show_all(console, found))


def _verify(found: list[Decision], *, as_json: bool) -> None:
    from leaven.controller.verify import judged_again

    judged = [(each, judged_again(each)) for each in found]
    differing = [each.id for each, again in judged if again is not None and again != (each.outcome, each.why)]
    by_rule = sum(again is not None for _, again in judged)
    emit(
        {"judged_again": by_rule, "by_people": len(found) - by_rule, "differing": differing},
        as_json=as_json,
        human=lambda console: console.print(
            f"{by_rule} decisions judged again, {len(differing)} differ {' '.join(differing)}; "
            f"{len(found) - by_rule} were no rule's"
        ),
    )
    if differing:
        raise typer.Exit(NO)


def _show_all(console: Console, found: list[Decision]) -> None:
    if not found:
        console.print("Nothing was decided yet.")
        return
    table = Table("at", "loop", "decision", "outcome", "version", "by", "why", "id")
    for each in found:
        version = "" if each.version is None else str(each.version)
        table.add_row(moment(each.at), each.loop, each.kind, each.outcome, version, escape(each.by), escape(each.why),
                      each.id)  # fmt: skip
    console.print(table)


def _show_one(console: Console, one: Decision) -> None:
    about = f" of version {one.version}" if one.version is not None else ""
    console.print(f"[bold]{one.loop}: {one.kind}{about}: {one.outcome}[/bold]")
    facts = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    texts = {"at": moment(one.at), "why": one.why, "by": one.by, "refresh": one.refresh, "trial": one.trial}
    for name, text in {**texts, "id": one.id}.items():
        if text:
            facts.add_row(f"[dim]{name}[/dim]", escape(text))
    console.print(facts)
    for name, value in (("rule", one.rule), ("evidence", one.evidence)):
        console.print(f"[dim]{name}[/dim]")
        written = msgspec.json.format(msgspec.json.encode(value), indent=2).decode()
        console.print(Syntax(written, "json", background_color="default", word_wrap=True))
