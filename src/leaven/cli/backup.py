"""`leaven backup`: a copy of an installation, taken while it runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from leaven.cli.output import AsJson, Home, emit, messages, progress
from leaven.clock import SystemClock
from leaven.settings import settings_from

if TYPE_CHECKING:
    from rich.console import Console

    from leaven.backup.make import Report

app = typer.Typer()


@app.command()
def backup(
    place: Annotated[
        Path, typer.Argument(metavar="PLACE", help="A file that ends in .tar.gz, .tar.zst or .tar, or a new folder.")
    ],
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Keep a copy of an installation as of one moment, while it runs; every event acknowledged before is in it."""
    from leaven.backup.make import back_up

    with told() as tell:
        report = back_up(settings_from(home=home), place.absolute(), at=SystemClock().micros(), progress=tell)
    for digest in report.missing:
        messages().print(f"! a version names artifact {digest[:12]}, which is not here and so not in the backup")
    emit(report, as_json=as_json, human=lambda out: _show(report, out))


@contextmanager
def told() -> Iterator[Callable[[str, float], None]]:
    """Show on stderr how far something is, for as long as the block runs."""
    with progress() as shown:
        task = shown.add_task("", total=1.0)
        yield lambda what, share: shown.update(task, description=what, completed=share)


def _show(report: Report, out: Console) -> None:
    header = report.header
    out.print(f"{report.backup}  {report.packed_bytes / 2**20:,.1f} MiB, {header.files:,} files", soft_wrap=True)
    out.print(f"  control database  {sum(header.rows.values()):,} rows of {len(header.rows)} tables")
    for table, version in header.tables.items():
        out.print(f"  lake              {table}, version {version}")
    out.print(f"  log               {header.segments:,} segments that the lake does not need to have yet")
    for what in header.left_out:
        out.print(f"  left out          {what}", soft_wrap=True)
    out.print("It holds what users sent and the hashes of tokens: keep it as safe as the installation.")
