"""How does a process keep an event, fast, and so that an acknowledged one is never lost?

Callers encode and queue; one thread writes what has gathered, syncs once for all of it (group commit), and only then
ends the futures of those who wait. Predictions are not waited for: they gather for a moment, survive the end of the
process as soon as they are written, and a power cut from the next sync on (a second later at most).

After any error of the disk the log fails closed: nothing is acknowledged that is not kept. The segment is given up and
a new one is tried after a while.
"""

from __future__ import annotations

import logging
import os
import secrets
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from leaven.clock import Clock
from leaven.events.log import LogUnavailable
from leaven.events.records import Event, PredictionServed
from leaven.storage.frames import EventRefused, encode_frame, moment
from leaven.storage.segment import SegmentFile
from leaven.storage.writers import WriterFolder

Durability = Literal["fsync", "os"]

_GATHER_SECONDS = 0.02  # that predictions wait for company before they are written
_SYNC_SECONDS = 1.0  # that a written prediction may wait for a sync
_RETRY_SECONDS = 1.0  # between an error of the disk and the next try
_LATE = 2**63 - 1

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Group:
    """What has gathered in the queue since the writer last looked."""

    frames: list[bytes] = field(default_factory=list)
    waiting: list[Future[None]] = field(default_factory=list)
    predictions: int = 0
    feedback: int = 0
    oldest: int = _LATE


