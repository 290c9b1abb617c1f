"""How does a table take a commit so that neither kill -9 nor a power cut loses or doubles a row?

delta-rs writes a commit without a single fsync, and its checkpoints too. So here every commit is followed by our own
syncs of everything a reader needs (`Place.sync`: on an object store, where a PUT is durable, there is nothing to do),
checkpoints are written by us, and a table is repaired before its first commit.
A commit carries application transactions: for each writer of the log the highest segment that is in it, and
`leaven-seq`, the highest row number. They are compared before a commit, since delta-rs does not refuse a repeated one;
and of two commits made at the same time from the same state the second is refused, since both carry `leaven-seq`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from threading import RLock
from typing import Any, cast
from urllib.parse import unquote

import msgspec
from deltalake import CommitProperties, DeltaTable, PostCommitHookProperties, Transaction, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError
from deltalake.schema import PrimitiveType

from leaven.errors import LeavenError
from leaven.storage.place import Place
from leaven.storage.rows import Kind, TableName, base_schema

SEQ = "leaven-seq"
ERASED = "leaven-erased"
CHECKPOINT_EVERY = 100  # commits
CROWD = 50  # files that the days of a table have beside the first of each
LOG = "_delta_log"

_NO_HOOKS = PostCommitHookProperties(create_checkpoint=False, cleanup_expired_logs=False)
# Statistics make commits slow where there are many files; these two columns are all that files are picked by.
_CONFIGURATION: Mapping[str, str | None] = {
    "delta.dataSkippingStatsColumns": "seq,at",
    "delta.logRetentionDuration": "interval 30 days",
}
_ATTEMPTS = 20
_NUMBERS_AT_ONCE = 20_000  # rows that one commit takes out, but for those of one day
_ROWS_AT_ONCE = 400_000  # rows of the days that one commit rewrites; delta-rs has all of them in hand at once

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

    table: Place
    path: str  # in the table
    day: date
    rows: int
    bytes: int
    last_seq: int
    first_at: datetime  # no later than the earliest `at`, and less than a millisecond before it
    last_at: datetime  # no later than the latest `at`, and less than a millisecond before it


Rows = tuple[Any, int]  # something that exports an Arrow stream, and how many rows it has


class EventTable:
    """One loop's Delta table of predictions or feedback; safe to use from several threads."""

    def __init__(self, lake: Place, loop: str, name: TableName) -> None:
        self.place = lake.at(loop, name)
        self.name = name
        self._lock = RLock()
        self._table: DeltaTable | None = None
        self._synced_version = -1

    def refresh(self) -> bool:
        """Look at the newest version; return whether there is any.

        Raises:
            TableNotReadable: the table uses reader features.
        """
        with self._lock, self.place.said():
            if self._table is not None:
                self._table.update_incremental()
            else:
                try:
                    self._table = DeltaTable(self.place.uri, storage_options=self.place.options)
                except TableNotFoundError:
                    return False
            protocol = self._table.protocol()
            if protocol.min_reader_version > 1 or protocol.reader_features:
                raise TableNotReadable(self.place.uri, list(protocol.reader_features or ["of column mapping"]))
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
                   ("path", "partition.day", "num_records", "size_bytes", "max.seq", "min.at", "max.at")]  # fmt: skip
        return [LiveFile(self.place, *facts) for facts in zip(*columns, strict=True)]

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
        with self._lock, self.place.said():
            for _ in range(_ATTEMPTS):
                table = self._opened()
                made = rows(self)
                if made is None:
                    return 0
                if not hold():
                    raise LeaseNotHeld(self.place.uri)
                content, count = made
                try:
                    _commit(table, content, dict(transactions) | {SEQ: self.seq + count})
                except CommitFailedError as error:
                    _log.info("%s: another process committed first: %s", self.place.uri, error)
                    continue
                self.settle()
                return count
        raise TableContended(self.place.uri, _ATTEMPTS)

    def _opened(self) -> DeltaTable:
        """The table at its newest version, made if it is not there.

        Made by a commit of its own, so that the first rows are numbered from a state that others see too.
        """
        if not self.refresh():
            try:
                DeltaTable.create(
                    self.place.uri,
                    base_schema(self.name),
                    storage_options=self.place.options,
                    mode="error",
                    partition_by=["day"],
                    configuration=_CONFIGURATION,
                    post_commithook_properties=_NO_HOOKS,
                )
            except DeltaError as error:  # made by another process at the same time, or not to be made at all
                if not self.refresh():
                    raise
                _log.info("%s: another process made it: %s", self.place.uri, error)
            # Synced before anything builds on it: a first commit that is lost while a later one is not leaves a table
            # that does not open.
            self.settle()
        assert self._table is not None
        return self._table

    def compact(self) -> int:
        """Rewrite small files as few; return how many files went, 0 where another process is at it.

        Rows and their numbers stay what they were. It is done alone: of two compactions of one state delta-rs would
        take both, though they remove the same files, and every row would be there twice.
        """
        with self._lock, self.place.said():
            if not self.refresh():
                return 0
            with self.place.alone() as alone:
                if not alone or not self.refresh() or self._table is None:
                    return 0
                try:
                    done = self._table.optimize.compact(post_commithook_properties=_NO_HOOKS)
                except CommitFailedError as error:  # nothing is lost by leaving it for the next time
                    _log.info("%s: another process rewrote it first: %s", self.place.uri, error)
                    return 0
                self.settle()
                return int(done["numFilesRemoved"])

    def crowded(self) -> bool:
        """Whether the days of the newest version have many more files than they need."""
        files = self.files() if self.refresh() else []
        return len(files) - len({file.day for file in files}) >= CROWD

    def vacuum(self, *, hours: float, keep: list[int]) -> int:
        """Delete files that left the table more than `hours` ago and belong to none of the versions in `keep`.

        Commits older than 30 days that a checkpoint covers go too; return how many data files went.
        """
        with self._lock, self.place.said():
            if not self.refresh() or self._table is None:
                return 0
            before = self._superseded()
            if before:  # else there is nothing to delete, and no need for two more commits
                self._vacuum(hours=int(hours), keep=keep)
                self.settle()
            # What is there no more, not what is superseded no more: a commit may have taken a new file in meanwhile.
            gone = before.keys() - self._there().keys()
            for path in gone:
                self.place.remove(path)  # the copy of it that a bucket has on this machine
            if _checkpoints(self.place):
                self._table.cleanup_metadata()
            return len(gone)

    def _vacuum(self, *, hours: int, keep: list[int]) -> None:
        assert self._table is not None
        self._table.vacuum(
            retention_hours=hours,
            dry_run=False,
            enforce_retention_duration=False,
            post_commithook_properties=_NO_HOOKS,
            full=hours >= 1,  # a file that is in no version may be that of a commit being made
            keep_versions=sorted(keep) or None,
        )

    def superseded(self) -> dict[str, float]:
        """Return the data files that are there and not in the newest version, with the times of their writing."""
        with self._lock, self.place.said():
            return self._superseded() if self.refresh() else {}

    def _superseded(self) -> dict[str, float]:
        there = self._there()  # before the version is looked up: what is committed in between is then in it
        self.refresh()
        live = {file.path for file in self.files()}
        return {path: written for path, written in there.items() if path not in live}

    def _there(self) -> dict[str, float]:
        return {f"{day}/{file.name}": file.modified for day in self.place.folders() if day != LOG
                for file in self.place.at(day).files() if file.name.endswith(".parquet")}  # fmt: skip

    def remove(self, rows: Sequence[tuple[date, int]], *, hold: Callable[[], bool]) -> int:
        """Take rows out, given their days and numbers, durably; return how many were there.

        The log of the table then says which numbers were taken out, and nothing of what they were.

        Raises:
            LeaseNotHeld: `hold` said no; what was committed before stays so.
            TableContended: others were always faster.
        """
        self.refresh()
        held: dict[date, int] = {}
        for file in self.files():
            held[file.day] = held.get(file.day, 0) + file.rows
        return sum(self._delete(predicate, hold) for predicate in _predicates(rows, held))

    def remove_days(self, before: date, *, hold: Callable[[], bool]) -> None:
        """Take out the rows of all days before `before`; raises as `remove` does."""
        if self.refresh() and any(file.day < before for file in self.files()):
            self._delete(f"day < CAST('{before.isoformat()}' AS DATE)", hold)

    def _delete(self, predicate: str, hold: Callable[[], bool]) -> int:
        with self._lock, self.place.said():
            for _ in range(_ATTEMPTS):
                if not self.refresh() or self._table is None:
                    return 0
                if not hold():
                    raise LeaseNotHeld(self.place.uri)
                try:
                    mark = Transaction(ERASED, self.transaction(ERASED) + 1)  # by its end a whole commit is known
                    done = self._table.delete(
                        predicate,
                        commit_properties=CommitProperties(app_transactions=[mark]),
                        post_commithook_properties=_NO_HOOKS,
                    )
                except CommitFailedError as error:
                    _log.info("%s: another process committed first: %s", self.place.uri, error)
                    continue
                self.settle()
                return int(done.get("num_deleted_rows") or 0)
        raise TableContended(self.place.uri, _ATTEMPTS)

    def settle(self) -> None:
        """Make every commit up to the newest version survive a power cut, whoever made it; checkpoint when due."""
        with self._lock, self.place.said():
            self.refresh()
            newest, first = self.version, self._synced_version < 0
            since = max(self._synced_version + 1, newest - CHECKPOINT_EVERY)
            self.place.sync(self._written(range(since, newest + 1)), above=3 if first else 0)
            due = not first and newest // CHECKPOINT_EVERY > self._synced_version // CHECKPOINT_EVERY
            self._synced_version = newest
            if due and self._table is not None:
                self._table.create_checkpoint()
                self.place.sync([*_checkpoints(self.place), f"{LOG}/_last_checkpoint"])

    def _written(self, versions: range) -> Iterator[str]:
        """The files that these commits wrote, and those that they are."""
        for version in versions:
            commit = f"{LOG}/{version:020d}.json"
            try:
                content = self.place.read(commit)
            except FileNotFoundError:  # cleaned up long after it was synced: a checkpoint covers it
                continue
            yield from (path for path, _ in added_files(content))
            yield commit


