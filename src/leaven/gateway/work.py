"""How much work has a model done, and how long did requests wait for it?"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class Work:
    """What a model was made to do; kept by whoever carries the executions out."""

    executions: int = 0
    asked: int = 0  # requests that took part in them
    queue_seconds: float = 0.0  # that requests waited
    compute_seconds: float = 0.0  # that requests were computed: an execution counts for each that shares it
    by_rows: dict[int, list[float]] = field(default_factory=dict)  # rows of an execution -> how many, seconds

    def note(self, rows: int, requests: int, *, queue: float, compute: float) -> None:
        """Count an execution of `rows` rows of so many requests, which waited `queue` seconds together."""
        self.executions += 1
        self.asked += requests
        self.queue_seconds += queue
        self.compute_seconds += compute * requests
        # Sizes above 64 are counted at the power of two below, so that there are only so many of them.
        size = rows if rows <= 64 else 1 << (rows.bit_length() - 1)
        batch = self.by_rows.get(size)
        if batch is None:
            batch = self.by_rows[size] = [0, 0.0]
        batch[0] += 1
        batch[1] += compute
