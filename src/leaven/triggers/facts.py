"""What may a trigger know, and what does it answer?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

import msgspec

from leaven.monitoring.signal import Signal


class Cause(msgspec.Struct, frozen=True):
    """Why a refresh was started; kept with the version that comes of it."""

    trigger: str  # as written, or "manual"
    why: str
    signal: Signal | None = None


@dataclass(frozen=True, slots=True)
class Facts:
    """The state of a loop at `now`, as far as triggers ask. The two functions read the log only when called."""

    now: datetime
    has_champion: bool
    last_refresh: datetime | None  # as of when the latest refresh, whatever came of it, took its data
    learnt_rows: int  # that the champion was trained on, those of the versions that it continues included
    matured_since_refresh: Callable[[], int]  # examples whose label matured after `last_refresh`
    performance: Callable[[str, timedelta], Signal]  # metric, over how long: the champion's, on mature labels


class Trigger(Protocol):
    """Decides whether a refresh is due."""

    def fires(self, facts: Facts) -> Cause | None:
        """Return why a refresh is due now, or None."""
        ...
