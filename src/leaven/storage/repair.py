"""What did a power cut or a kill leave of a table's log, and how does it open again?

Every commit is synced before its write-ahead segment is removed, so what is damaged here was never acknowledged as
being in the lake: it is in the log still, and is committed again.
"""

from __future__ import annotations

import logging
import time

import msgspec

from leaven.storage.delta import LOG, SEQ, added_files
from leaven.storage.place import Place

_STALE_SECONDS = 3600.0
_PARQUET = b"PAR1"

_log = logging.getLogger(__name__)


def repair(table: Place) -> list[str]:
    """Remove from the Delta log of `table` what cannot be read, newest first; return what was removed and why."""
    with table.said():
        log = table.at(LOG)
        files = log.files()
        names = [file.name for file in files]
        removed = [*_repair_checkpoints(log, names), *_repair_head(table, log, names)]
        for file in files:
            if ".tmp" in file.name and time.time() - file.modified > _STALE_SECONDS:
                log.remove(file.name)
        if removed:
            log.sync([])
            for what in removed:
                _log.warning("repaired %s: removed %s", table.uri, what)
        return removed


def _repair_head(table: Place, log: Place, names: list[str]) -> list[str]:
    """Remove the newest commits for as long as they are damaged; the version before them is restored by that."""
    removed: list[str] = []
    for commit in sorted((name for name in names if name.endswith(".json")), reverse=True):
        if not commit.removesuffix(".json").isdigit():
            continue
        why = _damage(table, log.read(commit))
        if why is None:
            break
        log.remove(commit)
        removed.append(f"{commit} ({why})")
    return removed


def _damage(table: Place, commit: bytes) -> str | None:
    """Why a commit cannot be read, or None if it can."""
    if not commit.strip():
        return "it is empty"
    try:
        actions = [msgspec.json.decode(line) for line in commit.splitlines()]
        added = list(added_files(commit))
    except (msgspec.MsgspecError, UnicodeDecodeError, KeyError, TypeError) as error:
        return f"it is torn: {error}"
    writes = any(action.get("commitInfo", {}).get("operation") == "WRITE" for action in actions)
    if writes and not any(action.get("txn", {}).get("appId") == SEQ for action in actions):
        return "it is torn: its last lines are missing"
    for path, size in added:
        if not _whole(table, path, size):
            return f"its data file {path} is not whole"
    return None


def _repair_checkpoints(log: Place, names: list[str]) -> list[str]:
    """Remove damaged checkpoints, and the hint that points to one."""
    checkpoints = [name for name in names if ".checkpoint" in name and name.endswith(".parquet")]
    removed = [name for name in checkpoints if not _whole(log, name, None)]
    if "_last_checkpoint" in names:
        try:
            version = msgspec.json.decode(log.read("_last_checkpoint"))["version"]
            prefix = f"{version:020d}.checkpoint"
            pointed = any(name.startswith(prefix) for name in checkpoints if name not in removed)
        except (msgspec.MsgspecError, UnicodeDecodeError, KeyError, TypeError, ValueError):
            pointed = False
        if not pointed:
            removed.append("_last_checkpoint")
    for name in removed:
        log.remove(name)
    return [f"{name} (not whole)" for name in removed]


def _whole(place: Place, name: str, size: int | None) -> bool:
    """Whether a Parquet file has its size and both its ends.

    ext4 and XFS grow a file only with blocks that were written, so a file of full length is whole.
    """
    found = place.ends(name, len(_PARQUET))
    if found is None:
        return False
    length, head, tail = found
    return length >= 12 and size in (None, length) and head == tail == _PARQUET
