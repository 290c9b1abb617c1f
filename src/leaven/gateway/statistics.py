"""How many requests has each version answered, and where did their time go?

In the words of the protocol's statistics extension: a request succeeds or fails; it waits in a queue, and is computed
in an execution that it may share with others. Counted per version, since it was opened; the other workers of this home
say what they have counted once a second, and that is added.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

from leaven.gateway.answering import Answerer
from leaven.gateway.serving import Prediction, Serving
from leaven.gateway.work import Work


@dataclass(slots=True)
class _Requests:
    """What one version was asked, request by request."""

    succeeded: int = 0
    succeeded_seconds: float = 0.0
    failed: int = 0
    failed_seconds: float = 0.0
    rows: int = 0  # answered
    last: int = 0  # milliseconds since the Unix epoch


class Statistics:
    """Counts requests by loop and version; used by the serving thread alone."""

    def __init__(self) -> None:
        # Counts go with the model that they are about; versions of one artifact may share it.
        self._requests: WeakKeyDictionary[Answerer, dict[tuple[str, str], _Requests]] = WeakKeyDictionary()
        self.others: Callable[[], Sequence[Mapping[str, Any]]] = tuple  # what other workers say of themselves

    def note(self, serving: Serving, prediction: Prediction, seconds: float) -> None:
        """Count a request that took so many seconds, for every version that its rows were assigned to."""
        records = prediction.records
        first = records[0]
        if len(records) == 1:
            self._count(serving, first.version, int(first.error is None), first.error is None, first.at, seconds)
            return
        rows: dict[str, int] = {}
        failed = set()
        for record in records:
            rows[record.version] = rows.get(record.version, 0) + (record.error is None)
            if record.error is not None:
                failed.add(record.version)
        for version, answered in rows.items():
            self._count(serving, version, answered, version not in failed, first.at, seconds)

    def _count(self, serving: Serving, version: str, rows: int, ok: bool, at: int, seconds: float) -> None:
        counts = self._counts(serving, version)
        counts.rows += rows
        counts.last = at // 1000
        if ok:
            counts.succeeded += 1
            counts.succeeded_seconds += seconds
        else:
            counts.failed += 1
            counts.failed_seconds += seconds

    def about(self, serving: Serving, versions: Sequence[str]) -> list[dict[str, Any]]:
        """Return the protocol's statistics of these versions of a loop, of all workers together."""
        facts = {(each["name"], each["version"]): each for each in self.own(serving, versions)}
        for worker in self.others():
            for each in worker.get("model_stats", ()):
                key = each["name"], each["version"]
                if key in facts:
                    facts[key] = _sum(facts[key], each)
        return list(facts.values())

    def own(self, serving: Serving, versions: Iterable[str]) -> list[dict[str, Any]]:
        """Return what this process has counted of these versions of a loop."""
        return [
            _facts(serving.table.loop, version, self._counts(serving, version), _work(serving.models[version]))
            for version in versions
        ]

    def _counts(self, serving: Serving, version: str) -> _Requests:
        of_model = self._requests.setdefault(serving.models[version], {})
        return of_model.setdefault((serving.table.loop, version), _Requests())


def _sum(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """Two workers' statistics of one version, added; the last inference is the later one."""
    together = {name: _added(value, other[name]) for name, value in one.items() if isinstance(value, (int, dict))}
    batches = {batch["batch_size"]: batch for batch in one["batch_stats"]}
    for batch in other["batch_stats"]:
        size = batch["batch_size"]
        batches[size] = _added(batches[size], batch) | {"batch_size": size} if size in batches else batch
    return one | together | {
        "last_inference": max(one["last_inference"], other["last_inference"]),
        "batch_stats": [batches[size] for size in sorted(batches)],
    }  # fmt: skip


def _added(one: Any, other: Any) -> Any:
    return {name: _added(one[name], other[name]) for name in one} if isinstance(one, dict) else one + other


def _work(model: Answerer) -> Work:
    """What the model did; nothing is known of one that keeps no count."""
    work = getattr(model, "work", None)
    return work if isinstance(work, Work) else Work()


def _facts(loop: str, version: str, requests: _Requests, work: Work) -> dict[str, Any]:
    nothing = _duration(0, 0.0)
    return {
        "name": loop,
        "version": version,
        "last_inference": requests.last,
        "inference_count": requests.rows,
        "execution_count": work.executions,
        "inference_stats": {
            "success": _duration(requests.succeeded, requests.succeeded_seconds),
            "fail": _duration(requests.failed, requests.failed_seconds),
            "queue": _duration(work.asked, work.queue_seconds),
            "compute_input": nothing,
            "compute_infer": _duration(work.asked, work.compute_seconds),
            "compute_output": nothing,
            "cache_hit": nothing,
            "cache_miss": nothing,
        },
        "batch_stats": [
            {
                "batch_size": rows,
                "compute_input": nothing,
                "compute_infer": _duration(int(count), seconds),
                "compute_output": nothing,
            }
            for rows, (count, seconds) in sorted(work.by_rows.items())
        ],
        "memory_usage": [],
    }


def _duration(count: int, seconds: float) -> dict[str, int]:
    return {"count": count, "ns": round(seconds * 1e9)}
