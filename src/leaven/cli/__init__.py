"""Which command did the user mean?

This table is all that `leaven --help` needs; a command's module is imported when the command runs (or is completed), so
that help and completion stay quick however heavy a command is. Nor does importing this package load Typer: a gateway
worker, which lives in it, needs none.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Sequence
from typing import NoReturn

from leaven.errors import BadDefinition, LeavenError

# Panel of the help page -> command -> (module that exports `app`, one line of help).
PANELS: dict[str, dict[str, tuple[str, str]]] = {
    "Begin": {
        "init": ("leaven.cli.init", "Write a loop file from a sample of your data."),
        "check": ("leaven.cli.check", "Prove a loop file, alone or on data, before anything runs."),
        "replay": ("leaven.cli.replay", "Judge a loop on its history, under a virtual clock."),
        "demo": ("leaven.cli.demo", "Watch a model of real flights being kept fresh."),
    },
    "Run": {
        "up": ("leaven.cli.up", "Run gateway, flusher and controller together."),
        "gateway": ("leaven.cli.gateway", "Run the gateway alone: predict and take feedback over HTTP."),
        "flusher": ("leaven.cli.flusher", "Run the flusher alone: from write-ahead log to lake."),
        "controller": ("leaven.cli.controller", "Run the controller alone: refreshes, trials, decisions."),
        "step": ("leaven.cli.step", "Run one step of a refresh, for an orchestrator of yours."),
    },
    "Look": {
        "status": ("leaven.cli.status", "Show what serves, what is being proven, and what runs where."),
        "versions": ("leaven.cli.versions", "List the versions of a loop."),
        "show": ("leaven.cli.show", "Show one version: lineage, gates, decisions, when it served."),
        "lineage": ("leaven.cli.lineage", "Show which version came of which, why, of what, and at what cost."),
        "diff": ("leaven.cli.diff", "Show what differs between two versions."),
        "decisions": ("leaven.cli.decisions", "Show what was decided, on what evidence, by what rule or person."),
        "reproduce": ("leaven.cli.reproduce", "Train a version again from its snapshot, and compare the two."),
        "events": ("leaven.cli.events", "Look at, import, export and erase predictions and feedback."),
        "label": ("leaven.cli.label", "Hand predictions to people for a label, and take their answers back."),
    },
    "Prove": {
        "advise": ("leaven.cli.advise", "Say how a challenger should be proven: strategy, size, days, stages."),
        "trial": ("leaven.cli.trial", "Run a trial; analyse one, judge its split, find its size and its boundaries."),
        "assign": ("leaven.cli.assign", "Say which arm a unit gets."),
    },
    "Advise": {
        "freshness": ("leaven.cli.freshness", "Measure how much worse a model gets with age, and with fewer rows."),
        "cadence": ("leaven.cli.cadence", "Recommend how often to refresh, by what staleness and a refresh cost."),
        "iterate": ("leaven.cli.iterate", "Say whether another model or newer data has paid more, by past refreshes."),
    },
    "Act": {
        "retrain": ("leaven.cli.retrain", "Start a refresh now."),
        "endpoint": ("leaven.cli.endpoint", "Let a server that runs elsewhere answer for a version."),
        "parameters": ("leaven.cli.parameters", "Let parameters that you wrote (a prompt, a threshold) be a version."),
        "prove": ("leaven.cli.prove", "Put a version into a trial: leaven trial start."),
        "promote": ("leaven.cli.promote", "Make a version the champion, on your own word."),
        "rollback": ("leaven.cli.rollback", "Go back to the champion before this one."),
        "pause": ("leaven.cli.pause", "Stop automatic refreshes and trials of a loop; serving goes on."),
        "resume": ("leaven.cli.resume", "Let a paused loop act by itself again."),
        "cancel": ("leaven.cli.cancel", "End the running refresh or trial of a loop."),
    },
    "Operate": {
        "doctor": ("leaven.cli.doctor", "Find out what is wrong with an installation, and mend what can be mended."),
        "backup": ("leaven.cli.backup", "Keep a copy of an installation, while it runs."),
        "restore": ("leaven.cli.restore", "Make an installation of a backup."),
        "token": ("leaven.cli.token", "Say who may use the gateway, and for what."),
    },
}
COMMANDS: dict[str, tuple[str, str]] = {name: entry for panel in PANELS.values() for name, entry in panel.items()}


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command that `arguments` (the process's own by default) name, then leave the process.

    Exit codes: 0 done, 1 the answer is no, 2 wrong use, 3 it failed, 130 interrupted.
    """
    from leaven.settings import calm_threads

    given = list(sys.argv[1:] if arguments is None else arguments)
    calm_threads()
    try:
        from leaven.cli.root import run

        run(given)
    except LeavenError as error:
        _explain(str(error), given)
        sys.exit(2 if isinstance(error, BadDefinition) else 3)
    except Exception as error:
        what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        _explain(f"{what}. This is not expected; LEAVEN_DEBUG=1 shows where it happened.", given)
        sys.exit(3)
    sys.exit(0)  # the command itself leaves by SystemExit; this is for one that returned


def _explain(text: str, arguments: Sequence[str]) -> None:
    """Say why the command failed: to the person on stderr, to a program that asked for JSON on stdout as well."""
    from leaven.settings import debugging

    if debugging():
        traceback.print_exc()
    print(f"error: {text}", file=sys.stderr)
    if "--json" in arguments:
        from leaven.cli.output import as_text

        print(as_text({"error": text}), flush=True)
