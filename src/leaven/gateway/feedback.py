"""What has come back, as a caller reports it?

One report, or `{"feedback": [...]}`. A report names the loop, what was observed, and the prediction or the unit that it
speaks of. One bad report refuses them all, so that a caller who is told 200 knows that everything is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from datetime import datetime
from math import isfinite
from typing import Any

import msgspec

from leaven.duration import micros
from leaven.events.records import FeedbackKind, FeedbackReceived
from leaven.gateway.protocol import decode_json
from leaven.gateway.refusals import BadRequest, shown
from leaven.gateway.rows import MAX_TEXT

MAX_REPORTS = 10_000
# Where a time given as a number stops being plausible as microseconds: 1971 to 2200. Seconds and milliseconds of
# today lie below, nanoseconds above.
_EARLIEST, _LATEST = 31_536_000_000_000, 7_258_118_400_000_000


class _Report(msgspec.Struct):
    name: str
    loop: str | None = None
    model: str | None = None
    prediction_id: str | None = None
    unit: str | None = None
    value: float | bool | str | None = None
    kind: FeedbackKind = "label"
    at: str | int | None = None
    id: str | None = None
    source: str = ""


_decoder = msgspec.json.Decoder()


def read_feedback(
    body: bytes,
    *,
    loops: Collection[str],
    now: int,
    new_id: Callable[[], str],
    classes: Callable[[str], Sequence[str]] = lambda loop: (),
) -> list[FeedbackReceived]:
    """Return the reports in `body`, in order.

    Args:
        body: JSON, an object or `{"feedback": [objects]}`.
        loops: The loops that are served here.
        now: Time of receipt, microseconds since the Unix epoch; also when it happened, where a report does not say.
        new_id: Makes an id for a report that has none.
        classes: Tells the classes of a loop's label; a value may name one of them.
    Raises:
        BadRequest: a report is not one; the text names its index and field.
    """
    sent = decode_json(_decoder.decode, body)
    reports = sent["feedback"] if isinstance(sent, dict) and "feedback" in sent else [sent]
    if not isinstance(reports, list) or not reports:
        raise BadRequest("feedback", "it is no list of reports", 'Send one object, or {"feedback": [object, ...]}.')
    if len(reports) > MAX_REPORTS:
        raise BadRequest("feedback", f"{len(reports)} reports are more than {MAX_REPORTS}", "Send them in parts.")
    return [_read(report, f"feedback[{index}]", loops, now, new_id, classes) for index, report in enumerate(reports)]


def _read(
    sent: Any, where: str, loops: Collection[str], now: int, new_id: Callable[[], str],
    classes: Callable[[str], Sequence[str]],
) -> FeedbackReceived:  # fmt: skip
    try:
        report = msgspec.convert(sent, _Report)
    except msgspec.ValidationError as error:
        raise BadRequest(where, str(error), "Send name, loop, value, and prediction_id or unit.") from None
    loop = report.loop if report.loop is not None else report.model
    if loop is None or loop not in loops:
        raise BadRequest(f"{where}.loop", f"no loop {shown(loop)} is served here",
                         f"Name one of {', '.join(sorted(loops)) or 'them; there is none yet'}.")  # fmt: skip
    if not report.prediction_id and not report.unit:
        raise BadRequest(f"{where}.prediction_id", "it names neither a prediction nor a unit",
                         "Send the prediction_id that the reply carried, or the unit.")  # fmt: skip
    if not report.name:
        raise BadRequest(f"{where}.name", "it is empty", "Name what was observed, as the loop file does.")
    _check_lengths(report, where)
    value = _place(report.value, f"{where}.value", classes(loop)) if isinstance(report.value, str) else report.value
    if value is not None and not isfinite(value):
        raise BadRequest(f"{where}.value", f"{value} is not finite", "Send a number, or null.")
    return FeedbackReceived(
        loop, report.id or new_id(), report.name, _moment(report.at, f"{where}.at", now), now, report.kind,
        report.prediction_id or None, report.unit or None,
        None if value is None else float(value), report.source,
    )  # fmt: skip


def _place(name: str, where: str, classes: Sequence[str]) -> int:
    """The label that a class's name stands for."""
    if not classes:
        raise BadRequest(where, f"{shown(name)} is no number", "Send a number, true or false, or null.")
    if name not in classes:
        known = ", ".join(classes[:20]) + (", …" if len(classes) > 20 else "")
        raise BadRequest(where, f"there is no class {shown(name)}", f"Send one of {known}.")
    return classes.index(name)


def _check_lengths(report: _Report, where: str) -> None:
    for field in ("id", "name", "prediction_id", "unit", "source"):
        text = getattr(report, field)
        # A row's id is the request's id and a row number, so it may be a little longer than a name.
        if text is not None and len(text) > MAX_TEXT + 16:
            raise BadRequest(f"{where}.{field}", f"it has {len(text)} characters", f"Send at most {MAX_TEXT}.")


def _moment(at: str | int | None, where: str, now: int) -> int:
    """The time of a report, in microseconds since the Unix epoch."""
    if at is None:
        return now
    if isinstance(at, str):
        try:
            moment = msgspec.convert(at, datetime)
        except msgspec.ValidationError:
            moment = None
        if moment is None or moment.tzinfo is None:
            raise BadRequest(where, f"{shown(at)} is no RFC 3339 time with an offset", 'Write "2013-01-31T23:59:00Z".')
        at = micros(moment)
    if not _EARLIEST <= at <= _LATEST:
        raise BadRequest(where, f"{at} is no time between 1971 and 2200",
                         "Send microseconds since 1970 as a number, or RFC 3339 as a string.")  # fmt: skip
    return at
