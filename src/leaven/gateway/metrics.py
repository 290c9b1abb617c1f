"""How do the counts of all workers reach Prometheus through whichever of them is asked?

Workers share one port, so a scrape reaches one of them. Each writes its facts to a file once a second; the one that is
asked adds those of the others to its own. Every sample carries the worker that it comes from.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import msgspec

from leaven.gateway.counters import LATENCY_EDGES

logger = logging.getLogger(__name__)

Facts = Mapping[str, Any]  # what `/v1/status` says of a worker
Labels = dict[str, Any]
Sample = tuple[Labels, float]

EVERY = 1.0  # seconds between two writings
_STALE = 10.0  # seconds after which a file is of a worker that is gone


class SharedFacts:
    """A folder in which the workers of a home put their facts."""

    def __init__(self, folder: Path, worker: str, *, wall: Callable[[], float] = time.time) -> None:
        self._folder, self._path, self._wall = folder, folder / f"{worker}.json", wall

    def run(self, stop: threading.Event, facts: Callable[[], Facts]) -> None:
        """Write `facts()` once a second until `stop` is set, then take them back."""
        trouble = ""
        while not stop.is_set():
            try:
                self.put(facts())
                trouble = ""
            except OSError as error:
                if str(error) != trouble:
                    logger.warning("other workers cannot be told what this one counts: %s", error)
                trouble = str(error)
            stop.wait(EVERY)
        with suppress(OSError):  # the others find it stale soon
            self._path.unlink(missing_ok=True)

    def put(self, facts: Facts) -> None:
        """Write this worker's facts."""
        self._folder.mkdir(parents=True, exist_ok=True)
        being_written = self._path.with_suffix(".new")
        being_written.write_bytes(msgspec.json.encode(facts))
        being_written.replace(self._path)

    def others(self) -> list[Facts]:
        """Return the facts of the other workers that live, as of a second ago at most."""
        found = []
        for path in sorted(self._folder.glob("*.json")):
            if path == self._path:
                continue
            with suppress(OSError, msgspec.DecodeError):  # it went in between, or is being cut off by a full disk
                if self._wall() - path.stat().st_mtime < _STALE:
                    found.append(msgspec.json.decode(path.read_bytes()))
                else:
                    path.unlink(missing_ok=True)
        return found


def exposition(workers: Sequence[Facts]) -> str:
    """Return the facts of some workers in Prometheus' text format."""
    lines: list[str] = []
    for name, kind, about, samples in _FAMILIES:
        lines += (f"# HELP leaven_{name} {about}", f"# TYPE leaven_{name} {kind}")
        for facts in workers:
            for labels, count in samples(facts):
                lines.append(f"leaven_{name}{_written({'worker': facts['worker']} | labels)} {count:g}")
    lines += (
        "# HELP leaven_request_seconds Time to answer a request, by the arm of its first row.",
        "# TYPE leaven_request_seconds histogram",
    )
    for facts in workers:
        for latency in facts["latency"]:
            lines += _histogram({"worker": facts["worker"]} | _arm(latency), latency["buckets"], latency["seconds"])
    return "\n".join(lines) + "\n"


def _histogram(labels: Labels, buckets: Sequence[int], seconds: float) -> Iterable[str]:
    total = 0
    for edge, count in zip((*LATENCY_EDGES, "+Inf"), buckets, strict=True):
        total += count
        yield f"leaven_request_seconds_bucket{_written(labels | {'le': edge})} {total}"
    yield f"leaven_request_seconds_sum{_written(labels)} {seconds:g}"
    yield f"leaven_request_seconds_count{_written(labels)} {total}"


def _written(labels: Labels) -> str:
    return "{" + ",".join(f'{key}="{_escaped(str(text))}"' for key, text in labels.items()) + "}"


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _arm(facts: Facts) -> Labels:
    return {name: facts[name] for name in ("loop", "arm", "version")}


def _rows(key: str) -> Callable[[Facts], list[Sample]]:
    return lambda facts: [(_arm(each), each["rows"]) for each in facts[key]]


def _log(key: str, scale: float = 1.0) -> Callable[[Facts], list[Sample]]:
    return lambda facts: [({}, facts["log"].get(key, 0) * scale)]


