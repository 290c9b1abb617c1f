"""What has this gateway process done so far?"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

LATENCY_EDGES = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)  # seconds

Arm = tuple[str, str, str]  # loop, arm, version


class Latency:
    """How long requests took: counts by bucket, the last one for all that took longer than the last edge."""

    __slots__ = ("buckets", "seconds")

    def __init__(self) -> None:
        self.buckets = [0] * (len(LATENCY_EDGES) + 1)
        self.seconds = 0.0

    def observe(self, seconds: float) -> None:
        """Count a request."""
        self.buckets[bisect_left(LATENCY_EDGES, seconds)] += 1
        self.seconds += seconds


class Counters:
    """Counts of one process since its start; written by the serving thread alone, so without locks."""

    def __init__(
        self, *, worker: str, log: Callable[[], Mapping[str, int]], trouble: Callable[[], str] = lambda: ""
    ) -> None:
        """Make counters for the process named `worker`.

        Args:
            worker: Its name.
            log: Gives the counters of its event log.
            trouble: Says why the log takes nothing now; empty while it does.
        """
        self.worker = worker
        self.requests: Counter[int] = Counter()  # by HTTP status; 499 where the caller went away
        self.predictions: Counter[Arm] = Counter()  # rows
        self.failures: Counter[Arm] = Counter()  # of these, the arm gave no answer
        self.fallbacks: Counter[Arm] = Counter()  # of these, the champion stood in
        self.exposures: Counter[Arm] = Counter()  # units that met their arm
        self.latency: dict[Arm, Latency] = {}  # of requests, by the arm of their first row
        self.feedback = 0  # reports acknowledged
        self._log, self._trouble = log, trouble

    def dropped(self) -> int:
        """Return how many records the log has not kept."""
        return self._log().get("dropped", 0)

    def took(self, arm: Arm, seconds: float) -> None:
        """Count a request that an arm answered, and how long it took."""
        latency = self.latency.get(arm)
        if latency is None:
            latency = self.latency[arm] = Latency()
        latency.observe(seconds)

    def as_facts(self, shadows: Mapping[str, int]) -> dict[str, Any]:
        """Return all counts as JSON-able values; `shadows` are those of the shadow queue. Any thread may ask."""
        # Copies first: the serving thread may add a key while this one goes through them.
        log = dict(self._log())
        return {
            "worker": self.worker,
            "requests": {str(status): count for status, count in dict(self.requests).items()},
            "predictions": _by_arm(self.predictions),
            "failures": _by_arm(self.failures),
            "fallbacks": _by_arm(self.fallbacks),
            "exposures": _by_arm(self.exposures),
            "latency": [
                {**_named(arm), "buckets": list(latency.buckets), "seconds": latency.seconds}
                for arm, latency in dict(self.latency).items()
            ],
            "predictions_dropped": log.get("dropped", 0),
            "feedback_acknowledged": self.feedback,
            "shadows": dict(shadows),
            "log": log | {"trouble": self._trouble()},
        }


def _named(arm: Arm) -> dict[str, str]:
    return dict(zip(("loop", "arm", "version"), arm, strict=True))


def _by_arm(counts: Mapping[Arm, int]) -> list[dict[str, Any]]:
    return [_named(arm) | {"rows": count} for arm, count in dict(counts).items()]
