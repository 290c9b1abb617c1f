"""Up to which moment has everything that happened been handed to the log, even if somebody sets the clock?

A record carries the moment at which its request came, and reaches the log within some seconds of it. These are seconds
that pass: where the clock is put forward by an hour meanwhile (or the machine slept), the record is an hour old at once
and not in the log yet. So the clock is followed only as far as it went while that time passed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from datetime import datetime, timedelta
from threading import Lock


class Horizon:
    """Remembers what the clock showed lately; safe to ask from several threads."""

    def __init__(self, grace: timedelta, *, timer: Callable[[], float]) -> None:
        """Allow `grace` between a record's moment and the log; `timer` gives seconds that pass, whatever the clock."""
        self._grace, self._timer = grace, timer
        self._lock = Lock()
        self._looks: deque[tuple[float, datetime]] = deque()  # since the last one that is `grace` old

    def at(self, now: datetime) -> datetime:
        """Return the moment before which nothing is on its way any more, given what the clock shows `now`."""
        with self._lock:
            passed = self._timer()
            since = passed - self._grace.total_seconds()
            self._looks.append((passed, now))
            while len(self._looks) > 1 and self._looks[1][0] <= since:
                self._looks.popleft()
            (looked, shown), *later = self._looks
        # What the clock showed when the oldest that may be on its way began, had nobody set it since that look.
        began = shown + timedelta(seconds=since - looked)
        return min([began, now - self._grace, *(shown for _, shown in later)])
