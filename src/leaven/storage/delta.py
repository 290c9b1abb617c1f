"""How does a table take a commit so that neither kill -9 nor a power cut loses or doubles a row?

delta-rs writes a commit without a single fsync, and its checkpoints too. So here every commit is followed by our own
fsyncs of everything a reader needs, checkpoints are written by us, and a table is repaired before its first commit.
A commit carries application transactions: for each writer of the log the highest segment that is in it, and
`leaven-seq`, the highest row number. They are compared before a commit, since delta-rs does not refuse a repeated one;
and of two commits made at the same time from the same state the second is refused, since both carry `leaven-seq`.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from threading import RLock
from typing import Any, cast
from urllib.parse import unquote

import msgspec
from deltalake import CommitProperties, DeltaTable, PostCommitHookProperties, Transaction, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError
from deltalake.schema import PrimitiveType

from leaven.errors import LeavenError
from leaven.storage.rows import Kind, TableName, base_schema
from leaven.storage.writers import sync_folder

SEQ = "leaven-seq"
CHECKPOINT_EVERY = 100  # commits

_NO_HOOKS = PostCommitHookProperties(create_checkpoint=False, cleanup_expired_logs=False)
# Statistics make commits slow where there are many files; these two columns are all that files are picked by.
_CONFIGURATION: Mapping[str, str | None] = {
    "delta.dataSkippingStatsColumns": "seq,at",
    "delta.logRetentionDuration": "interval 30 days",
}
_ATTEMPTS = 20
_MANY_FILES = 16

_log = logging.getLogger(__name__)


class TableNotReadable(LeavenError, RuntimeError):
    """A table of the lake uses features that this reader would get wrong."""

    def __init__(self, table: str, features: list[str]) -> None:
        super().__init__(table, features)
        self.table, self.features = table, features

    def __str__(self) -> str:
        return (
            f"the table {self.table} needs the reader features {', '.join(self.features)}, under which its list of "
            "files is not its content. Write it with Leaven alone, or restore a version before they were switched on."
        )


class LeaseNotHeld(LeavenError, RuntimeError):
    """This process may no longer commit to the lake."""

    def __init__(self, table: str) -> None:
        super().__init__(table)
        self.table = table

    def __str__(self) -> str:
        return f"nothing was committed to {self.table}: another flusher holds the lease. Let that one work."


class TableContended(LeavenError, RuntimeError):
    """Others committed to a table each time this process tried to."""

    def __init__(self, table: str, attempts: int) -> None:
        super().__init__(table, attempts)
        self.table, self.attempts = table, attempts

    def __str__(self) -> str:
        return (
            f"{self.attempts} commits to {self.table} were overtaken by another process. "
            "See that one flusher runs per lake, and try again."
        )


@dataclass(frozen=True, slots=True)
class LiveFile:
    """One data file of a pinned version."""

    path: str
    day: date
    rows: int
    bytes: int
    last_seq: int


Rows = tuple[Any, int]  # something that exports an Arrow stream, and how many rows it has


class EventTable:
    """One loop's Delta table of predictions or feedback; safe to use from several threads."""

    def __init__(self, lake: Path, loop: str, name: TableName) -> None:
        self.path = lake / loop / name
        self.name = name
        self._lock = RLock()
        self._table: DeltaTable | None = None
        self._synced_version = -1

    def refresh(self) -> bool:
        """Look at the newest version; return whether there is any.

        Raises:
            TableNotReadable: the table uses reader features.
        """
        with self._lock:
            if self._table is not None:
                self._table.update_incremental()
            else:
                try:
                    self._table = DeltaTable(self.path)
                except TableNotFoundError:
                    return False
            protocol = self._table.protocol()
            if protocol.min_reader_version > 1 or protocol.reader_features:
                raise TableNotReadable(str(self.path), list(protocol.reader_features or ["of column mapping"]))
            return True

    @property
    def version(self) -> int:
        """The Delta version last looked at; -1 before the first commit."""
        return -1 if self._table is None else self._table.version()

    def transaction(self, application: str) -> int:
        """Return the highest number that was committed for `application`; 0 if there was none."""
        return 0 if self._table is None else self._table.transaction_version(application) or 0

    @property
    def seq(self) -> int:
        """Number of the newest row in the version last looked at."""
        return self.transaction(SEQ)

    def kinds(self) -> dict[str, Kind]:
        """Return the feature columns of the version last looked at, with their types."""
        if self._table is None:
            return {}
        kept = (field for field in self._table.schema().fields if field.name.startswith("f_"))
        return {field.name: cast(PrimitiveType, field.type).type for field in kept}  # type: ignore[misc]

    def files(self) -> list[LiveFile]:
        """Return the data files of the version last looked at."""
        if self._table is None:
            return []
        actions = self._table.get_add_actions(flatten=True)
        columns = [actions.column(name).to_pylist() for name in
                   ("path", "partition.day", "num_records", "size_bytes", "max.seq")]  # fmt: skip
        return [LiveFile(str(self.path / path), *rest) for path, *rest in zip(*columns, strict=True)]

    def append(
        self,
        rows: Callable[[EventTable], Rows | None],
        *,
        transactions: Mapping[str, int],
        hold: Callable[[], bool] = lambda: True,
    ) -> int:
        """Commit rows once, durably; return how many there were.

        Args:
            rows: Given the table at its newest version, the rows that are not in it yet, numbered from `seq + 1` on;
                None if there are none. Called again where another process committed first.
            transactions: Application transactions that the commit carries, beside that of `seq`.
            hold: Whether this process may still commit; asked right before.
        Raises:
            LeaseNotHeld: `hold` said no; nothing was committed.
            TableContended: others were always faster.
        """
        with self._lock:
            for _ in range(_ATTEMPTS):
                table = self._opened()
                made = rows(self)
                if made is None:
                    return 0
                if not hold():
                    raise LeaseNotHeld(str(self.path))
                content, count = made
                try:
                    _commit(table, content, dict(transactions) | {SEQ: self.seq + count})
                except CommitFailedError as error:
                    _log.info("%s: another process committed first: %s", self.path, error)
                    continue
                self.settle()
                return count
        raise TableContended(str(self.path), _ATTEMPTS)

    def _opened(self) -> DeltaTable:
        """The table at its newest version, made if it is not there.

        Made by a commit of its own, so that the first rows are numbered from a state that others see too.
        """
        if not self.refresh():
            try:
                DeltaTable.create(
                    self.path,
                    base_schema(self.name),
                    mode="error",
                    partition_by=["day"],
                    configuration=_CONFIGURATION,
                    post_commithook_properties=_NO_HOOKS,
                )
            except DeltaError as error:  # made by another process at the same time, or not to be made at all
                if not self.refresh():
                    raise
                _log.info("%s: another process made it: %s", self.path, error)
            self.refresh()
        assert self._table is not None
        return self._table

    def compact(self) -> int:
        """Rewrite small files as few; return how many files went. Rows and their numbers stay what they were."""
        with self._lock:
            if not self.refresh() or self._table is None:
                return 0
            done = self._table.optimize.compact(post_commithook_properties=_NO_HOOKS)
            self.settle()
            return int(done["numFilesRemoved"])

    def vacuum(self, *, hours: float, keep: list[int]) -> int:
        """Delete files that left the table more than `hours` ago and belong to none of the versions in `keep`.

        Commits older than 30 days that a checkpoint covers go too; return how many data files went.
        """
        with self._lock:
            if not self.refresh() or self._table is None:
                return 0
            gone = self._table.vacuum(
                retention_hours=int(hours),
                dry_run=False,
                enforce_retention_duration=False,
                post_commithook_properties=_NO_HOOKS,
                full=True,
                keep_versions=sorted(keep) or None,
            )
            self.settle()
            if any((self.path / "_delta_log").glob("*.checkpoint*.parquet")):
                self._table.cleanup_metadata()
            return len(gone)

    def settle(self) -> None:
        """Make every commit up to the newest version survive a power cut, whoever made it; checkpoint when due."""
        with self._lock:
            self.refresh()
            newest = self.version
            log = self.path / "_delta_log"
            for version in range(max(self._synced_version + 1, newest - CHECKPOINT_EVERY), newest + 1):
                commit = log / f"{version:020d}.json"
                _sync_files(self.path / path for path, _ in added_files(commit.read_bytes()))
                _sync_file(commit)
            first = self._synced_version < 0
            for folder in (*self.path.parents[:3], self.path, log) if first else (self.path, log):
                sync_folder(folder)
            due = not first and newest // CHECKPOINT_EVERY > self._synced_version // CHECKPOINT_EVERY
            self._synced_version = newest
            if due and self._table is not None:
                self._table.create_checkpoint()
                _sync_files([*log.glob("*.checkpoint*.parquet"), log / "_last_checkpoint"])
                sync_folder(log)


def _commit(table: DeltaTable, content: Any, transactions: Mapping[str, int]) -> None:
    write_deltalake(
        table,
        content,
        mode="append",
        schema_mode="merge",
        commit_properties=CommitProperties(
            app_transactions=[Transaction(name, number) for name, number in transactions.items()]
        ),
        post_commithook_properties=_NO_HOOKS,
    )


def added_files(commit: bytes) -> Iterator[tuple[str, int]]:
    """Return the data files that a commit adds, by path in the table, with their sizes."""
    for line in commit.splitlines():
        action = msgspec.json.decode(line)
        if "add" in action:
            yield unquote(action["add"]["path"]), action["add"]["size"]  # the log keeps paths as URLs do


def _sync_files(paths: Iterable[Path]) -> None:
    # What is gone was compacted away by a later commit, and a clean-up removed it.
    there = [path for path in paths if path.exists()]
    folders = {path.parent for path in there}
    if len(there) < _MANY_FILES:
        for path in there:
            _sync_file(path)
        for folder in folders:
            sync_folder(folder)
        return
    with ThreadPoolExecutor(_MANY_FILES) as pool:  # the disk then flushes many at once
        list(pool.map(_sync_file, there))
        list(pool.map(sync_folder, folders))


def _sync_file(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
