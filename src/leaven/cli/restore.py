"""`leaven restore`: an installation made of a backup."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from leaven.cli.backup import told
from leaven.cli.control import moment
from leaven.cli.output import AsJson, emit
from leaven.settings import settings_from

if TYPE_CHECKING:
    from rich.console import Console

    from leaven.backup.restore import Restored

app = typer.Typer()


@app.command()
def restore(
    place: Annotated[Path, typer.Argument(metavar="PLACE", help="What leaven backup wrote.")],
    home: Annotated[Path, typer.Option("--home", help="Folder of the new installation; nothing may be in it.")],
    as_json: AsJson = False,
) -> None:
    """Make an installation of a backup: all of it, checked against its digests, or nothing.

    Where LEAVEN_DATABASE names an empty PostgreSQL, the control database is filled in there.
    """
    from leaven.backup.restore import restore as restored_from

    with told() as tell:
        restored = restored_from(place.absolute(), settings_from(home=home), progress=tell)
    emit(restored, as_json=as_json, human=lambda out: _show(restored, out))


def _show(restored: Restored, out: Console) -> None:
    out.print(f"{restored.home} is as it was at {moment(restored.header.at)} UTC", soft_wrap=True)
    for name, path in restored.loop_files.items():
        out.print(f"  loop {name}: its file is not here; what was registered is in {path}", soft_wrap=True)
    for what in restored.header.left_out:
        out.print(f"  not restored: {what}", soft_wrap=True)
    out.print(f"See that all is well: leaven doctor --home {restored.home}", soft_wrap=True)
