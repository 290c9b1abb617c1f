"""What did a power cut or a kill leave of a table's log, and how does it open again?

Every commit is synced before its write-ahead segment is removed, so what is damaged here was never acknowledged as
being in the lake: it is in the log still, and is committed again.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Iterator
from itertools import zip_longest
from urllib.parse import unquote

import msgspec

from leaven.errors import LeavenError
from leaven.storage.delta import ERASED, LOG, SEQ, added_files
from leaven.storage.place import Place

_STALE_SECONDS = 3600.0
_PARQUET = b"PAR1"
_UNSYNCED = 8  # commits that are made before all of them are synced: two or three at most

_log = logging.getLogger(__name__)


class TableDamaged(LeavenError, RuntimeError):
    """A table was damaged after its events had left the write-ahead log, by something other than a power cut."""

    def __init__(self, table: str, commit: str, why: str) -> None:
        super().__init__(table, commit, why)
        self.table, self.commit, self.why = table, commit, why

    def __str__(self) -> str:
        return (
            f"the table {self.table} is damaged at {self.commit}: {self.why}. Its events are in no log any more, so "
            "nothing was removed. Put the missing file back, or restore a backup (leaven restore)."
        )


def damaged(table: Place) -> dict[str, str]:
    """Return what of the Delta log of `table` cannot be read, newest commit first, each name with the reason."""
    with table.said():
        log = table.at(LOG)
        return _damaged_in(table, log, [file.name for file in log.files()])


def repair(table: Place, *, is_logged: Callable[[str, int], bool] = lambda writer, segment: True) -> list[str]:
    """Remove from the Delta log of `table` what cannot be read, newest first; return what was removed and why.

    Args:
        table: Where the table is.
        is_logged: Whether the write-ahead log still has this segment of this writer.
    Raises:
        TableDamaged: a commit would have to go whose events are in no log any more; nothing was removed.
    """
    with table.said():
        log = table.at(LOG)
        files = log.files()
        found = _damaged_in(table, log, [file.name for file in files])
        for name, why in found.items():
            lost = [each for each in _segments_in(log, name) if not is_logged(*each)]
            if lost:
                raise TableDamaged(table.uri, name, why)
        removed = [f"{name} ({why})" for name, why in found.items()]
        for name in found:
            log.remove(name)
        for file in files:
            if ".tmp" in file.name and time.time() - file.modified > _STALE_SECONDS:
                log.remove(file.name)
        if removed:
            log.sync([])
            for what in removed:
                _log.warning("repaired %s: removed %s", table.uri, what)
        return removed


def _segments_in(log: Place, name: str) -> Iterator[tuple[str, int]]:
    """The segments that a commit says it brought in, as far as it can be read: of each writer the last."""
    if _version(name) is None:
        return
    for line in log.read(name).splitlines():
        try:
            brought = msgspec.json.decode(line).get("txn")
            if brought is not None and brought["appId"] not in (SEQ, ERASED):
                yield brought["appId"], brought["version"]
        except (msgspec.MsgspecError, UnicodeDecodeError, AttributeError, KeyError, TypeError):
            return  # torn: it was being written


def _damaged_in(table: Place, log: Place, names: list[str]) -> dict[str, str]:
    return dict.fromkeys(_damaged_checkpoints(log, names), "not whole") | _damaged_head(table, log, names)


def _damaged_head(table: Place, log: Place, names: list[str]) -> dict[str, str]:
    """The oldest damaged commit and all after it, newest first; without them the version before is the newest.

    A commit is synced together with every one before it, so where one is damaged, none after it was ever synced.
    """
    commits = sorted((name for name in names if _version(name) is not None), reverse=True)[:_UNSYNCED]
    if not commits:
        return {}  # as a table that was killed before its first commit leaves it
    damaged: dict[str, str] = {}
    replaced: set[str] = set()  # files that a later commit took out of the table; they may be gone
    for commit, before in zip_longest(commits, commits[1:]):
        content = log.read(commit)
        why = _damage(table, content, replaced)
        if why is None and before is not None and _version(before) != (_version(commit) or 0) - 1:
            why = f"it follows on {before}"
        if why is not None:
            damaged[commit] = why
        else:
            replaced.update(_removed_files(content))
    oldest = min(damaged, default=None)
    return {
        commit: damaged.get(commit, f"it came after {oldest}")
        for commit in commits
        if oldest is not None and commit >= oldest
    }


def _version(name: str) -> int | None:
    number = name.removesuffix(".json")
    return int(number) if number != name and number.isdigit() else None


def _damage(table: Place, commit: bytes, replaced: Collection[str]) -> str | None:
    """Why a commit cannot be read, or None if it can."""
    if not commit.strip():
        return "it is empty"
    try:
        actions = [msgspec.json.decode(line) for line in commit.splitlines()]
        added = list(added_files(commit))
    except (msgspec.MsgspecError, UnicodeDecodeError, KeyError, TypeError) as error:
        return f"it is torn: {error}"
    made = {action.get("commitInfo", {}).get("operation") for action in actions}
    marks = {action.get("txn", {}).get("appId") for action in actions}
    if any(operation in made and mark not in marks for operation, mark in (("WRITE", SEQ), ("DELETE", ERASED))):
        return "it is torn: its last lines are missing"
    for path, size in added:
        if path not in replaced and not _whole(table, path, size):
            return f"its data file {path} is not whole"
    return None


def _removed_files(commit: bytes) -> Iterator[str]:
    for line in commit.splitlines():
        removed = msgspec.json.decode(line).get("remove")
        if removed is not None:
            yield unquote(removed["path"])


def _damaged_checkpoints(log: Place, names: list[str]) -> list[str]:
    """Checkpoints that are damaged, and the hint that points to one."""
    checkpoints = [name for name in names if ".checkpoint" in name and name.endswith(".parquet")]
    found = [name for name in checkpoints if not _whole(log, name, None)]
    if "_last_checkpoint" in names:
        try:
            version = msgspec.json.decode(log.read("_last_checkpoint"))["version"]
            prefix = f"{version:020d}.checkpoint"
            pointed = any(name.startswith(prefix) for name in checkpoints if name not in found)
        except (msgspec.MsgspecError, UnicodeDecodeError, KeyError, TypeError, ValueError):
            pointed = False
        if not pointed:
            found.append("_last_checkpoint")
    return found


def _whole(place: Place, name: str, size: int | None) -> bool:
    """Whether a Parquet file has its size and both its ends.

    ext4 and XFS grow a file only with blocks that were written, so a file of full length is whole.
    """
    found = place.ends(name, len(_PARQUET))
    if found is None:
        return False
    length, head, tail = found
    return length >= 12 and size in (None, length) and head == tail == _PARQUET
