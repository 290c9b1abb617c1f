"""`leaven show`: where does a version come from, what was decided about it, and when did it serve?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from sqlalchemy import Connection

from leaven.cli.control import cause_of, measured, metrics_of, moment, reading
from leaven.cli.lineage import otherwise_line
from leaven.cli.output import AsJson, Home, emit, messages
from leaven.cli.people import app_at
from leaven.errors import LeavenError
from leaven.registry import aliases, decisions, loops, snapshots, versions
from leaven.registry.aliases import AliasSpan
from leaven.registry.decisions import Decision
from leaven.registry.snapshots import SnapshotRecord
from leaven.registry.versions import VersionRecord
from leaven.training.surgery import Proof

app = typer.Typer()


class Story(msgspec.Struct, frozen=True):
    """All that is known of one version."""

    version: VersionRecord
    aliases: list[str]
    ancestors: list[int]  # nearest first
    snapshot: SnapshotRecord | None
    erased: int | None  # rows of the snapshot that were erased since it was taken; None where nobody looked
    definition: str | None  # of the loop that it was trained for
    metrics: dict[str, dict[str, Any]]  # on fresh rows, at the gates
    decisions: list[Decision]
    served: list[AliasSpan]


@app.command()
def show_version(
    loop: Annotated[str, typer.Argument(help="The loop.")],
    version: Annotated[str, typer.Argument(help="A number, or an alias such as champion.")] = "champion",
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Show one version: its lineage, its gates, what was decided about it, and when it served."""
    with reading(home) as connection:
        loops.loop(connection, loop)
        story = story_of(connection, loop, aliases.resolve(connection, loop, version))
    story = msgspec.structs.replace(story, erased=_erased(home, story.snapshot))
    emit(story, as_json=as_json, human=lambda console: _show(console, story))


def story_of(connection: Connection, loop: str, number: int) -> Story:
    """Return all that is known of a version."""
    version = versions.version(connection, loop, number)
    about = decisions.decisions(connection, loop, version=number)
    if version.refresh is not None:
        seen = {decision.id for decision in about}
        about = [d for d in decisions.decisions(connection, refresh=version.refresh) if d.id not in seen] + about
    return Story(
        version=version,
        aliases=[name for name, named in aliases.aliases(connection, loop).items() if named == number],
        ancestors=list(versions.ancestry(connection, loop, number)[1:]),
        snapshot=None if version.snapshot is None else snapshots.snapshot(connection, version.snapshot),
        erased=None,
        definition=loops.definition(connection, loop, version.definition_digest),
        metrics=metrics_of(about),
        decisions=sorted(about, key=lambda decision: decision.at),
        served=[span for span in aliases.history(connection, loop) if span.version == number],
    )


def _erased(home: Path | None, kept: SnapshotRecord | None) -> int | None:
    """How many rows of a snapshot were erased since it was taken; the lake is asked only if anything ever was."""
    if kept is None:
        return None
    from leaven.curation.snapshot import Snapshot, erased_since

    try:
        definition = msgspec.convert(kept.definition, Snapshot)
        return erased_since(definition, app_at(home).source(kept.loop))
    except (LeavenError, OSError, msgspec.ValidationError) as error:
        messages().print(f"whether rows of the snapshot were erased cannot be told: {error}")
        return None


def _show(console: Console, story: Story) -> None:
    version = story.version
    known_as = f" ({', '.join(story.aliases)})" if story.aliases else ""
    console.print(f"[bold]{version.loop} version {version.number}[/bold]{known_as}")
    facts = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for name, text in _facts(story):
        facts.add_row(f"[dim]{name}[/dim]", escape(text))
    console.print(facts)
    if story.decisions:
        table = Table("at", "decision", "outcome", "by", "why", title="What was decided", title_justify="left")
        for each in story.decisions:
            table.add_row(moment(each.at), each.kind, each.outcome, escape(each.by), escape(each.why))
        console.print(table)
    if story.served:
        table = Table(
            "as", "since", "until", "begun by", "ended by", title="What it was, and when", title_justify="left"
        )
        for span in story.served:
            until = moment(span.until, none="now")
            table.add_row(span.alias, moment(span.since), until, span.decision, span.ended_by or "")
        console.print(table)


_HOW = {"endpoint": "an endpoint elsewhere", "parameters": "parameters that a person wrote"}


def _facts(story: Story) -> list[tuple[str, str]]:
    version, snapshot = story.version, story.snapshot
    how = "fitted from scratch" if version.mode == "fit" else f"continued from version {version.parent}"
    if version.format in _HOW:
        how = _HOW[version.format]
    facts = [("made", f"{moment(version.created_at)}, {how}"), ("because", cause_of(version))]
    if story.ancestors:
        facts.append(("ancestors", ", ".join(str(number) for number in story.ancestors)))
    if snapshot is not None:
        erased = f"; {story.erased:,} rows erased since" if story.erased else ""
        facts.append(("snapshot", f"{snapshot.id}: {snapshot.rows:,} rows, digest {snapshot.digest}{erased}"))
        served = snapshot.definition.get("served", {})
        if served:
            facts.append(("served by", ", ".join(f"{arm} {rows:,}" for arm, rows in served.items())))
    training = version.lineage.get("training")
    if isinstance(training, dict):
        facts.append(("training", ", ".join(f"{name} {_short(value)}" for name, value in training.items())))
    if "surgery" in version.lineage:
        facts.append(("surgery", str(msgspec.convert(version.lineage["surgery"], Proof))))
    facts += _plan_facts(version.lineage)
    facts += [(name, text) for name, text in _forgetting_facts(story.decisions) if text]
    facts += [(name, measured(interval)) for name, interval in story.metrics.items()]
    facts += [("artifact", f"{version.artifact} ({version.format})"), ("refresh", version.refresh or "")]
    facts.append(("loop", story.definition or f"definition {version.definition_digest}"))
    return [(name, text) for name, text in facts if text]


def _plan_facts(lineage: dict[str, Any]) -> list[tuple[str, str]]:
    """Why it was made so, what the other way would have cost, and what it was made with."""
    facts = [("plan", str(lineage.get("plan", {}).get("why", "")))]
    if "compared" in lineage:
        facts.append(("compared", str(lineage["compared"]["why"])))
    if "otherwise" in lineage:
        facts.append(("otherwise", otherwise_line(lineage["otherwise"])))
    if "energy" in lineage:
        energy = lineage["energy"]
        told = f"{energy['kwh']:.3g} kWh, {energy['co2_g']:.3g} g CO2e (estimate: {energy['watts']:g} W per busy core, "
        facts.append(("energy", f"{told}{energy['grid_intensity']:g} g/kWh)"))
    environment = lineage.get("environment", {})
    facts.append(("made with", ", ".join(f"{name} {version}" for name, version in environment.items())))
    return facts


def _forgetting_facts(about: list[Decision]) -> list[tuple[str, str]]:
    """What it learnt and forgot against the champion of then, by its last judgement at the gates."""
    judged = [each.evidence["forgetting"] for each in about if each.evidence.get("forgetting")]
    if not judged:
        return []
    last = judged[-1]
    churn = [f"{last[name]:.3g} {of}" for name, of in (("churn_decisions", "of decisions"), ("churn_answers", "mean "
             "distance of answers")) if last[name] is not None]  # fmt: skip
    past = last["past"]
    lost = "" if past is None else (
        f"{last['metric']} {past['challenger']:.4f}, champion {past['champion']:.4f}, change "
        f"{measured(past['difference'])}"
    )  # fmt: skip
    return [("on past rows", lost), ("churn", ", ".join(churn))]


def _short(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