def _by_reason(what: str) -> Callable[[Facts], list[Sample]]:
    return lambda facts: [
        ({"reason": name.removeprefix(f"{what}_")}, count)
        for name, count in facts["log"].items()
        if name.startswith(f"{what}_")
    ]


def _fact(key: str) -> Callable[[Facts], list[Sample]]:
    return lambda facts: [({}, facts[key])] if facts.get(key) is not None else []


def _models(key: str) -> Callable[[Facts], list[Sample]]:
    return lambda facts: [(_version(model), model[key]) for model in facts["models"]]


def _version(facts: Facts) -> Labels:
    return {name: facts[name] for name in ("loop", "version")}


Kind = Literal["counter", "gauge"]
_FAMILIES: tuple[tuple[str, Kind, str, Callable[[Facts], list[Sample]]], ...] = (
    ("requests_total", "counter", "Requests answered, by HTTP status; 499: the caller went away.",
     lambda facts: [({"status": status}, count) for status, count in facts["requests"].items()]),
    ("requests_under_way", "gauge", "Requests that are being answered.", _fact("requests_under_way")),
    ("predictions_total", "counter", "Rows answered.", _rows("predictions")),
    ("failures_total", "counter", "Rows that an arm failed on.", _rows("failures")),
    ("fallbacks_total", "counter", "Rows that the champion answered for an arm that failed.", _rows("fallbacks")),
    ("exposures_total", "counter", "Units that a caller showed their arm; each once per routing table and worker.",
     _rows("exposures")),
    ("model_calls_total", "counter", "Calls of the model.", _models("calls")),
    ("model_rows_total", "counter", "Rows in these calls.", _models("rows")),
    ("model_rows_shared_total", "counter", "Of these, rows that shared their call with other requests.",
     _models("shared")),
    ("model_rows_waiting", "gauge", "Rows that wait for the model.", _models("waiting")),
    ("endpoint_requests_total", "counter", "Requests to a server elsewhere, by what came of them.",
     lambda facts: [(_version(each) | {"outcome": outcome}, count)
                    for each in facts.get("endpoints", ()) for outcome, count in each["requests"].items()]),
    ("endpoint_requests_waiting", "gauge", "Requests that wait for a connection to a server elsewhere.",
     lambda facts: [(_version(each), each["requests_waiting"]) for each in facts.get("endpoints", ())]),
    ("endpoint_breaker_open", "gauge", "1 while a server elsewhere is left alone because it failed.",
     lambda facts: [(_version(each), int(each["breaker"] != "closed")) for each in facts.get("endpoints", ())]),
    ("feedback_acknowledged_total", "counter", "Reports made durable.", _fact("feedback_acknowledged")),
    ("shadow_rows_total", "counter", "Rows offered to shadows, by what became of them.",
     lambda facts: [({"outcome": outcome}, count) for outcome, count in facts["shadows"].items()]),
    ("shadow_rows_pending", "gauge", "Rows that wait for shadows.", _fact("shadow_rows_pending")),
    ("log_dropped_total", "counter", "Records of predictions that the log did not keep.", _by_reason("dropped")),
    ("log_refused_total", "counter", "Events that the log did not keep, and whose sender was told so.",
     _by_reason("refused")),
    ("log_failures_total", "counter", "Errors of the log's disk.", _log("failures")),
    ("log_syncs_total", "counter", "Syncs of the log's disk.", _log("syncs")),
    ("log_sync_seconds_total", "counter", "Time that these took.", _log("sync_us", 1e-6)),
    ("log_failing", "gauge", "1 while the log takes nothing because of its disk.",
     lambda facts: [({}, int(bool(facts["log"].get("trouble"))))]),
    ("log_queued", "gauge", "Events that wait to be written.", _log("queued")),
    ("log_lag_seconds", "gauge", "Age of the oldest event of this home that the lake does not have.",
     _fact("log_lag_seconds")),
    ("log_backlog_bytes", "gauge", "Bytes of this home's log that the lake does not have.", _fact("log_backlog_bytes")),
)  # fmt: skip
