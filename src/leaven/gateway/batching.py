"""How do requests that come at the same time share one call of the model?

Nobody waits for company: a request that finds the model idle is answered in the next turn of the event loop, together
with those that were read in the same turn. While the model works, others gather, and the next call takes them all, as
many as a budget of time allows. So the batch grows with the load, and alone one is as fast as without batching.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from time import perf_counter
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from leaven.gateway.answering import Answers, ArmDown, Asked, Columns
from leaven.gateway.refusals import Overloaded
from leaven.gateway.work import Work

INLINE_ROWS = 128  # a request of more is answered on a thread, so that short ones do not wait behind it
_INLINE_SECONDS = 0.004  # a model whose calls take longer is asked on a thread, so that others are read meanwhile
_FIRST_ROWS, _LEAST_ROWS, _MOST_ROWS = 64, 16, 4096

Outcome = NDArray[np.float64] | Exception
Done = Callable[[Outcome, float], None]


class Runs(Protocol):
    """Carries out one call at a time."""

    def run(self, columns: Columns, rows: int, done: Done) -> None:
        """Answer `rows` rows, then call `done` with the answers, or what was raised, and the seconds it took."""
        ...


class CallCost:
    """What a call costs, and each row of it: a line through the calls so far, older ones counting less.

    Least squares of seconds on rows with exponentially decaying weights. Where all calls were alike, the whole of a
    call is put down to its rows.
    """

    def __init__(self, *, keep: float = 0.95) -> None:
        self._keep = keep
        self._weight = self._rows = self._seconds = self._squares = self._products = 0.0

    def learn(self, rows: int, seconds: float) -> None:
        """Take a call into account."""
        keep = self._keep
        self._weight = self._weight * keep + 1.0
        self._rows = self._rows * keep + rows
        self._seconds = self._seconds * keep + seconds
        self._squares = self._squares * keep + rows * rows
        self._products = self._products * keep + rows * seconds

    def per_row(self) -> float:
        """Return the seconds that one more row costs."""
        rows, seconds = self._rows / self._weight, self._seconds / self._weight
        variance = self._squares / self._weight - rows * rows
        if variance < 0.01 * rows * rows:
            return seconds / rows
        return max(0.0, (self._products / self._weight - rows * seconds) / variance)

    def rows_in(self, seconds: float) -> int:
        """Return how many rows cost so many seconds more than a call costs anyway."""
        each = self.per_row()
        return int(min(seconds / each, 1e9)) if each > 0 else 10**9


@dataclass(slots=True)
class _Waiting:
    columns: Columns
    count: int
    future: asyncio.Future[Asked]
    since: float
    alone: bool = False


class Batcher:
    """Answers requests in calls that they share; used by one event loop.

    `counts` holds `calls`, `rows`, and `shared`: rows that were answered in a call with other requests' rows; `work`
    says how long requests waited and calls took.
    """

    def __init__(
        self, runs: Runs, *, budget: float = 0.01, limit: int = 16_384, apart: int | None = INLINE_ROWS
    ) -> None:
        """Make a batcher in front of `runs`.

        Args:
            runs: Carries out the calls.
            budget: Seconds that the rows of others may add to a call; how many rows share one follows from it.
            limit: Rows that may wait; more are refused.
            apart: Requests of more rows than this do not queue but are run beside the others; None where `runs` can
                carry out only one call at a time.
        """
        self.counts: Counter[str] = Counter()
        self.work = Work()
        self.waiting = 0
        self._runs, self._budget, self._limit, self._apart = runs, budget, limit, apart
        self._queue: deque[_Waiting] = deque()
        self._most = _FIRST_ROWS
        self._cost = CallCost()
        self._busy = False

    async def ask(self, columns: Columns, count: int) -> Asked:
        """Return the answers to `count` rows, and the seconds of the call that each of its rows cost.

        Raises:
            Overloaded: too many rows wait already.
            Exception: whatever the model raises on these rows.
        """
        if self.waiting + count > self._limit and self.waiting:
            raise Overloaded(f"{self.waiting} rows wait for the model")
        loop = asyncio.get_running_loop()
        asked = _Waiting(columns, count, loop.create_future(), perf_counter())
        self.waiting += count
        if self._apart is not None and count > self._apart:
            self._runs.run(columns, count, partial(self._deliver, [asked], count, 0.0))
        else:
            self._queue.append(asked)
            if not self._busy:
                self._busy = True
                loop.call_soon(self._next)
        return await asked.future

    def _next(self) -> None:
        batch, rows = self._taken()
        columns = batch[0].columns if len(batch) == 1 else merged([asked.columns for asked in batch],
                                                                   [asked.count for asked in batch])  # fmt: skip
        waited = perf_counter() * len(batch) - sum([asked.since for asked in batch])
        self._runs.run(columns, rows, partial(self._ended, batch, rows, waited))

    def _taken(self) -> tuple[list[_Waiting], int]:
        """The requests that share the next call: as many as fit, at least one."""
        batch = [self._queue.popleft()]
        rows = batch[0].count
        while self._queue and not batch[0].alone and not self._queue[0].alone:
            if rows + self._queue[0].count > self._most:
                break
            batch.append(self._queue.popleft())
            rows += batch[-1].count
        return batch, rows

    def _ended(self, batch: list[_Waiting], rows: int, waited: float, outcome: Outcome, seconds: float) -> None:
        self._cost.learn(rows, seconds)
        self._most = max(_LEAST_ROWS, min(_MOST_ROWS, self._cost.rows_in(self._budget)))
        if isinstance(outcome, Exception) and len(batch) > 1 and not isinstance(outcome, ArmDown):
            # One request's rows must not cost the others their answers: each is asked alone.
            for asked in reversed(batch):
                asked.alone = True
                self._queue.appendleft(asked)
        else:
            self._deliver(batch, rows, waited, outcome, seconds)
        if self._queue:
            asyncio.get_running_loop().call_soon(self._next)
        else:
            self._busy = False

    def _deliver(self, batch: Sequence[_Waiting], rows: int, waited: float, outcome: Outcome, seconds: float) -> None:
        self.waiting -= rows
        self.work.note(rows, len(batch), queue=waited, compute=seconds)
        self.counts["calls"] += 1
        self.counts["rows"] += rows
        if len(batch) > 1:
            self.counts["shared"] += rows
        start = 0
        for asked in batch:
            if asked.future.done():  # its caller has given up
                start += asked.count
                continue
            if isinstance(outcome, Exception):
                asked.future.set_exception(outcome)
            else:
                asked.future.set_result(Asked(outcome[start : start + asked.count], seconds / rows))
            start += asked.count


class InProcess:
    """Calls a model of this process: at once where that is quick, on a thread where it is not."""

    def __init__(self, model: Answers, *, timer: Callable[[], float], threads: Executor) -> None:
        self._model, self._timer, self._threads = model, timer, threads
        self._usual = 0.0  # seconds of a call, smoothed

    def run(self, columns: Columns, rows: int, done: Done) -> None:
        """Answer `rows` rows; `done` has been called on return where the call is a quick one."""
        if rows <= INLINE_ROWS * 2 and self._usual < _INLINE_SECONDS:
            outcome, seconds = self._call(columns, rows)
            self._usual += (seconds - self._usual) / 8
            done(outcome, seconds)
            return
        ended = asyncio.get_running_loop().run_in_executor(self._threads, self._call, columns, rows)
        ended.add_done_callback(lambda future: self._threaded(rows, done, *future.result()))

    def _threaded(self, rows: int, done: Done, outcome: Outcome, seconds: float) -> None:
        if rows <= INLINE_ROWS * 2:
            self._usual += (seconds - self._usual) / 8
        done(outcome, seconds)

    def _call(self, columns: Columns, rows: int) -> tuple[Outcome, float]:
        began = self._timer()
        outcome: Outcome
        try:
            outcome = checked(self._model.answer(columns), rows)
        except Exception as error:
            outcome = error
        return outcome, self._timer() - began


class WrongShape(ValueError):
    """A model gave another number of answers than it was asked for."""


def checked(answers: Any, rows: int) -> NDArray[np.float64]:
    """Return `answers` as float64 of shape (rows,), or (rows, classes).

    Raises:
        WrongShape: they are not one per row, or one per row for each of several classes.
    """
    given = np.asarray(answers, dtype=np.float64)
    if given.shape[:1] != (rows,) or given.ndim > 2:
        raise WrongShape(f"answered with shape {list(given.shape)} for {rows} rows")
    return given


def merged(parts: Sequence[Mapping[str, NDArray[Any]]], counts: Sequence[int]) -> Columns:
    """Return the rows of `parts` one after the other; a feature that a part lacks is missing in its rows."""
    first = parts[0].keys()
    if all(part.keys() == first for part in parts):
        return {name: np.concatenate([part[name] for part in parts]) for name in first}
    kinds = {name: column.dtype for part in parts for name, column in part.items()}
    return {
        name: np.concatenate(
            [part[name] if name in part else _missing(kind, count) for part, count in zip(parts, counts, strict=True)]
        )
        for name, kind in kinds.items()
    }


def _missing(kind: np.dtype[Any], count: int) -> NDArray[Any]:
    return np.full(count, None, dtype=object) if kind.kind == "O" else np.full(count, np.nan)
