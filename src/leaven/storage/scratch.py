"""What did processes that were killed leave in the scratch folder of this machine?

What a query spills and what an import reads first bear the id of their process in their names: `4711-0a1b2c3d`,
`import-4711-0a1b2c3d.db`. They hold content of events, so they do not stay when their process is gone.
"""

from __future__ import annotations

import os
import re
import shutil
from contextlib import suppress
from pathlib import Path

_OURS = re.compile(r"(?:import-)?(\d+)-[0-9a-f]{8}(?:\.db.*)?")


def remove_left(folder: Path) -> None:
    """Remove what belongs to a process that is no more."""
    if not folder.is_dir():
        return
    for path in folder.iterdir():
        named = _OURS.fullmatch(path.name)
        if named is None or _lives(int(named[1])):
            continue
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            with suppress(OSError):
                path.unlink()


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True