def _predicates(rows: Sequence[tuple[date, int]], held: Mapping[date, int]) -> Iterator[str]:
    """Conditions that pick these rows, each of bounded length and on days that do not hold too much together."""
    by_day: dict[date, list[int]] = {}
    for day, number in rows:
        by_day.setdefault(day, []).append(number)
    days: list[date] = []
    numbers: list[int] = []
    for day in sorted(by_day):
        rewritten = sum(held.get(each, 0) for each in (*days, day))
        if numbers and (len(numbers) + len(by_day[day]) > _NUMBERS_AT_ONCE or rewritten > _ROWS_AT_ONCE):
            yield _predicate(days, numbers)
            days, numbers = [], []
        days, numbers = [*days, day], [*numbers, *by_day[day]]
    if numbers:
        yield _predicate(days, numbers)


def _predicate(days: list[date], numbers: list[int]) -> str:
    within = f"day >= CAST('{days[0].isoformat()}' AS DATE) AND day <= CAST('{days[-1].isoformat()}' AS DATE)"
    return f"{within} AND seq >= {min(numbers)} AND seq <= {max(numbers)} AND seq IN ({', '.join(map(str, numbers))})"


def _checkpoints(table: Place) -> list[str]:
    names = (file.name for file in table.at(LOG).files())
    return [f"{LOG}/{name}" for name in names if ".checkpoint" in name and name.endswith(".parquet")]


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
