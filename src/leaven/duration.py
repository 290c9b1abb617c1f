"""How long is "36h"?"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from leaven.errors import BadDefinition

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_UNITS = {
    "s": timedelta(seconds=1),
    "min": timedelta(minutes=1),
    "m": timedelta(minutes=1),
    "h": timedelta(hours=1),
    "d": timedelta(days=1),
    "w": timedelta(weeks=1),
}
_WRITTEN = re.compile(r"(\d+(?:\.\d+)?)\s*(s|min|m|h|d|w)")


def duration(text: str, *, where: str = "a duration") -> timedelta:
    """Return the length written as a number and a unit: s, min (or m), h, d, w.

    Raises:
        BadDefinition: the text is no such length, or the length is not positive.
    """
    match = _WRITTEN.fullmatch(text.strip()) if isinstance(text, str) else None
    if match is None:
        raise BadDefinition(where, f"{text!r} is no duration", 'Write a number and a unit, such as "90s", "36h", "7d".')
    length = float(match[1]) * _UNITS[match[2]]
    if length <= timedelta(0):
        raise BadDefinition(where, f"{text!r} is not longer than nothing", 'Write a positive one, such as "1h".')
    return length


def floor_to(instant: datetime, step: timedelta) -> datetime:
    """Return the last multiple of `step` since the Unix epoch that is not after `instant`."""
    return EPOCH + ((instant - EPOCH) // step) * step


def micros(instant: datetime) -> int:
    """Return `instant` as whole microseconds since the Unix epoch, as events carry it."""
    return (instant - EPOCH) // timedelta(microseconds=1)


def instant(micros_since_epoch: int) -> datetime:
    """Return the moment that lies `micros_since_epoch` after the Unix epoch, in UTC."""
    return EPOCH + timedelta(microseconds=int(micros_since_epoch))
