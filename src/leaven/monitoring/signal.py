"""What did a monitor see?"""

from __future__ import annotations

import msgspec

from leaven.stats.intervals import Interval


class Signal(msgspec.Struct, frozen=True):
    """A measured value with its evidence: what a trigger decides on."""

    name: str
    at: int  # microseconds since the Unix epoch: as of when it was measured
    interval: Interval
    reference: Interval | None = None  # the same metric when the champion was proven
