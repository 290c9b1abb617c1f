"""`leaven trial start`, `status`, `pause`, `resume`, `approve`, `abort`: what a person does with a trial that runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from leaven.cli.output import AsJson, Home, emit

LoopName = Annotated[str, typer.Argument(help="Name of the loop.")]
Why = Annotated[str, typer.Option("--why", help="Kept with the decision.")]


def start(
    loop: LoopName,
    version: Annotated[str, typer.Argument(help="Number of the version, or an alias such as previous.")],
    start_with: Annotated[
        str | None, typer.Option("--from", help="A stage, as shadow, canary or watch: skip those before it.")
    ] = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Put a version into a trial against the champion; the controller judges it by the loop's rollout."""
    from leaven.cli.people import app_at, me
    from leaven.controller import people
    from leaven.registry import aliases

    installed = app_at(home)
    with installed.database.read() as connection:
        number = aliases.resolve(connection, loop, version)
    opened = people.prove(
        installed.parts(), installed.loop(loop), number, start_with=start_with, by=me(), now=installed.clock.now()
    )
    told = f"version {number} is being proven in trial {opened.id}; see: leaven trial status {loop}"
    emit(opened, as_json=as_json, human=lambda out: out.print(told))


def status(
    loop: LoopName,
    plot: Annotated[
        Path | None, typer.Option("--plot", help="Draw the differences, look by look, into this .svg or .png file.")
    ] = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Show where a loop's open trial (or else its latest) stands, what it has seen, and what is missing."""
    from leaven.cli.people import app_at
    from leaven.cli.trial_standing import show_standing
    from leaven.controller.standing import standing

    installed = app_at(home)
    with installed.database.read() as connection:
        found = standing(connection, installed.loop(loop), now=installed.clock.now())
    if plot is not None:
        from leaven.cli.plotting_looks import plot_looks

        plot_looks(found.history if found is not None else (), path=plot, title=f"Trial of {loop}")
    emit({"loop": loop, "trial": found}, as_json=as_json, human=lambda out: show_standing(loop, found, out))


def pause(loop: LoopName, why: Why = "", home: Home = None, as_json: AsJson = False) -> None:
    """Let a trial stay as it is: its routes stay, nothing moves forward, harm still rolls back."""
    from leaven.cli.people import app_at, me
    from leaven.controller.words import pause_trial

    installed = app_at(home)
    decided = pause_trial(installed.database, installed.loop(loop).name, by=me(), why=why, now=installed.clock.now())
    told = f"the trial of {loop} stays as it is; leaven trial resume {loop} lets it go on"
    data = {"loop": loop, "paused": True, "changed": decided is not None, "decision": decided and decided.id}
    emit(data, as_json=as_json, human=lambda out: out.print(told if decided else "it was paused before"))


def resume(loop: LoopName, why: Why = "", home: Home = None, as_json: AsJson = False) -> None:
    """Let a paused trial go on, at the controller's next look."""
    from leaven.cli.people import app_at, me
    from leaven.controller.words import resume_trial

    installed = app_at(home)
    decided = resume_trial(installed.database, installed.loop(loop).name, by=me(), why=why, now=installed.clock.now())
    data = {"loop": loop, "paused": False, "changed": decided is not None, "decision": decided and decided.id}
    told = f"the trial of {loop} goes on"
    emit(data, as_json=as_json, human=lambda out: out.print(told if decided else "it was not paused"))


def approve(
    loop: LoopName,
    why: Why = "",
    on_behalf_of: Annotated[
        str | None, typer.Option("--for", help="The name or role that the rollout asks, where that is not yours.")
    ] = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Let a trial that waits for an approval go on; to reject it, abort it."""
    from leaven.cli.people import app_at, me
    from leaven.controller import words

    installed = app_at(home)
    decided = words.approve(
        installed.database, installed.loop(loop), by=me(), why=why, now=installed.clock.now(),
        on_behalf_of=on_behalf_of,
    )  # fmt: skip
    what = "is promoted" if decided.outcome == "promote" else "goes on to the next step"
    told = f"version {decided.version} {what} (decision {decided.id})"
    emit(decided, as_json=as_json, human=lambda out: out.print(told))


def abort(loop: LoopName, why: Why = "", home: Home = None, as_json: AsJson = False) -> None:
    """End a trial against its challenger: the champion that it began with gets all units back."""
    from leaven.cli.people import app_at, me
    from leaven.controller import words
    from leaven.registry import aliases

    installed = app_at(home)
    decided = words.abort(installed.database, installed.loop(loop).name, by=me(), why=why, now=installed.clock.now())
    with installed.database.read() as connection:
        champion = aliases.alias(connection, loop, "champion")
    told = f"trial {decided.trial} is over; version {champion} serves {loop} (decision {decided.id})"
    emit(decided, as_json=as_json, human=lambda out: out.print(told))


COMMANDS = (start, status, pause, resume, approve, abort)
