"""Does a loop file still fit the champion that serves, where one does?"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from leaven.cli.control import reading
from leaven.cli.findings import Finding
from leaven.cli.people import app_at
from leaven.controller.offering import offer
from leaven.loop import Loop
from leaven.storage.control.database import DatabaseUnavailable


def champion_findings(loop: Loop, home: Path | None) -> Iterator[Finding]:
    """Yield what the next refresh will make of a champion that takes other features, or is of another kind.

    Nothing where the folder holds no installation, or that has no champion of this loop.
    """
    installed = app_at(home)
    try:
        with reading(home) as connection:  # makes no installation where there is none
            found = offer(connection, installed.artifacts, loop, now=installed.clock.now())
    except DatabaseUnavailable:
        return
    if found is not None:
        yield Finding("problem" if found.chosen is None else "note", "champion", str(found))
