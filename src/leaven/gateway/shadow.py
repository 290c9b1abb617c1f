"""What would another version have answered?

Shadows answer after the reply has been sent, on one thread of their own, from a bounded queue: a shadow that is slow,
hangs or fails costs shadow answers, each of them counted with its reason, and never a live one.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from leaven.events.log import EventLog
from leaven.events.records import PredictionServed
from leaven.experiments.assignment import POSITIONS
from leaven.experiments.routing import ShadowRoute
from leaven.gateway.rows import MAX_ROWS, Columns
from leaven.gateway.serving import Answers, Prediction, Serving, ask, shadowed, take

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ShadowJob:
    """Rows that one shadow is to answer; the records are those of the live answers."""

    route: ShadowRoute
    model: Answers
    columns: Columns
    live: Sequence[PredictionServed]
    offered: float  # seconds, by the timer


class Shadows:
    """Answers jobs one after the other, in the background; `offer` never waits.

    `counts` holds, in rows: answered, failed, dropped_full (the queue was full), dropped_late (the answer was not there
    within the deadline), dropped_log (the event log was full), dropped_stopped.
    """

    def __init__(
        self, log: EventLog, *, timer: Callable[[], float], limit: int = 2 * MAX_ROWS, deadline: float = 5.0
    ) -> None:
        """Make a queue of at most `limit` rows, none answered later than `deadline` seconds after its reply."""
        self.counts: Counter[str] = Counter()
        self._log, self._timer, self._limit, self._deadline = log, timer, limit, deadline
        self._jobs: deque[ShadowJob] = deque()
        self._waiting = 0
        self._under_way = 0
        self._changed = threading.Condition()
        self._stopped = False
        self._thread = threading.Thread(target=self._work, name="shadows", daemon=True)

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def stop(self, *, seconds: float = 1.0) -> None:
        """Answer no more, and wait at most `seconds` for the row under way; what waits is dropped and counted."""
        with self._changed:
            self._stopped = True
            self.counts["dropped_stopped"] += self._waiting
            self._jobs.clear()
            self._waiting = 0
            self._changed.notify()
        if self._thread.is_alive():
            self._thread.join(seconds)

    @property
    def pending(self) -> int:
        """Rows that wait or are being answered."""
        with self._changed:
            return self._waiting + self._under_way

    def offer(self, serving: Serving, prediction: Prediction) -> None:
        """Queue the rows of `prediction` for the shadows of its table, as far as there is room."""
        for route in serving.table.shadows:
            members = shadowed(prediction, route)
            if not members:
                continue
            with self._changed:
                if self._stopped or self._waiting + len(members) > self._limit:
                    self.counts["dropped_full"] += len(members)
                    continue
                whole = len(members) == len(prediction.ids)
                columns = prediction.columns if whole else take(prediction.columns, members)
                live = [prediction.records[row] for row in members]
                self._jobs.append(ShadowJob(route, serving.models[route.version], columns, live, self._timer()))
                self._waiting += len(members)
                self._changed.notify()

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._jobs and not self._stopped:
                    self._changed.wait()
                if self._stopped:
                    return
                job = self._jobs.popleft()
                self._waiting -= len(job.live)
                self._under_way = len(job.live)
            if self._timer() - job.offered > self._deadline:
                self.counts["dropped_late"] += len(job.live)
            else:
                self._answer(job)
            self._under_way = 0
            del job  # or its model would stay in memory until the next one comes

    def _answer(self, job: ShadowJob) -> None:
        answers, errors, seconds = ask(job.model, job.columns, len(job.live), self._timer)
        if self._timer() - job.offered > self._deadline:
            # The record carries the live answer's time, and readers may already count that time as complete.
            self.counts["dropped_late"] += len(job.live)
            return
        for row, live in enumerate(job.live):
            failed = errors[row]
            kept = self._log.append(
                PredictionServed(
                    live.loop, live.id, live.at, live.unit, "shadow", "shadow", job.route.version,
                    job.route.high / POSITIONS, None if failed is not None else float(answers[row]),
                    seconds[row], live.table, failed,
                )
            )  # fmt: skip
            self.counts["failed" if failed is not None else "answered"] += 1
            if not kept:
                self.counts["dropped_log"] += 1