class WriteAheadLog:
    """The event log of one process, in a folder of its own; implements `leaven.events.log.EventLog`.

    Safe to call from any thread. Not to be used after a fork: make one per process.
    """

    def __init__(
        self,
        folder: Path,
        *,
        clock: Clock,
        durability: Durability = "fsync",
        seal_seconds: float = 5.0,
        seal_bytes: int = 16 * 2**20,
        queue_events: int = 100_000,
    ) -> None:
        """Open a log under `folder` and start its thread.

        Args:
            folder: Folder of the log; every process may name the same one.
            clock: The loop's clock, for the watermark.
            durability: `fsync` acknowledges what survives a power cut, `os` what survives the end of the process.
            seal_seconds: Age at which a segment is handed to the flusher.
            seal_bytes: Size at which it is.
            queue_events: How many events may wait to be written; more are refused.
        Raises:
            OSError: the folder cannot be made.
        """
        self.writer = f"{os.getpid()}-{secrets.token_hex(8)}"
        self._clock, self._synced = clock, durability == "fsync"
        self._seal_seconds, self._seal_bytes, self._queue_events = seal_seconds, seal_bytes, queue_events
        self._folder = WriterFolder(folder, self.writer, synced=self._synced)
        self._changed = threading.Condition()
        # Guarded by the condition's lock:
        self._queued = _Group()
        self._trouble, self._retry_at = "", 0.0
        self._closing = False
        self._counts = dict.fromkeys(
            ("predictions", "feedback", "dropped", "refused", "groups", "syncs", "sealed", "failures", "bytes"), 0
        )
        # The writer thread's alone:
        self._segment: SegmentFile | None = None
        self._given_up = False
        self._number = 0
        self._oldest_open = _LATE
        self._synced_at = 0.0
        self._thread = threading.Thread(target=self._run, name="leaven-wal", daemon=True)
        self._thread.start()

    def append(self, event: Event) -> bool:
        """Queue `event` and return at once; False where it was dropped (queue full, disk failing, not encodable)."""
        try:
            frame = encode_frame(event)
        except EventRefused as refusal:
            _log.warning("dropped: %s", refusal)
            frame = b""
        with self._changed:
            if not frame or self._why_not(1):
                self._counts["dropped"] += 1
                return False
            self._queue([event], [frame])
            if len(self._queued.frames) == 1:
                self._changed.notify()
        return True

    def append_durably(self, events: Sequence[Event]) -> Future[None]:
        """Queue `events`; the future ends once all of them are kept, or with `LogUnavailable`.

        With one that cannot be encoded none of them is queued, and the future ends with `EventRefused`.
        """
        future: Future[None] = Future()
        try:
            frames = [encode_frame(event) for event in events]
        except EventRefused as refusal:
            future.set_exception(refusal)
            return future
        with self._changed:
            why_not = self._why_not(len(frames))
            if why_not:
                self._counts["refused"] += len(frames)
            else:
                self._queue(events, frames)
                self._queued.waiting.append(future)
                self._changed.notify()
        if why_not:
            future.set_exception(LogUnavailable(why_not))
        return future

    def counters(self) -> dict[str, int]:
        """Return what happened since the start.

        `predictions` and `feedback` were kept; `dropped` were not, and nobody waited; `refused` were not, and the
        sender was told. `queued` wait now; `groups` were written, `syncs` reached the disk, `sealed` segments were
        handed on, `failures` are errors of the disk, `bytes` is what was written.
        """
        with self._changed:
            return {**self._counts, "queued": len(self._queued.frames)}

    def close(self) -> None:
        """Keep what is queued, seal the last segment and end; what comes later is refused."""
        with self._changed:
            if self._closing:
                return
            self._closing = True
            self._changed.notify()
        self._thread.join()
        self._folder.close()

    def _why_not(self, count: int) -> str:
        """Why `count` more events cannot be taken now; empty if they can. Called with the lock held."""
        if self._closing:
            return "it is closed"
        if self._trouble and time.monotonic() < self._retry_at:
            return self._trouble
        if len(self._queued.frames) + count > self._queue_events:
            return f"{len(self._queued.frames)} events wait to be written already"
        return ""

    def _queue(self, events: Sequence[Event], frames: Sequence[bytes]) -> None:
        """Put frames into the queue; the moment of the oldest is published first. Called with the lock held."""
        group = self._queued
        oldest = min(self._clock.micros(), *map(moment, events)) if events else _LATE
        if oldest < group.oldest:
            group.oldest = oldest
            self._publish_pending()
        group.frames.extend(frames)
        served = sum(isinstance(event, PredictionServed) for event in events)
        group.predictions += served
        group.feedback += len(events) - served

    def _publish_pending(self) -> None:
        oldest = min(self._queued.oldest, self._oldest_open)
        self._folder.set_pending(0 if oldest == _LATE else max(oldest, 1))

    def _run(self) -> None:
        try:
            self._write_until_closed()
        except BaseException as error:
            # Nobody must wait for a thread that is gone.
            with self._changed:
                self._trouble, self._retry_at = f"its thread ended: {error!r}", float("inf")
                waiting = self._queued.waiting
            for future in waiting:
                future.set_exception(LogUnavailable(self._trouble))
            raise

    def _write_until_closed(self) -> None:
        while True:
            group = self._next_group()
            if group.frames or group.waiting:
                self._write(group)
            if self._seal_is_due():
                self._seal()
            with self._changed:
                if self._closing and not self._queued.frames and not self._queued.waiting:
                    break
        if self._segment is not None:
            self._seal()

    def _next_group(self) -> _Group:
        """Wait until there is something to write, or a segment to seal, and take what has gathered."""
        gather_until = 0.0
        with self._changed:
            while not self._closing:
                queued, now = self._queued, time.monotonic()
                if queued.waiting or len(queued.frames) > self._queue_events // 4:
                    break
                if queued.frames:
                    gather_until = gather_until or now + _GATHER_SECONDS
                wake_at = min(gather_until or float("inf"), self._wake_at())
                if wake_at <= now:
                    break
                self._changed.wait(None if wake_at == float("inf") else wake_at - now)
            group, self._queued = self._queued, _Group()
            # Still pending, though no longer queued.
            self._oldest_open = min(self._oldest_open, group.oldest)
            return group

    def _wake_at(self) -> float:
        """When the open segment needs something: to be sealed, or synced."""
        if self._segment is None:
            return float("inf")
        if self._given_up:
            return self._retry_at
        seal_at = self._segment.born + self._seal_seconds
        return min(seal_at, self._synced_at + _SYNC_SECONDS) if self._segment.unsynced else seal_at

    def _write(self, group: _Group) -> None:
        """Write one group, sync if somebody waits for it, and tell those who wait."""
        try:
            segment = self._writable_segment()
            frames = b"".join(group.frames)
            segment.write(frames)
            if group.waiting:
                segment.sync()
                self._synced_at = time.monotonic()
        except OSError as error:
            self._fail(group, error)
            return
        with self._changed:
            self._trouble = ""
            for name, more in (("predictions", group.predictions), ("feedback", group.feedback), ("groups", 1),
                               ("syncs", bool(group.waiting)), ("bytes", len(frames))):  # fmt: skip
                self._counts[name] += more
        for future in group.waiting:
            if future.set_running_or_notify_cancel():
                future.set_result(None)

    def _writable_segment(self) -> SegmentFile:
        if self._given_up:
            self._seal()
            if self._given_up:
                raise OSError(self._trouble)
        if self._segment is None:
            self._number += 1
            self._segment = SegmentFile(self._folder.path, self._number, synced=self._synced)
            self._synced_at = time.monotonic()
        return self._segment

    def _fail(self, group: _Group, error: OSError) -> None:
        """Refuse a group that could not be kept, and give the segment up."""
        _log.error("the event log cannot write to %s: %s", self._folder.path, error)
        with self._changed:
            self._trouble, self._retry_at = str(error), time.monotonic() + _RETRY_SECONDS
            self._counts["failures"] += 1
            self._counts["dropped"] += group.predictions
            self._counts["refused"] += group.feedback
        self._given_up = self._segment is not None
        for future in group.waiting:
            if future.set_running_or_notify_cancel():
                future.set_exception(LogUnavailable(str(error)))
        if self._segment is None:
            self._forget_oldest()

    def _seal_is_due(self) -> bool:
        segment, now = self._segment, time.monotonic()
        if segment is None:
            return False
        if self._given_up:
            return now >= self._retry_at
        if segment.size >= self._seal_bytes or now >= segment.born + self._seal_seconds:
            return True
        if segment.unsynced and now >= self._synced_at + _SYNC_SECONDS:
            self._sync_unwaited(segment)
        return False

    def _sync_unwaited(self, segment: SegmentFile) -> None:
        try:
            segment.sync()
            self._synced_at = time.monotonic()
        except OSError as error:
            self._fail(_Group(), error)

    def _seal(self) -> None:
        """Hand the segment to the flusher; its successor is made when there is something to write."""
        if self._segment is None:
            return
        try:
            self._segment.seal(0 if self._oldest_open == _LATE else self._oldest_open)
        except OSError as error:
            # Numbers must be sealed in order, so nothing else is written until this one is.
            self._fail(_Group(), error)
            return
        self._segment, self._given_up = None, False
        with self._changed:
            self._counts["sealed"] += 1
        self._forget_oldest()

    def _forget_oldest(self) -> None:
        """Nothing taken from the queue is outside a sealed segment any more."""
        with self._changed:
            self._oldest_open = _LATE
            self._publish_pending()
