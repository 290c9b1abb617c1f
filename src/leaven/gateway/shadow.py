"""What would another version have answered?

Shadows answer after the reply has been sent, from a bounded queue: a shadow that is slow, hangs or fails costs shadow
answers, each of them counted with its reason, and never a live one. Each stands in a process of its own (or on a server
elsewhere), so what it computes takes nothing from the gateway's own thread.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from leaven.events.log import EventLog
from leaven.events.records import PredictionServed
from leaven.experiments.assignment import POSITIONS
from leaven.experiments.routing import ShadowRoute
from leaven.gateway.answering import Answerer, Columns
from leaven.gateway.refusals import Overloaded
from leaven.gateway.rows import MAX_ROWS
from leaven.gateway.serving import Answered, Prediction, Serving, as_logged, ask, shadowed, take

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ShadowJob:
    """Rows that one shadow is to answer; the records are those of the live answers."""

    route: ShadowRoute
    model: Answerer
    columns: Columns
    live: Sequence[PredictionServed]
    offered: float  # seconds, by the timer
    classes: int  # of the loop's label


class Shadows:
    """Answers jobs in the background of the event loop, a few at a time; `offer` never waits.

    Every row that is offered ends as one of these `counts`: answered, failed, dropped_full (the queue was full, or the
    shadow's own), dropped_late (the answer was not there within the deadline), dropped_error (ours, see the messages),
    dropped_stopped. Of those answered and failed, dropped_log are missing in the event log, which was full.
    """

    def __init__(
        self,
        log: EventLog,
        *,
        timer: Callable[[], float],
        limit: int = 2 * MAX_ROWS,
        at_once: int = 32,
        deadline: float = 5.0,
    ) -> None:
        """Make a queue of at most `limit` rows.

        Args:
            log: Where the answers are written.
            timer: Seconds that pass, from any start.
            limit: Rows that may wait.
            at_once: Jobs that are being answered at a time.
            deadline: Seconds after its reply in which a row may be answered.
        """
        self.counts: Counter[str] = Counter()
        self._log, self._timer, self._limit, self._deadline = log, timer, limit, deadline
        self._at_once = at_once
        self._jobs: deque[ShadowJob] = deque()
        self._waiting = 0
        self._answering: dict[asyncio.Task[None], int] = {}  # rows by task
        self._stopped = False

    @property
    def pending(self) -> int:
        """Rows that wait or are being answered."""
        return self._waiting + sum(list(self._answering.values()))  # a copy: any thread may ask

    def offer(self, serving: Serving, prediction: Prediction) -> None:
        """Queue the rows of `prediction` for the shadows of its table, as far as there is room."""
        for route in serving.table.shadows:
            members = shadowed(prediction, route)
            if not members:
                continue
            if self._stopped or self._waiting + len(members) > self._limit:
                self.counts["dropped_full"] += len(members)
                continue
            whole = len(members) == len(prediction.ids)
            columns = prediction.columns if whole else take(prediction.columns, members)
            live = [prediction.records[row] for row in members]
            classes = len(serving.table.schema.classes)
            self._jobs.append(ShadowJob(route, serving.models[route.version], columns, live, self._timer(), classes))
            self._waiting += len(members)
        self._start_some()

    async def stop(self, *, seconds: float = 1.0) -> None:
        """Answer no more, and wait at most `seconds` for those under way; what is left is dropped and counted."""
        self._stopped = True
        self.counts["dropped_stopped"] += self._waiting
        self._jobs.clear()
        self._waiting = 0
        if self._answering:
            await asyncio.wait(self._answering, timeout=seconds)
        for task, rows in self._answering.items():
            task.cancel()
            self.counts["dropped_stopped"] += rows
        if self._answering:
            await asyncio.wait(list(self._answering))

    def _start_some(self) -> None:
        while self._jobs and len(self._answering) < self._at_once:
            job = self._jobs.popleft()
            self._waiting -= len(job.live)
            task = asyncio.get_running_loop().create_task(self._answer(job))
            self._answering[task] = len(job.live)
            task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        del self._answering[task]
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("a shadow's answers were lost: %s", error, exc_info=error)
        if not self._stopped:
            self._start_some()

    async def _answer(self, job: ShadowJob) -> None:
        left = self._deadline - (self._timer() - job.offered)
        try:
            # A deadline in the past is one as well.
            async with asyncio.timeout(left):
                answered = await ask(job.model, job.columns, len(job.live), self._timer, classes=job.classes)
        except TimeoutError:
            # The record would carry the live answer's time, and readers may already count that time as complete.
            self.counts["dropped_late"] += len(job.live)
            return
        except Overloaded:
            self.counts["dropped_full"] += len(job.live)
            return
        self._write_down(job, answered)

    def _write_down(self, job: ShadowJob, answered: Answered) -> None:
        for row, live in enumerate(job.live):
            failed = answered.errors[row]
            try:
                kept = self._log.append(
                    PredictionServed(
                        live.loop, live.id, live.at, live.unit, "shadow", "shadow", job.route.version,
                        job.route.high / POSITIONS, None if failed is not None else as_logged(answered.answers[row]),
                        answered.seconds[row], live.table, failed,
                    )
                )  # fmt: skip
            except Exception as error:  # whatever it is, the other rows of the job are not to go with it
                self.counts["dropped_error"] += 1
                logger.error("a shadow's answer could not be written down: %s", error, exc_info=error)
                continue
            self.counts["failed" if failed is not None else "answered"] += 1
            if not kept:
                self.counts["dropped_log"] += 1
