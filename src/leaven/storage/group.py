"""What waits to be written together, who waits for it, and what is counted of it?"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from leaven.events.log import LogUnavailable
from leaven.events.records import Event, PredictionServed

NEVER = 2**63 - 1  # a moment that none is later than

COUNTED = (
    "predictions", "feedback", "groups", "syncs", "sync_us", "longest_sync_us", "sealed", "failures", "bytes",
    "dropped", "dropped_closed", "dropped_disk", "dropped_full", "dropped_unloggable",
    "refused", "refused_closed", "refused_disk", "refused_full",
)  # fmt: skip


class WhyNot(NamedTuple):
    """Why events are not taken: the counter's name for it, and a sentence."""

    reason: Literal["closed", "disk", "full"]
    text: str


@dataclass(slots=True)
class Group:
    """What has gathered in the queue since the writer last looked."""

    frames: list[bytes] = field(default_factory=list)
    waiting: list[Future[None]] = field(default_factory=list)
    predictions: int = 0
    waited_for: int = 0  # events whose sender waits
    size: int = 0  # bytes
    oldest: int = NEVER

    def add(self, events: Sequence[Event], frames: Sequence[bytes]) -> None:
        """Take events that were encoded as these frames."""
        self.frames.extend(frames)
        self.size += sum(map(len, frames))
        self.predictions += sum(isinstance(event, PredictionServed) for event in events)

    def tell(self) -> None:
        """Tell those who wait that everything is kept."""
        for future in self.waiting:
            if future.set_running_or_notify_cancel():
                future.set_result(None)

    def refuse(self, why: str) -> None:
        """Tell those who wait, and have not been told, that nothing can be relied on."""
        for future in self.waiting:
            if not future.done() and future.set_running_or_notify_cancel():
                future.set_exception(LogUnavailable(why))
