"""What did people write into a file of labels, and which of it can be taken?

A row names a prediction and a value; `labelled_at` and `source` (by whom) are optional, other columns are not looked
at, so a queue that was filled in is such a file. What a label says follows from the row alone, and so does its id: a
file that is imported again adds nothing. To give a value again that another one has replaced since, say when.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import blake2b
from io import StringIO
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from leaven.duration import micros
from leaven.errors import BadDefinition
from leaven.events.labels import Happens
from leaven.events.records import FeedbackReceived
from leaven.loop import Loop
from leaven.storage.lake import Lake, parquet

if TYPE_CHECKING:
    from leaven.storage.delta import EventTable

_WORDS = {"true": 1.0, "yes": 1.0, "false": 0.0, "no": 0.0}
FORMULAS = ("=", "+", "-", "@")  # with these begins what a spreadsheet takes for a formula
_LONGEST = 200  # characters of a source

Row = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Rejected:
    """A row that was not taken; rows are counted from 1, without the header."""

    row: int
    kind: str
    content: Row


@dataclass(slots=True)
class HandLabels:
    """The labels of a file that are new, and what became of its other rows."""

    rows: int = 0
    empty: int = 0
    already: int = 0
    labels: list[FeedbackReceived] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)

    def write_rejects(self, path: Path) -> Path | None:
        """Write what was rejected to `path`, a JSON object a line, whole or not at all; None if there is nothing."""
        if not self.rejected:
            return None
        being_written = path.with_name(path.name + ".writing")
        with being_written.open("wb") as file:
            for bad in self.rejected:
                told = {"row": bad.row, "reason": bad.kind, "content": dict(bad.content)}
                file.write(msgspec.json.encode(told) + b"\n")
            file.flush()
            os.fsync(file.fileno())
        being_written.replace(path)
        return path


class _NotTaken(Exception):
    """Why a row is not taken."""


def read_labels(lake: Lake, loop: Loop, file: Path, *, source: str, now: int) -> HandLabels:
    """Return the labels in `file` that are not in the lake yet, as corrections.

    Args:
        lake: Where the loop's predictions are.
        loop: Whose label this is; `now` is when the labels arrive, and when they were given unless a row says.
        file: CSV with a header, separated by commas or semicolons.
        source: Who labelled, of rows that do not say.
        now: Microseconds since the Unix epoch.
    Raises:
        BadDefinition: the file cannot be read, or has no columns `prediction` and `value`.
    """
    rows = rows_of(file, needed=("prediction", "value"))
    served = _served(lake, loop.name, {row["prediction"] for row in rows})
    found = HandLabels(rows=len(rows))
    said: dict[str, tuple[int, float]] = {}
    for number, row in enumerate(rows, start=1):
        if not row["value"]:
            found.empty += 1
            continue
        try:
            label = _label(loop, row, served, source=source, now=now)
            earlier = said.setdefault(row["prediction"], (number, label.value or 0.0))
            if earlier[1] != label.value:
                raise _NotTaken("another row says another value of the same prediction")
        except _NotTaken as why:
            found.rejected.append(Rejected(number, str(why), row))
            continue
        if earlier[0] == number:
            found.labels.append(label)
        else:
            found.already += 1
    _leave_out_known(found, lake, loop.name)
    return found


def rows_of(file: Path, *, needed: Collection[str]) -> list[Row]:
    """Return the rows of a CSV file, cells stripped; lines without any cell left out.

    Raises:
        BadDefinition: it cannot be read, or lacks a column that is `needed`.
    """
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise BadDefinition(str(file), f"it cannot be read ({error})", "Give a CSV file in UTF-8.") from error
    head = text.partition("\n")[0]
    read = csv.DictReader(StringIO(text, newline=""), delimiter=";" if head.count(";") > head.count(",") else ",")
    columns = [name.strip() for name in read.fieldnames or []]
    for name in needed:
        if name not in columns:
            had = ", ".join(columns) or "no header"
            raise BadDefinition(str(file), f"it has no column {name!r} ({had})", "Fill in a queue: leaven label queue.")
    read.fieldnames = columns
    rows = ({name: _cell(cell or "") for name, cell in row.items() if isinstance(name, str)} for row in read)
    return [row for row in rows if any(row.values())]


def _cell(text: str) -> str:
    """A cell without what keeps a spreadsheet from taking it for a formula."""
    told = text.strip()
    return told[1:] if told[:1] == "'" and told[1:].startswith(FORMULAS) else told


def _label(loop: Loop, row: Row, served: Mapping[str, int], *, source: str, now: int) -> FeedbackReceived:
    prediction = row["prediction"]
    if prediction not in served:
        raise _NotTaken("the lake has no such prediction")
    value = _value(row["value"], event=isinstance(loop.label, Happens), classes=loop.classes)
    given = row.get("labelled_at", "")
    at = now if not given else _moment(given)
    if not served[prediction] <= at <= now:
        raise _NotTaken("it was labelled before its prediction, or in the future")
    by = row.get("source") or source
    if len(by) > _LONGEST:
        raise _NotTaken("the source is too long")
    told = f"{loop.name}\0{loop.label.name}\0{prediction}\0{value!r}\0{given}"
    name = "hand-" + blake2b(told.encode(), digest_size=16).hexdigest()
    return FeedbackReceived(loop.name, name, loop.label.name, at, now, "correction", prediction, None, value, by)


def _value(text: str, *, event: bool, classes: Sequence[str]) -> float:
    if classes:
        if text not in classes:
            raise _NotTaken("the value is none of the classes")
        return float(classes.index(text))
    try:
        value = _WORDS[text.lower()] if text.lower() in _WORDS else float(text)
    except ValueError:
        raise _NotTaken("the value is no number") from None
    if not isfinite(value):
        raise _NotTaken("the value is no number")
    if event and value not in (0, 1):
        raise _NotTaken("whether an event came is 1 or 0")
    return value


def _moment(text: str) -> int:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise _NotTaken("labelled_at is no time") from None
    if moment.tzinfo is None:
        raise _NotTaken("labelled_at has no time zone")
    return micros(moment)


def _served(lake: Lake, loop: str, ids: Collection[str]) -> dict[str, int]:
    """When each of these predictions was served live; those that there are."""
    table, found = lake.table(loop, "predictions"), dict[str, int]()
    with lake.query() as connection:
        for files, part in _asked(table, ids):
            rows = connection.execute(
                f"""SELECT id, epoch_us("at") FROM {files}
                    WHERE role = 'live' AND id IN (SELECT unnest(?::VARCHAR[]))""",  # noqa: S608
                [part],
            ).fetchall()
            found.update(rows)
    return found


def _leave_out_known(found: HandLabels, lake: Lake, loop: str) -> None:
    """Count, in place of keeping, the labels that the lake has."""
    known: set[str] = set()
    with lake.query() as connection:
        for files, part in _asked(lake.table(loop, "feedback"), [label.id for label in found.labels]):
            asked = f"SELECT id FROM {files} WHERE id IN (SELECT unnest(?::VARCHAR[]))"  # noqa: S608
            known |= {row[0] for row in connection.execute(asked, [part]).fetchall()}
    new = [label for label in found.labels if label.id not in known]
    found.already += len(found.labels) - len(new)
    found.labels = new


def _asked(table: EventTable, ids: Collection[str]) -> Iterator[tuple[str, list[str]]]:
    """The table's files as SQL, and the ids that are asked for, if there are any of both."""
    table.refresh()
    files = table.files()
    if files and ids:
        yield parquet(files), sorted(ids)
