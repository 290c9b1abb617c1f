"""What has this gateway process done so far?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any


class Counters:
    """Counts of one process since its start; written by the serving thread alone, so without locks."""

    def __init__(self, *, worker: str, log: Callable[[], Mapping[str, int]]) -> None:
        """Make counters for the process named `worker`; `log()` gives those of its event log."""
        self.worker = worker
        self.requests: Counter[int] = Counter()  # by HTTP status; 499 where the caller went away
        self.predictions: Counter[tuple[str, str, str]] = Counter()  # rows by loop, arm and version
        self.failures: Counter[tuple[str, str, str]] = Counter()  # of these, the arm gave no answer
        self.fallbacks: Counter[tuple[str, str, str]] = Counter()  # of these, the champion stood in
        self.dropped = 0  # prediction records that the event log had no room for
        self.feedback = 0  # reports acknowledged
        self._log = log

    def as_facts(self, shadows: Mapping[str, int]) -> dict[str, Any]:
        """Return all counts as JSON-able values; `shadows` are those of the shadow queue."""
        return {
            "worker": self.worker,
            "requests": {str(status): count for status, count in self.requests.items()},
            "predictions": _by_arm(self.predictions),
            "failures": _by_arm(self.failures),
            "fallbacks": _by_arm(self.fallbacks),
            "predictions_dropped": self.dropped,
            "feedback_acknowledged": self.feedback,
            "shadows": dict(shadows),
            "log": dict(self._log()),
        }

    def as_prometheus(self, shadows: Mapping[str, int]) -> str:
        """Return all counts in Prometheus' text format, each labelled with the worker."""
        lines: list[str] = []

        def family(name: str, about: str, samples: Mapping[tuple[tuple[str, str], ...], float]) -> None:
            lines.extend((f"# HELP leaven_{name} {about}", f"# TYPE leaven_{name} counter"))
            for labels, count in samples.items():
                written = ",".join(f'{key}="{_escaped(text)}"' for key, text in (("worker", self.worker), *labels))
                lines.append(f"leaven_{name}{{{written}}} {count}")

        family("requests_total", "Requests answered.", {(("status", str(s)),): n for s, n in self.requests.items()})
        family("predictions_total", "Rows answered.", {_labels(key): n for key, n in self.predictions.items()})
        family("failures_total", "Rows an arm failed on.", {_labels(key): n for key, n in self.failures.items()})
        family("fallbacks_total", "Rows the champion answered for a failed arm.",
               {_labels(key): n for key, n in self.fallbacks.items()})  # fmt: skip
        family("predictions_dropped_total", "Prediction records lost to a full log.", {(): self.dropped})
        family("feedback_acknowledged_total", "Reports made durable.", {(): self.feedback})
        family("shadow_rows_total", "Rows offered to shadows.", {(("outcome", o),): n for o, n in shadows.items()})
        return "\n".join(lines) + "\n"


def _labels(key: tuple[str, str, str]) -> tuple[tuple[str, str], ...]:
    return tuple(zip(("loop", "arm", "version"), key, strict=True))


def _by_arm(counts: Mapping[tuple[str, str, str], int]) -> list[dict[str, Any]]:
    return [dict(_labels(key)) | {"rows": count} for key, count in counts.items()]


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
