"""Where does a gateway write events?"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from typing import Protocol

from leaven.errors import LeavenError
from leaven.events.records import Event


class LogUnavailable(LeavenError, RuntimeError):
    """The event log could not keep an event, so it must not be acknowledged."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why

    def __str__(self) -> str:
        return f"the event log cannot keep events now: {self.why}. Send the feedback again later."


class EventLog(Protocol):
    """An append-only log of one gateway process; safe to call from any thread."""

    def append(self, event: Event) -> bool:
        """Queue `event` and return at once; False where the queue is full (the drop is counted)."""
        ...

    def append_durably(self, events: Sequence[Event]) -> Future[None]:
        """Queue `events`; the future ends once all of them survive a power cut, or with `LogUnavailable`."""
        ...
