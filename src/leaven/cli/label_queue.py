"""Which predictions of a loop are handed to people, and in which file?"""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from leaven.app import App
from leaven.controller import state
from leaven.curation.feature_space import feature_space
from leaven.curation.parity import as_told
from leaven.curation.queries import Candidates, Disagreement, Diversity, Evenly, Margin, Query, Uncertainty, mixture
from leaven.curation.snapshot import join_examples
from leaven.curation.windows import Part, chosen
from leaven.duration import instant
from leaven.errors import BadDefinition
from leaven.events.columns import Examples
from leaven.events.labels import Happens
from leaven.events.source import Span
from leaven.loop import Loop
from leaven.stats.answers import none
from leaven.storage.hand_labels import FORMULAS, rows_of

DAYS = 28
MOST = 50_000  # candidates that are looked at; of more, an even sample
KNOWN = 500  # labelled rows that diversity keeps away from
_NAMES = ("uncertainty", "margin", "diversity", "disagreement", "evenly")


@dataclass(frozen=True, slots=True)
class Asked:
    """What is wanted of a queue."""

    rows: int
    by: str
    at: float
    against: str | None
    since: datetime | None
    still_open: bool


class Queued(msgspec.Struct, frozen=True):
    """One prediction that is worth a label, with what a person may want to see."""

    prediction: str
    at: datetime
    unit: str
    version: str
    answer: float | str | None  # of a label with classes, the likeliest
    challenger: float | str | None  # answer of the version that disagrees
    why: str
    closed: bool  # the label's window has closed
    features: dict[str, Any]


class Queue(msgspec.Struct, frozen=True):
    """Predictions to be labelled, the most wanted first."""

    loop: str
    by: str
    since: datetime
    candidates: int
    excluded: int
    notes: list[str]
    predictions: list[Queued]


def build_queue(installed: App, loop: Loop, asked: Asked, *, exclude: Sequence[Path]) -> Queue:
    """Return the queue of a loop, as of now.

    Raises:
        BadDefinition: the query is none, or does not fit the model's answers; an excluded file cannot be read.
    """
    loop.need_model("label queue")
    query = query_of(asked.by, at=asked.at)
    source, now = installed.source(loop.name), installed.clock.now()
    span = Span(asked.since or now - timedelta(days=DAYS), now + timedelta(microseconds=1))
    examples = source.examples(span, loop.label, as_of=now).predicted()
    unheard = np.isnan(examples.labels.value)
    wanted = unheard if asked.still_open else unheard & examples.labels.mature
    out = {row["prediction"] for file in exclude for row in rows_of(file, needed=("prediction",))}
    handed = np.array([one in out for one in examples.predictions.id.tolist()], dtype=bool)
    found, known = examples.take(wanted & ~handed), examples.take(~unheard)
    notes = _notes(loop, asked, len(found))
    there, seed = len(found), loop.seed
    found, known = _at_most(found, MOST, seed), _at_most(known, KNOWN, seed)
    against = _against(installed, loop, asked) if "disagreement" in asked.by else None
    other = np.full(len(found), np.nan)
    if against is not None:
        pairs = source.pairs(span, against, loop.label, as_of=now)
        place = {one: row for row, one in enumerate(pairs.live.predictions.id.tolist())}
        rows = np.array([place.get(one, -1) for one in found.predictions.id.tolist()], dtype=np.intp)
        other = none(len(found), 0 if pairs.shadow_answer.ndim == 1 else pairs.shadow_answer.shape[1])
        other[rows >= 0] = pairs.shadow_answer[rows[rows >= 0]]
    picks = query.pick(_candidates(loop, found, known, other), asked.rows, seed=seed)
    queued = [_queued(loop, found, other, pick.row, pick.why) for pick in picks]
    return Queue(loop.name, repr(query), span.start, there, int((handed & wanted).sum()), notes, queued)


def query_of(text: str, *, at: float) -> Query:
    """Return the query that names joined by `+` ask for.

    Raises:
        BadDefinition: a name is none of a query.
    """
    makers: Mapping[str, Query] = {
        "uncertainty": Uncertainty(), "margin": Margin(at), "diversity": Diversity(),
        "disagreement": Disagreement(), "evenly": Evenly(),
    }  # fmt: skip
    names = [name.strip() for name in text.split("+")]
    for name in names:
        if name not in makers:
            raise BadDefinition("--by", f"{name!r} is no query", f"Use {', '.join(_NAMES)}, joined by +.")
    return makers[names[0]] if len(names) == 1 else mixture(*(makers[name] for name in names))


