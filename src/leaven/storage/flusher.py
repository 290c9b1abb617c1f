"""How do sealed segments become rows of the lake, each event exactly once?

In rounds: read what is sealed, commit per table what the table does not have yet (its application transactions say),
make the commit survive a power cut, and only then remove the segments. Killed anywhere in between, the next round
finds the segments again and the tables say what of them they have.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import msgspec
from deltalake.exceptions import DeltaError

from leaven.errors import LeavenError
from leaven.events.records import Event
from leaven.storage.delta import EventTable, LeaseNotHeld, Rows
from leaven.storage.frames import Reject, decode_segment
from leaven.storage.lake import Lake
from leaven.storage.quarantine import put_aside
from leaven.storage.repair import TableDamaged, repair
from leaven.storage.rows import TableName, fault, table_from, table_of
from leaven.storage.writers import SEALED, StoredSegment, StoredWriter, is_logged, stored_writers

BATCH_BYTES = 16 * 2**20  # of segments that share a commit
COMPACT_EVERY = 50  # commits to one table
LOOK_SECONDS = 3600.0  # between two looks at every table, whoever wrote to it
KEEP_HOURS = 24.0  # that a file outlives its last version, for readers that cannot be seen from here

_log = logging.getLogger(__name__)


class FlushIncomplete(LeavenError, RuntimeError):
    """Some tables could not take their events, or some segments could not be read; the events stay in the log."""

    def __init__(self, reasons: dict[str, str]) -> None:
        super().__init__(reasons)
        self.reasons = reasons

    def __str__(self) -> str:
        said = "; ".join(f"{where}: {why}" for where, why in self.reasons.items())
        return f"events stay in the write-ahead log for now: {said}. They are tried again."


Key = tuple[str, TableName]  # loop, table
Part = dict[tuple[str, int], list[Event]]  # by writer and segment number


@dataclass(slots=True)
class _Batch:
    """Segments that are committed together, and what they hold for each table."""

    segments: list[StoredSegment] = field(default_factory=list)
    parts: dict[Key, Part] = field(default_factory=lambda: defaultdict(lambda: defaultdict(list)))
    bytes: int = 0


class Flusher:
    """Turns the sealed segments of one log into commits of one lake. One at a time per lake, by lease."""

    def __init__(
        self,
        wal: Path,
        lake: Lake,
        *,
        hold: Callable[[], bool] = lambda: True,
        keep_hours: float = KEEP_HOURS,
        also: Callable[[], None] = lambda: None,
    ) -> None:
        """Prepare to flush.

        Args:
            wal: Folder of the log.
            lake: Where the tables are.
            hold: Whether this process holds the lease now; asked before each commit.
            keep_hours: How long a file that left its table is kept for readers on other machines, and other engines.
            also: What else the lake needs from time to time; asked after each round.
        """
        self._wal, self._lake, self._hold = wal, lake, hold
        self._keep_hours, self._also = keep_hours, also
        self._looked: float | None = None
        self._repaired = False
        self._commits: dict[Key, int] = defaultdict(int)
        self._counts = dict.fromkeys(
            ("events", "commits", "segments", "torn_bytes", "quarantined", "repaired", "compactions", "failures"), 0
        )

    def counters(self) -> dict[str, int]:
        """Return what happened since the start, by name."""
        return dict(self._counts)

    def flush_once(self) -> int:
        """Bring every sealed segment there is into the lake; return how many events were committed.

        What a dead writer left open counts as sealed. Segments that appear meanwhile wait for the next call.

        Raises:
            FlushIncomplete: some tables could not take their events, or some writer's segments could not be read; all
                others are done.
            LeaseNotHeld: another process may commit now, this one may not.
        """
        stuck = {} if self._repaired else self._repair()
        self._repaired = not stuck
        before = self._counts["events"]
        unread: dict[str, str] = {}
        writers = stored_writers(self._wal)
        dead = [writer for writer in writers if writer.seal_if_dead()]
        for batch in self._batches(writers, unread):
            self._commit_batch(batch, stuck)
        for writer in dead:
            writer.remove_if_empty()
        if stuck or unread:
            raise FlushIncomplete({"/".join(key): why for key, why in stuck.items()} | unread)
        return self._counts["events"] - before

    def _repair(self) -> dict[Key, str]:
        """Repair every table; those that cannot be take no events, the others do."""
        stuck: dict[Key, str] = {}
        for loop, name in self._lake.table_names():
            try:
                place = self._lake.table(loop, name).place
                self._counts["repaired"] += len(repair(place, is_logged=partial(is_logged, self._wal)))
            except TableDamaged as error:
                stuck[loop, name] = str(error)
        return stuck

    def run(self, stop: threading.Event, *, every: float = 0.5) -> None:
        """Flush every `every` seconds while the lease is held, and tend the tables; once more when `stop` is set.

        Errors are logged and tried again, each time after a longer wait, half a minute at most.
        """
        trouble = 0
        while not stop.is_set():
            trouble = 0 if self._try_once() else trouble + 1
            stop.wait(min(every * 2 ** min(trouble, 10), 30.0))
        self._try_once()

    def _try_once(self) -> bool:
        try:
            if self._hold():
                self.flush_once()
                self.tend()
        except (LeavenError, DeltaError, OSError) as error:
            self._counts["failures"] += 1
            _log.error("flushing failed, and is tried again: %s", error)
            return False
        return True

    def tend(self) -> None:
        """Compact tables that took many commits, delete files that left them long ago, and do what else is due."""
        due = [key for key, commits in self._commits.items() if commits >= COMPACT_EVERY]
        if self._looked is None or time.monotonic() >= self._looked + LOOK_SECONDS:
            self._looked = time.monotonic()
            due = [key for key in self._lake.table_names() if key in due or self._lake.table(*key).crowded()]
            for loop in self._lake.loops():
                if self._hold():
                    self._lake.vacuum(loop, hours=self._keep_hours)
        for key in due:
            if not self._hold():
                return
            self._lake.table(*key).compact()
            self._commits[key] = 0
            self._counts["compactions"] += 1
        if self._hold():
            self._also()

    def _batches(self, writers: list[StoredWriter], unread: dict[str, str]) -> Iterator[_Batch]:
        """Read the sealed segments, each writer's in order, in batches of bounded size; say which cannot be read."""
        batch = _Batch()
        for writer in writers:
            for segment in writer.segments(SEALED):
                try:
                    content = segment.path.read_bytes()
                except FileNotFoundError:
                    continue  # another flusher has committed it
                except OSError as error:
                    unread[f"the log of {writer.id}"] = str(error)
                    break  # the later ones of this writer go in after it, or never
                self._sort_in(segment, content, batch)
                if batch.bytes >= BATCH_BYTES:
                    yield batch
                    batch = _Batch()
        if batch.segments:
            yield batch

    def _sort_in(self, segment: StoredSegment, content: bytes, batch: _Batch) -> None:
        """Put the events of one segment where they belong, and what is none into quarantine."""
        read = decode_segment(content)
        rejects = list(read.rejects)
        for event in read.events:
            why = fault(event)
            if why is None:
                batch.parts[event.loop, table_of(event)][segment.writer, segment.number].append(event)
            else:
                rejects.append(Reject(0, why, msgspec.msgpack.encode(event)))
        if rejects:
            put_aside(self._wal, segment, rejects)
        self._counts["torn_bytes"] += read.torn
        self._counts["quarantined"] += len(rejects)
        batch.segments.append(segment)
        batch.bytes += len(content)

    def _commit_batch(self, batch: _Batch, stuck: dict[Key, str]) -> None:
        """Commit a batch to all its tables, then remove those of its segments that every table has."""
        for key, part in batch.parts.items():
            if key in stuck:
                continue  # its segments go in by order: none of this batch before one that failed
            try:
                self._commit_part(key, part)
            except LeaseNotHeld:
                raise
            except (DeltaError, LeavenError, OSError) as error:
                stuck[key] = str(error)
        kept = {name for key, part in batch.parts.items() if key in stuck for name in part}
        for segment in batch.segments:
            if (segment.writer, segment.number) not in kept:
                segment.path.unlink(missing_ok=True)
                self._counts["segments"] += 1

    def _commit_part(self, key: Key, part: Part) -> None:
        highest: dict[str, int] = {}
        for writer, number in part:
            highest[writer] = max(number, highest.get(writer, 0))

        def rows(table: EventTable) -> Rows | None:
            new = [event for (writer, number), events in part.items() if number > table.transaction(writer)
                   for event in events]  # fmt: skip
            return (table_from(new, first_seq=table.seq + 1, kinds=table.kinds()), len(new)) if new else None

        committed = self._lake.table(*key).append(rows, transactions=highest, hold=self._hold)
        self._counts["events"] += committed
        self._counts["commits"] += committed > 0
        self._commits[key] += committed > 0
