"""What did a power cut or a kill leave of a table's log, and how does it open again?

Every commit is synced before its write-ahead segment is removed, so what is damaged here was never acknowledged as
being in the lake: it is in the log still, and is committed again.
"""

from __future__ import annotations

import logging
import time
from pathlib import Path

import msgspec

from leaven.storage.delta import SEQ, added_files
from leaven.storage.writers import sync_folder

_STALE_SECONDS = 3600.0
_PARQUET = b"PAR1"

_log = logging.getLogger(__name__)


def repair(table: Path) -> list[str]:
    """Remove from the Delta log of `table` what cannot be read, newest first; return what was removed and why."""
    log = table / "_delta_log"
    if not log.is_dir():
        return []
    removed = [*_repair_checkpoints(log), *_repair_head(table, log)]
    for left in log.glob("*.tmp*"):
        if time.time() - left.stat().st_mtime > _STALE_SECONDS:  # younger ones may be a commit being made
            left.unlink()
    if removed:
        sync_folder(log)
        for what in removed:
            _log.warning("repaired %s: removed %s", table, what)
    return removed


def _repair_head(table: Path, log: Path) -> list[str]:
    """Remove the newest commits for as long as they are damaged; the version before them is restored by that."""
    removed: list[str] = []
    for commit in sorted(log.glob("*.json"), reverse=True):
        if not commit.stem.isdigit():
            continue
        why = _damage(table, commit)
        if why is None:
            break
        commit.unlink()
        removed.append(f"{commit.name} ({why})")
    return removed


def _damage(table: Path, commit: Path) -> str | None:
    """Why a commit cannot be read, or None if it can."""
    content = commit.read_bytes()
    if not content.strip():
        return "it is empty"
    try:
        actions = [msgspec.json.decode(line) for line in content.splitlines()]
        added = list(added_files(content))
    except (msgspec.MsgspecError, UnicodeDecodeError, KeyError, TypeError) as error:
        return f"it is torn: {error}"
    writes = any(action.get("commitInfo", {}).get("operation") == "WRITE" for action in actions)
    if writes and not any(action.get("txn", {}).get("appId") == SEQ for action in actions):
        return "it is torn: its last lines are missing"
    for path, size in added:
        if not _whole(table / path, size):
            return f"its data file {path} is not whole"
    return None


def _repair_checkpoints(log: Path) -> list[str]:
    """Remove damaged checkpoints, and the hint that points to one."""
    removed = [
        checkpoint for checkpoint in log.glob("*.checkpoint*.parquet") if not _whole(checkpoint, None)
    ]  # fmt: skip
    hint = log / "_last_checkpoint"
    if hint.exists():
        try:
            version = msgspec.json.decode(hint.read_bytes())["version"]
            pointed = [path for path in log.glob(f"{version:020d}.checkpoint*.parquet") if path not in removed]
        except (msgspec.MsgspecError, UnicodeDecodeError, KeyError, TypeError, ValueError):
            pointed = []
        if not pointed:
            removed.append(hint)
    for path in removed:
        path.unlink()
    return [f"{path.name} (not whole)" for path in removed]


def _whole(path: Path, size: int | None) -> bool:
    """Whether a Parquet file has its size and both its ends.

    ext4 and XFS grow a file only with blocks that were written, so a file of full length is whole.
    """
    if not path.exists():
        return False
    length = path.stat().st_size
    if length < 12 or (size is not None and length != size):
        return False
    with path.open("rb") as file:
        head = file.read(4)
        file.seek(-4, 2)
        return head == _PARQUET and file.read(4) == _PARQUET
