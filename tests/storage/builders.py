"""Values that the storage tests are made of; each names only what matters to it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from leaven.duration import micros
from leaven.events import Label
from leaven.events.columns import Examples
from leaven.events.records import Event, FeedbackReceived, PredictionServed
from leaven.events.source import Span
from leaven.storage.lake import Lake
from leaven.storage.reading import LakeSource
from leaven.storage.rows import table_from, table_of
from leaven.storage.wal import WriteAheadLog
from leaven.storage.writers import OPEN, SEALED, stored_writers

TESTS = Path(__file__).parent.parent
# Of processes that run a script of a test, which may import `storage.builders`.
ENVIRONMENT = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, (str(TESTS), os.environ.get("PYTHONPATH"))))}
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
LATE = Label("arr_delay", above=15, within="2h")


class StandingClock:
    """A clock that shows what it was last told."""

    def __init__(self, now: datetime = NOON) -> None:
        self.time = now

    def now(self) -> datetime:
        return self.time

    def micros(self) -> int:
        return micros(self.time)


def minutes(count: float) -> datetime:
    return NOON + timedelta(minutes=count)


def a_prediction(id: str = "p", *, at: datetime = NOON, **other: Any) -> PredictionServed:
    given: dict[str, Any] = {
        "loop": "flights", "unit": "u", "role": "live", "arm": "champion", "version": "1", "propensity": 1.0,
        "answer": 0.5, "seconds": 0.001, "table": 1, "features": {"carrier": "UA", "dep_hour": 7, "wind": 1.5},
    }  # fmt: skip
    return PredictionServed(id=id, at=micros(at), **(given | other))


def a_label(
    prediction: str | None = "p",
    value: float | None = 20.0,
    *,
    at: datetime = NOON,
    received: datetime | None = None,
    **other: Any,
) -> FeedbackReceived:
    given: dict[str, Any] = {
        "loop": "flights", "id": f"{prediction}-{value}-{micros(at)}", "name": "arr_delay", "at": micros(at),
        "received_at": micros(received or at), "prediction": prediction, "value": value,
    }  # fmt: skip
    return FeedbackReceived(**(given | other))


def a_log(folder: Path, clock: StandingClock | None = None, **other: Any) -> WriteAheadLog:
    return WriteAheadLog(folder / "wal", clock=clock or StandingClock(), **({"seal_seconds": 0.05} | other))


def a_lake(folder: Path) -> Lake:
    return Lake(str(folder / "lake"), memory="400MB")


def a_source(lake: Lake, loop: str = "flights") -> LakeSource:
    return lake.source(loop, lambda: NOON)


def commit(lake: Lake, *events: Event) -> None:
    """Put events into the lake without a log, one commit per table."""
    for name in ("predictions", "feedback"):
        mine = [event for event in events if table_of(event) == name]
        if mine:
            lake.table(mine[0].loop, name).append(
                lambda table, mine=mine: (table_from(mine, first_seq=table.seq + 1, kinds=table.kinds()), len(mine)),
                transactions={},
            )


def examples(lake: Lake, *, end: datetime | None = None, as_of: datetime | None = None, **other: Any) -> Examples:
    """All examples of the flights from noon on, as known ten hours later."""
    span = Span(other.pop("start", NOON), end or minutes(600))
    return a_source(lake).examples(span, other.pop("rule", LATE), as_of=as_of or minutes(600), **other)


def content(read: Examples) -> list[tuple[str, str, bytes]]:
    """Every bit of some examples, with the types of the arrays."""
    served, labels = read.predictions, read.labels
    arrays = {name: getattr(served, name) for name in served.__slots__ if name != "features"}
    arrays |= {f"f_{name}": column for name, column in served.features.items()}
    arrays |= {f"label_{name}": getattr(labels, name) for name in labels.__slots__}
    return [(name, str(array.dtype), _bits(array)) for name, array in arrays.items()]


def _bits(array: np.ndarray) -> bytes:
    return repr(array.tolist()).encode() if array.dtype == object else array.tobytes()


def until(happened: Callable[[], object], *, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def until_sealed(wal: Path, *, seconds: float = 60.0) -> None:
    """Wait until no living writer has an open segment."""
    deadline = time.monotonic() + seconds
    while any(writer.segments(OPEN) for writer in stored_writers(wal)):
        assert time.monotonic() < deadline, "segments were not sealed in time"
        time.sleep(0.01)


def sealed(wal: Path) -> list[Path]:
    return [segment.path for writer in stored_writers(wal) for segment in writer.segments(SEALED)]


def seal(folder: Path, *events: Event, clock: StandingClock | None = None) -> None:
    """Log events by a writer of their own, which ends."""
    log = a_log(folder, clock)
    log.append_durably(events).result(60)
    log.close()


def ids(rows: Sequence[dict[str, Any]]) -> list[str]:
    return [row["id"] for row in rows]
