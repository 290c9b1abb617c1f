"""What is sent to the gateway for a prediction, an assignment, or feedback?

Arguments in, requests out; what cannot be sent is refused here, before anything has been.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from math import isfinite
from typing import Any, Literal, TypeVar
from urllib.parse import quote, urlsplit

import msgspec

from leaven.client.errors import BadCall
from leaven.client.http1 import Request
from leaven.duration import micros

T = TypeVar("T")
Kind = Literal["label", "event", "correction"]
PART = 1_000  # reports or rows per request; the gateway takes ten times as many
_JSON = ("content-type", "application/json")


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """Something that came back about a prediction, or about a unit.

    Args:
        name: What was observed, as the loop file names it.
        prediction_id: The prediction it is about; or
        unit: whom it is about, then the latest prediction of that unit before `at`.
        value: The number that was observed, finite, or the name of a class; None for an event.
        kind: `label`, `event`, or `correction` (a person's word, wins over all).
        at: When it happened, aware; None for now.
        id: A name of its own: however often it is sent, it counts once. None for a fresh one.
        source: Who says so.
    """

    name: str
    prediction_id: str | None = None
    unit: str | None = None
    value: float | str | None = None
    kind: Kind = "label"
    at: datetime | None = None
    id: str | None = None
    source: str = ""


class SentReport(msgspec.Struct, frozen=True, omit_defaults=True):
    """A report as the gateway reads it and the spool keeps it; `at` in microseconds since 1970."""

    loop: str
    id: str
    name: str
    prediction_id: str | None = None
    unit: str | None = None
    value: float | str | None = None
    kind: Kind = "label"
    at: int | None = None
    source: str = ""


def sent_report(loop: str, report: Report, *, where: str, fresh_id: str) -> SentReport:
    """Return `report` about `loop` as it is sent, under its own id or else `fresh_id`.

    Raises:
        BadCall: the gateway would refuse it.
    """
    if not report.prediction_id and not report.unit:
        raise BadCall(f"{where}.prediction_id", "it names neither a prediction nor a unit",
                      "Give the id of the prediction, or the unit.")  # fmt: skip
    if not report.name:
        raise BadCall(f"{where}.name", "it is empty", "Name what was observed, as the loop file does.")
    value = report.value if isinstance(report.value, str | None) else _number(report.value, f"{where}.value")
    if report.at is not None and report.at.tzinfo is None:
        raise BadCall(f"{where}.at", f"{report.at} has no time zone", "Give an aware time: datetime.now(UTC).")
    at = None if report.at is None else micros(report.at)
    return SentReport(loop, report.id or fresh_id, report.name, report.prediction_id or None, report.unit or None,
                      value, report.kind, at, report.source)  # fmt: skip


def _number(value: Any, where: str) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise BadCall(where, f"{value!r} is no number", "Give a number, True or False, or None.") from None
    if not isfinite(number):
        raise BadCall(where, f"{number} is not finite", "Give a number, or None.")
    return number


def feedback_request(reports: Sequence[SentReport]) -> Request:
    """Return the request that delivers `reports`; their ids make it safe to send twice."""
    return Request("POST", "/v1/feedback", encode({"feedback": reports}, "feedback"), (_JSON,))


def parts_of(many: Sequence[T]) -> Iterator[Sequence[T]]:
    """Yield `many` in order, in parts that the gateway takes at once."""
    for start in range(0, len(many), PART):
        yield many[start : start + PART]


def predict_requests(
    loop: str, rows: Sequence[Mapping[str, Any]], units: Sequence[str | None] | None, key: str
) -> list[tuple[Request, int]]:
    """Return the requests for predictions for `rows`, each with its number of rows; keys make them safe to send twice.

    Raises:
        BadCall: there is not one unit per row, a value is nothing that JSON can say, or the key is no header.
    """
    header_text(key, "key")
    units = [None] * len(rows) if units is None else units
    if len(units) != len(rows):
        raise BadCall("units", f"{len(units)} units for {len(rows)} rows", "Give one per row.")
    parts = list(zip(parts_of(rows), parts_of(units), strict=True))
    keys = [key] if len(parts) == 1 else [f"{key}-{index}" for index in range(len(parts))]
    return [(_predict_request(loop, *part, key), len(part[0])) for part, key in zip(parts, keys, strict=True)]


def _predict_request(loop: str, rows: Sequence[Mapping[str, Any]], units: Sequence[str | None], key: str) -> Request:
    body: dict[str, Any] = {"rows": rows}
    if any(unit is not None for unit in units):
        body |= {"unit": units[0]} if len(units) == 1 else {"units": units}
    path = f"/v1/models/{quote(loop, safe='')}/predict"
    return Request("POST", path, encode(body, "rows"), (_JSON, ("idempotency-key", key)))


def assign_request(loop: str, unit: str, *, context: Mapping[str, Any] | None = None, expose: bool = True) -> Request:
    """Return the request for the arm of `unit`; an exposure has the same id each time, so it is safe to send twice.

    Raises:
        BadCall: there is no unit, or it or the context is nothing that JSON can say.
    """
    if not unit:
        raise BadCall("unit", "it is empty, and everybody without a name would be one unit", "Name the unit.")
    body: dict[str, Any] = {"loop": loop, "unit": unit}
    if context:
        body["context"] = context
    if not expose:
        body["expose"] = False
    return Request("POST", "/v1/assign", encode(body, "context" if context else "unit"), (_JSON,))


def encode(content: Any, where: str) -> bytes:
    """Return `content` as JSON; NumPy's numbers are written as numbers, NaN and infinities as null.

    Raises:
        BadCall: it holds something that JSON cannot say.
    """
    try:
        return _encoder.encode(content)
    except (TypeError, ValueError, OverflowError, UnicodeEncodeError) as error:
        raise BadCall(where, str(error), "Send text, numbers, true or false, or None.") from None


def _plain(value: Any) -> Any:
    """What msgspec does not know: a scalar of NumPy or of a table library says what it is in Python."""
    item = getattr(value, "item", None)
    if callable(item) and getattr(value, "ndim", 0) == 0:
        return item()
    raise TypeError(f"{value!r} is of type {type(value).__name__}")


_encoder = msgspec.json.Encoder(enc_hook=_plain, decimal_format="number")


def header_text(text: str, where: str) -> str:
    """Return `text` if a header can carry it.

    Raises:
        BadCall: it is empty, or holds other than printable ASCII.
    """
    if not text or not (text.isascii() and text.isprintable()) or text != text.strip():
        raise BadCall(where, "it is not printable ASCII", "Give letters, digits and signs, without line ends.")
    return text


class Address(msgspec.Struct, frozen=True):
    """Where a gateway listens."""

    url: str
    secure: bool
    host: str  # as connections take it
    port: int
    authority: str  # as the Host header says it
    prefix: str  # what stands before every path


def address_of(url: str) -> Address:
    """Return the parts of a gateway's `url`, `http[s]://HOST[:PORT][/PREFIX]`.

    Raises:
        BadCall: it is no such URL.
    """
    mend = 'Write "http://HOST:PORT" or "https://HOST".'
    try:
        found = urlsplit(url)
        host, port = found.hostname, found.port
    except ValueError as error:
        raise BadCall("url", f"{url!r}: {error}", mend) from None
    if found.scheme not in ("http", "https") or not host or found.query or found.fragment:
        raise BadCall("url", f"{url!r} is no address of a gateway", mend)
    if found.username is not None:
        raise BadCall("url", "it carries a user name", "Give a token: Client(url, token=…).")
    prefix = found.path.rstrip("/")
    if not url.isascii() or not url.isprintable() or " " in url:
        raise BadCall("url", f"{url!r} is not plain ASCII", mend)
    secure = found.scheme == "https"
    return Address(url, secure, host, port or (443 if secure else 80), found.netloc, prefix)
