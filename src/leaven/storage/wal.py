"""How does a process keep an event, fast, and so that an acknowledged one is never lost?

Callers encode and queue; one thread writes what has gathered, syncs once for all of it (group commit), and only then
ends the futures of those who wait. Predictions are not waited for: they gather for `GATHER_SECONDS`, survive the end of
the process as soon as they are written, and a power cut from the next sync on (`SYNC_SECONDS` later at most).

What a killed process can lose is therefore what it took in its last `GATHER_SECONDS` and in the write or sync that was
under way, and never more than the queue holds, twice over: what waits, and what is being written.

After any error of the disk the log fails closed: everything is refused, with the reason, until the disk has been tried
and keeps bytes again. Only what was kept is acknowledged.
"""

from __future__ import annotations

import logging
import os
import secrets
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Literal

from leaven.clock import Clock
from leaven.events.log import LogUnavailable
from leaven.events.records import Event
from leaven.storage.frames import EventRefused, encode_frame, moment
from leaven.storage.group import COUNTED, NEVER, Group, WhyNot
from leaven.storage.stream import SegmentStream

Durability = Literal["fsync", "os"]

GATHER_SECONDS = 0.02  # that predictions wait for company before they are written
RETRY_SECONDS = 1.0  # between an error of the disk and the next try

