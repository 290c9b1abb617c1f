"""What has this gateway process done so far?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any


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
        self.predictions: Counter[tuple[str, str, str]] = Counter()  # rows by loop, arm and version
        self.failures: Counter[tuple[str, str, str]] = Counter()  # of these, the arm gave no answer
        self.fallbacks: Counter[tuple[str, str, str]] = Counter()  # of these, the champion stood in
        self.feedback = 0  # reports acknowledged
        self._log, self._trouble = log, trouble

    def as_facts(self, shadows: Mapping[str, int]) -> dict[str, Any]:
        """Return all counts as JSON-able values; `shadows` are those of the shadow queue."""
        log = dict(self._log())
        return {
            "worker": self.worker,
            "requests": {str(status): count for status, count in self.requests.items()},
            "predictions": _by_arm(self.predictions),
            "failures": _by_arm(self.failures),
            "fallbacks": _by_arm(self.fallbacks),
            "predictions_dropped": log.get("dropped", 0),
            "feedback_acknowledged": self.feedback,
            "shadows": dict(shadows),
            "log": log | {"trouble": self._trouble()},
        }

    def as_prometheus(self, shadows: Mapping[str, int]) -> str:
        """Return all counts in Prometheus' text format, each labelled with the worker."""
        lines: list[str] = []

        def family(
            name: str, about: str, samples: Mapping[tuple[tuple[str, str], ...], float], kind: str = "counter"
        ) -> None:
            lines.extend((f"# HELP leaven_{name} {about}", f"# TYPE leaven_{name} {kind}"))
            for labels, count in samples.items():
                written = ",".join(f'{key}="{_escaped(text)}"' for key, text in (("worker", self.worker), *labels))
                lines.append(f"leaven_{name}{{{written}}} {count}")

        family("requests_total", "Requests answered.", {(("status", str(s)),): n for s, n in self.requests.items()})
        family("predictions_total", "Rows answered.", {_labels(key): n for key, n in self.predictions.items()})
        family("failures_total", "Rows an arm failed on.", {_labels(key): n for key, n in self.failures.items()})
        family("fallbacks_total", "Rows the champion answered for a failed arm.",
               {_labels(key): n for key, n in self.fallbacks.items()})  # fmt: skip
        log = dict(self._log())
        family("log_dropped_total", "Records of predictions that the log did not keep.", _by_reason(log, "dropped"))
        family("log_refused_total", "Events that the log did not keep, and whose sender was told so.",
               _by_reason(log, "refused"))  # fmt: skip
        family("log_failures_total", "Errors of the log's disk.", {(): log.get("failures", 0)})
        family("log_syncs_total", "Syncs of the log's disk.", {(): log.get("syncs", 0)})
        family("log_sync_seconds_total", "Time that these took.", {(): log.get("sync_us", 0) / 1e6})
        family("log_failing", "1 while the log takes nothing because of its disk.", {(): int(bool(self._trouble()))},
               kind="gauge")  # fmt: skip
        family("log_queued", "Events that wait to be written.", {(): log.get("queued", 0)}, kind="gauge")
        family("feedback_acknowledged_total", "Reports made durable.", {(): self.feedback})
        family("shadow_rows_total", "Rows offered to shadows.", {(("outcome", o),): n for o, n in shadows.items()})
        return "\n".join(lines) + "\n"


def _labels(key: tuple[str, str, str]) -> tuple[tuple[str, str], ...]:
    return tuple(zip(("loop", "arm", "version"), key, strict=True))


def _by_reason(log: Mapping[str, int], what: str) -> dict[tuple[tuple[str, str], ...], float]:
    return {
        (("reason", name.removeprefix(f"{what}_")),): count
        for name, count in log.items()
        if name.startswith(f"{what}_")
    }


def _by_arm(counts: Mapping[tuple[str, str, str], int]) -> list[dict[str, Any]]:
    return [dict(_labels(key)) | {"rows": count} for key, count in counts.items()]


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
