"""How do many requests wait for the log at the price of one?

What requests hand over within one turn of the event loop goes to the log together, and the log's thread wakes the loop
once for all of them. Alone, each would cost a future of its own between two threads and a wake-up: three times as much
as writing its events down.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial

from leaven.events.log import EventLog, LogUnavailable
from leaven.events.records import Event

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class _Turn:
    """What was handed over in one turn of the loop."""

    events: list[Sequence[Event]] = field(default_factory=list)
    waiting: list[asyncio.Future[None]] = field(default_factory=list)


class Acknowledging:
    """Waits for one log; used by one event loop."""

    def __init__(self, log: EventLog, *, seconds: float) -> None:
        """Wait for `log`, at most so many seconds for each event."""
        self._log, self._seconds = log, seconds
        self._turn: _Turn | None = None

    async def keep(self, events: Sequence[Event]) -> None:
        """Wait until the events survive a power cut.

        Raises:
            LogUnavailable: they may not, or it takes too long to know.
        """
        loop = asyncio.get_running_loop()
        if self._turn is None:
            self._turn = _Turn()
            loop.call_soon(self._hand_over, loop)
        kept = loop.create_future()
        self._turn.events.append(events)
        self._turn.waiting.append(kept)
        try:
            async with asyncio.timeout(self._seconds):
                await kept
        except TimeoutError:
            raise LogUnavailable(f"the disk did not confirm within {self._seconds:g} s") from None

    def _hand_over(self, loop: asyncio.AbstractEventLoop) -> None:
        turn, self._turn = self._turn, None
        assert turn is not None
        self._append(turn, loop)

    def _append(self, turn: _Turn, loop: asyncio.AbstractEventLoop) -> None:
        events = turn.events[0] if len(turn.events) == 1 else [event for each in turn.events for event in each]
        done = self._log.append_durably(events)
        if done.done():
            self._tell(turn, loop, done)
        else:
            done.add_done_callback(lambda done: loop.call_soon_threadsafe(partial(self._tell, turn, loop, done)))

    def _tell(self, turn: _Turn, loop: asyncio.AbstractEventLoop, done: Future[None]) -> None:
        error = done.exception()
        if error is not None and not isinstance(error, LogUnavailable) and len(turn.waiting) > 1:
            # One of them cannot be written down at all, and the others must not suffer for it.
            for events, kept in zip(turn.events, turn.waiting, strict=True):
                self._append(_Turn([events], [kept]), loop)
            return
        for kept in turn.waiting:
            if kept.done():  # nobody waits any more; it was refused as late, or the caller went away
                if error is not None:
                    logger.warning("events that nobody waited for any more were not kept: %s", error)
            elif error is None:
                kept.set_result(None)
            else:
                kept.set_exception(error)
