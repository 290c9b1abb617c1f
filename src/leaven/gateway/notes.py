"""Which requests are told in the log, and how many of them?

Those that failed and those that were slow; at debug, all. A gateway that fails a thousand times a second says so a few
times a second, and how often it did not.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from leaven.events.records import PredictionServed
from leaven.logs import about

logger = logging.getLogger(__name__)

_PER_SECOND = 10


class Notes:
    """Tells requests in the log of one gateway process; used by the serving thread alone."""

    def __init__(self, *, slow: float, timer: Callable[[], float]) -> None:
        """Tell requests that take `slow` seconds or more; `timer` gives seconds that pass."""
        self.slow, self.timer = slow, timer
        self._since, self._told, self._untold = 0.0, 0, 0

    def told(self, scope: Mapping[str, Any], status: int, seconds: float, records: Sequence[PredictionServed]) -> None:
        """Tell a request that has been answered, if it is one of those.

        Args:
            scope: Of the request.
            status: Of the reply.
            seconds: That it took.
            records: What was written down of it.
        """
        failed = status >= 500
        if not failed and seconds < self.slow:
            if logger.isEnabledFor(logging.DEBUG):
                self._tell(logging.DEBUG, "answered", scope, status, seconds, records)
            return
        if self._is_one_too_many():
            self._untold += 1
            return
        what = "a request failed" if failed else "a request was slow"
        self._tell(logging.WARNING, what, scope, status, seconds, records)

    def _is_one_too_many(self) -> bool:
        now = self.timer()
        if now - self._since >= 1.0:
            if self._untold:
                logger.warning("%d more requests failed or were slow", self._untold)
            self._since, self._told, self._untold = now, 0, 0
        self._told += 1
        return self._told > _PER_SECOND

    def _tell(
        self, level: int, what: str, scope: Mapping[str, Any], status: int, seconds: float,
        records: Sequence[PredictionServed],
    ) -> None:  # fmt: skip
        facts: dict[str, Any] = {}
        if records:
            first = records[0]
            facts = {"prediction": first.id, "loop": first.loop, "version": first.version, "arm": first.arm,
                     "error": first.error, "rows": len(records)}  # fmt: skip
        told = {"method": scope["method"], "path": scope["path"], "status": status, "seconds": round(seconds, 6)}
        logger.log(level, what, extra=about(**told, **facts))