_log = logging.getLogger(__name__)


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
        queue_bytes: int = 64 * 2**20,
    ) -> None:
        """Open a log under `folder` and start its thread; where the disk does not let it, it is tried again.

        Args:
            folder: Folder of the log; every process may name the same one.
            clock: The loop's clock, for the watermark.
            durability: `fsync` acknowledges what survives a power cut, `os` what survives the end of the process.
            seal_seconds: Age at which a segment is handed to the flusher.
            seal_bytes: Size at which it is.
            queue_events: How many events may wait to be written; more are refused.
            queue_bytes: How many bytes may wait before more are refused.
        """
        self.writer = f"{os.getpid()}-{secrets.token_hex(8)}"
        self._clock, self._queue_events, self._queue_bytes = clock, queue_events, queue_bytes
        self._stream = SegmentStream(
            folder, self.writer, synced=durability == "fsync", seal_seconds=seal_seconds, seal_bytes=seal_bytes
        )
        self._changed = threading.Condition()
        # Guarded by the condition's lock:
        self._queued, self._taken = Group(), Group()
        self._trouble, self._retry_at = "", 0.0
        self._closing = False
        self._oldest_open = NEVER  # of what was taken from the queue and is in no sealed segment
        self._counts = dict.fromkeys(COUNTED, 0)
        self._recover()
        self._thread = threading.Thread(target=self._run, name="leaven-wal", daemon=True)
        self._thread.start()

    @property
    def trouble(self) -> str:
        """Why the disk does not take events now; empty while it does."""
        return self._trouble

    def append(self, event: Event) -> bool:
        """Queue `event` and return at once; False where it was dropped (queue full, disk failing, not encodable)."""
        try:
            frame = encode_frame(event)
        except EventRefused as refusal:
            _log.warning("dropped: %s", refusal)
            with self._changed:
                self._count("dropped", "unloggable", 1)
            return False
        with self._changed:
            why_not = self._why_not(1)
            if why_not is not None:
                self._count("dropped", why_not.reason, 1)
                return False
            self._queue((event,), (frame,))
            if len(self._queued.frames) == 1:
                self._changed.notify()
        return True

    def append_durably(self, events: Sequence[Event]) -> Future[None]:
        """Queue `events`; the future ends once all of them are kept, or with `LogUnavailable`.

        All that is queued while the disk is busy shares one sync. With one that cannot be encoded none of them is
        queued, and the future ends with `EventRefused`.
        """
        future: Future[None] = Future()
        try:
            frames = [encode_frame(event) for event in events]
        except EventRefused as refusal:
            future.set_exception(refusal)
            return future
        with self._changed:
            why_not = self._why_not(len(frames))
            if why_not is not None:
                self._count("refused", why_not.reason, len(frames))
            else:
                self._queue(events, frames)
                self._queued.waiting.append(future)
                self._queued.waited_for += len(frames)
                if len(self._queued.waiting) == 1:
                    self._changed.notify()
        if why_not is not None:
            future.set_exception(LogUnavailable(why_not.text))
        return future

    def counters(self) -> dict[str, int]:
        """Return what happened since the start.

        `predictions` and `feedback` were kept; `dropped` were not, and nobody waited; `refused` were not, and the
        sender was told; both also by reason (`dropped_disk`, `dropped_full`, ...). `queued` wait now; `groups` were
        written, `syncs` reached the disk and took `sync_us` microseconds together, the longest `longest_sync_us`;
        `sealed` segments were handed on, `failures` are errors of the disk, `bytes` is what was written.
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
        self._stream.close()

    def _why_not(self, count: int) -> WhyNot | None:
        """Why `count` more events cannot be taken now, if they cannot. Called with the lock held."""
        if self._closing:
            return WhyNot("closed", "it is closed")
        if self._trouble:
            return WhyNot("disk", self._trouble)
        queued = self._queued
        if len(queued.frames) + count > self._queue_events or queued.size >= self._queue_bytes:
            return WhyNot("full", f"{len(queued.frames)} events wait to be written already")
        return None

    def _queue(self, events: Sequence[Event], frames: Sequence[bytes]) -> None:
        """Put frames into the queue; the moment of the oldest is published first. Called with the lock held."""
        group = self._queued
        oldest = min(self._clock.micros(), *map(moment, events)) if events else NEVER
        if oldest < group.oldest:
            group.oldest = oldest
            self._publish_pending()
        group.add(events, frames)

    def _publish_pending(self) -> None:
        oldest = min(self._queued.oldest, self._oldest_open)
        self._stream.set_pending(0 if oldest == NEVER else max(oldest, 1))

    def _count(self, what: Literal["dropped", "refused"], reason: str, count: int) -> None:
        self._counts[what] += count
        self._counts[f"{what}_{reason}"] += count

    def _run(self) -> None:
        try:
            while self._write_next():
                self._tend(time.monotonic())
            self._seal()
        except BaseException as error:
            # Nobody must wait for a thread that is gone.
            with self._changed:
                self._trouble, self._retry_at = f"its thread ended: {error!r}", float("inf")
                left = (self._taken, self._queued)
            for group in left:
                group.refuse(self._trouble)
            raise

    def _write_next(self) -> bool:
        """Write the next group, if there is one; False once the log is closed and everything is written."""
        group = self._taken = self._next_group()
        if group.frames or group.waiting:
            self._write(group)
        self._taken = Group()
        with self._changed:
            return not (self._closing and not self._queued.frames and not self._queued.waiting)

    def _next_group(self) -> Group:
        """Wait until there is something to write, or a segment to seal, and take what has gathered."""
        gather_until = 0.0
        with self._changed:
            while not self._closing:
                queued, now = self._queued, time.monotonic()
                if queued.waiting or len(queued.frames) > self._queue_events // 4:
                    break
                if queued.frames:
                    gather_until = gather_until or now + GATHER_SECONDS
                wake_at = min(gather_until or float("inf"), self._due_at())
                if wake_at <= now:
                    break
                self._changed.wait(None if wake_at == float("inf") else wake_at - now)
            group, self._queued = self._queued, Group()
            # Still pending, though no longer queued.
            self._oldest_open = min(self._oldest_open, group.oldest)
            return group

    def _due_at(self) -> float:
        """When the disk needs something without anybody asking: a try, a seal, or a sync."""
        return self._retry_at if self._trouble else min(self._stream.seal_at(), self._stream.sync_at())

    def _write(self, group: Group) -> None:
        """Write one group, sync if somebody waits for it, and tell those who wait."""
        frames = b"".join(group.frames)
        try:
            if self._trouble:  # taken before it began
                raise OSError(self._trouble)
            self._stream.write(frames)
            if group.waiting:
                self._sync()
        except OSError as error:
            self._fail(error, group)
            return
        with self._changed:
            self._counts["predictions"] += group.predictions
            self._counts["feedback"] += len(group.frames) - group.predictions
            self._counts["groups"] += 1
            self._counts["bytes"] += len(frames)
        group.tell()

    def _sync(self) -> None:
        began = time.perf_counter_ns()
        self._stream.sync()
        took = (time.perf_counter_ns() - began) // 1000
        with self._changed:
            self._counts["syncs"] += 1
            self._counts["sync_us"] += took
            self._counts["longest_sync_us"] = max(took, self._counts["longest_sync_us"])

    def _tend(self, now: float) -> None:
        """Do what the disk needs, if it is due."""
        if self._trouble:
            if now >= self._retry_at:
                self._recover()
        elif now >= self._stream.seal_at():
            self._seal()
        elif now >= self._stream.sync_at():
            try:
                self._sync()
            except OSError as error:
                self._fail(error)

    def _seal(self) -> None:
        """Hand the segment to the flusher; its successor is made when there is something to write."""
        if not self._stream.begun:
            return
        try:
            self._stream.seal(0 if self._oldest_open == NEVER else self._oldest_open)
        except OSError as error:
            self._fail(error)
            return
        with self._changed:
            self._counts["sealed"] += 1
        self._forget_oldest()

    def _fail(self, error: OSError, group: Group | None = None) -> None:
        """Take nothing more for now, and refuse a group that could not be kept."""
        with self._changed:
            if not self._trouble:
                _log.error("the event log takes nothing more until the disk keeps it: %s", error)
            self._trouble, self._retry_at = str(error) or repr(error), time.monotonic() + RETRY_SECONDS
            self._counts["failures"] += 1
            if group is not None:
                self._count("refused", "disk", group.waited_for)
                self._count("dropped", "disk", len(group.frames) - group.waited_for)
        if group is not None:
            group.refuse(str(error))

    def _recover(self) -> None:
        """Try the disk, sealing what was given up; open the log again where that works."""
        begun = self._stream.begun
        try:
            self._stream.recover(0 if self._oldest_open == NEVER else self._oldest_open)
        except OSError as error:
            self._fail(error)
            return
        with self._changed:
            self._counts["sealed"] += begun
            if self._trouble:
                _log.warning("the disk of the event log keeps events again")
            self._trouble = ""
        self._forget_oldest()

    def _forget_oldest(self) -> None:
        """Nothing taken from the queue is outside a sealed segment any more."""
        with self._changed:
            self._oldest_open = NEVER
            self._publish_pending()
