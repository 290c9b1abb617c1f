"""`leaven events compact` and `leaven events vacuum`: put a lake in shape by hand."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

import typer

from leaven.app import App
from leaven.cli.output import AsJson, Home, emit
from leaven.cli.people import app_at
from leaven.duration import duration
from leaven.errors import BadDefinition

OneLoop = Annotated[str | None, typer.Argument(metavar="[LOOP]", help="Name of one loop. Default: all.")]


def compact(loop: OneLoop = None, home: Home = None, as_json: AsJson = False) -> None:
    """Rewrite small files as few. The flusher does so by itself; no row changes, and snapshots read the same."""
    installed = app_at(home)
    replaced = {name: installed.lake.compact(name) for name in _loops(installed, loop)}
    emit({"replaced": replaced}, as_json=as_json,
         human=lambda out: out.print(f"{sum(replaced.values()):,} files were replaced by larger ones"))  # fmt: skip


def vacuum(
    loop: OneLoop = None,
    older_than: Annotated[
        str | None,
        typer.Option("--older-than", help="Only files that left their table so long ago. Default: LEAVEN_KEEP_FILES."),
    ] = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Delete files that no longer belong to their table. The flusher does so by itself.

    Files that a reader of Leaven's on this machine is at are kept; other engines that read an older version than the
    newest may find its files gone, so give them their time with --older-than. Snapshots read the same.
    """
    installed = app_at(home)
    given = older_than if older_than is not None else installed.settings.keep_files
    age = timedelta(0) if given.strip("smhdw") == "0" else duration(given, where="--older-than")
    deleted = {name: installed.lake.vacuum(name, hours=age / timedelta(hours=1)) for name in _loops(installed, loop)}
    left = {name: installed.lake.superseded(name) for name in deleted}
    said = f"{sum(deleted.values()):,} files were deleted; {sum(left.values()):,} that are in no table stay for now"
    emit({"deleted": deleted, "left": left}, as_json=as_json, human=lambda out: out.print(said))


def _loops(installed: App, loop: str | None) -> list[str]:
    there = installed.lake.loops()
    if loop is None:
        return there
    if loop not in there:
        raise BadDefinition(
            f"LOOP {loop!r}", "it has no events in the lake", f"There are {', '.join(there) or 'none'}."
        )
    return [loop]