def write_queue(queue: Queue, file: Path) -> None:
    """Write a queue as CSV with an empty column `value`, whole or not at all.

    A text that a spreadsheet would take for a formula gets an apostrophe before it, as they do it themselves.
    """
    if not file.absolute().parent.is_dir():
        raise BadDefinition(str(file), "there is no such folder", "Name a folder that exists.")
    own = ["prediction", "value", "source", "labelled_at", "served_at", "unit", "answer", "challenger", "why"]
    names = list(dict.fromkeys(name for each in queue.predictions for name in each.features))
    headings = [*own, *(f"feature_{name}" if name in own else name for name in names)]
    being_written = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        with being_written.open("w", newline="", encoding="utf-8") as out:
            table = csv.writer(out)
            table.writerow(map(_cell, headings))
            for one in queue.predictions:
                about = [one.prediction, None, None, None, one.at.isoformat(), one.unit, one.answer, one.challenger]
                table.writerow(map(_cell, [*about, one.why, *(one.features.get(name) for name in names)]))
        being_written.replace(file)
    finally:
        being_written.unlink(missing_ok=True)


def _cell(given: Any) -> Any:
    return f"'{given}" if isinstance(given, str) and given.startswith(FORMULAS) else given


def _notes(loop: Loop, asked: Asked, found: int) -> list[str]:
    notes = []
    if isinstance(loop.label, Happens) and not asked.still_open:
        told = "once its window has closed, an event that did not come is the label 0, so none is missing"
        notes.append(f"{told}: ask with --open, before the windows close")
    elif found < asked.rows:
        wider = "" if asked.still_open else ", or with --open those whose label may still come"
        notes.append(f"{found:,} predictions lack a label: ask for older ones (--since){wider}")
    if found > MOST:
        notes.append(f"of {found:,} predictions without a label, an even sample of {MOST:,} was looked at")
    return notes


def _at_most(examples: Examples, rows: int, seed: int) -> Examples:
    if len(examples) <= rows:
        return examples
    served, whole = examples.predictions, instant(0)
    return examples.take(chosen(served.id, served.at, Part(Span(whole, whole), rows), seed=seed))


def _against(installed: App, loop: Loop, asked: Asked) -> str:
    """The version whose shadow answers are compared: as asked, or the challenger of the latest trial."""
    if asked.against is not None:
        return asked.against
    with installed.database.read() as connection:
        latest = state.latest_trials(connection, loop.name, limit=1)
    if not latest:
        what = f"loop {loop.name!r} has had no trial, so no shadow has answered"
        raise BadDefinition("--by disagreement", what, "Use another query, or name a version: --against VERSION.")
    return latest[0].challenger


def _candidates(loop: Loop, found: Examples, known: Examples, other: NDArray[np.float64]) -> Candidates:
    served = found.predictions
    both = join_examples([found, known]).predictions
    space = feature_space(loop.schema, both.features, rows=len(both))
    return Candidates(served.id, served.at, served.answer, other, space[: len(found)], space[len(found) :])


def _queued(loop: Loop, found: Examples, other: NDArray[np.float64], row: int, why: str) -> Queued:
    served, types = found.predictions, [(name, kind) for name, kind, _ in loop.schema.features]
    at = instant(int(served.at[row].astype("datetime64[us]").astype(np.int64)))
    features = {name: as_told(served.features[name][row], kind) for name, kind in types if name in served.features}
    return Queued(
        str(served.id[row]), at, str(served.unit[row]), str(served.version[row] or ""), _told(loop, served.answer[row]),
        _told(loop, other[row]), why, bool(found.labels.mature[row]), features,
    )  # fmt: skip


def _told(loop: Loop, answer: Any) -> float | str | None:
    """An answer as people read it: a number, or the name of the likeliest class."""
    if np.isnan(answer).any():
        return None
    return float(answer) if not answer.ndim else loop.classes[int(np.argmax(answer))]
