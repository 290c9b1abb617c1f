"""How does a process say what happens in it, to people and to programs?

Every long-running process writes one line per event to standard error: for people, or as JSON (`LEAVEN_LOG=json`) with
the members `time`, `level`, `part`, `pid`, `message`, and those that the event has of its own. What an event has of its
own is given as `extra=about(…)`; for people it stands behind the message.
"""

from __future__ import annotations

import logging
import os
import sys
from datetime import UTC, datetime
from typing import IO, Any

import msgspec

from leaven.settings import Form

_ABOUT = "leaven_about"
_QUIET = ("dbos", "alembic", "sqlalchemy", "uvicorn.error", "asyncio")  # they say what only their authors need


def about(**facts: object) -> dict[str, dict[str, object]]:
    """Return the facts of an event for `extra=`; those that are None are left out."""
    return {_ABOUT: {name: fact for name, fact in facts.items() if fact is not None}}


def begin_logging(part: str, *, form: Form, level: str = "info", to: IO[str] | None = None) -> None:
    """Let everything that this process logs, warnings too, go to standard error (or `to`), a line each.

    Args:
        part: What this process is: gateway, flusher, controller, up.
        form: For people, or for programs.
        level: The least that is said, of `leaven.settings.LEVELS`.
        to: Another stream.
    """
    handler = logging.StreamHandler(to or sys.stderr)
    handler.setFormatter(_Json(part) if form == "json" else _Text(part))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    logging.captureWarnings(True)
    for noisy in _QUIET:
        logging.getLogger(noisy).setLevel(logging.WARNING)


class _Text(logging.Formatter):
    """`2026-03-01 12:00:00.123 INFO gateway[4711]: message key=value`."""

    def __init__(self, part: str) -> None:
        super().__init__()
        self._who = f"{part}[{os.getpid()}]"

    def format(self, record: logging.LogRecord) -> str:
        facts = "".join(f" {name}={_plainly(fact)}" for name, fact in _facts(record).items())
        trace = "".join(f"\n{each}" for each in _traces(self, record))
        when = f"{_when(record):%Y-%m-%d %H:%M:%S}.{int(record.msecs):03d}"
        return f"{when} {record.levelname} {self._who}: {_said(record)}{facts}{trace}"


class _Json(logging.Formatter):
    """One JSON object, on one line whatever the message holds."""

    def __init__(self, part: str) -> None:
        super().__init__()
        self._part, self._pid = part, os.getpid()

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": _when(record).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "part": self._part,
            "pid": self._pid,
            "logger": record.name,
            "message": _said(record),
        }
        line |= {name: fact for name, fact in _facts(record).items() if name not in line}
        traces = _traces(self, record)
        if traces:
            line["trace"] = "\n".join(traces)
        return msgspec.json.encode(line, enc_hook=str).decode("utf-8", "replace")


def _when(record: logging.LogRecord) -> datetime:
    return datetime.fromtimestamp(record.created, UTC)


def _said(record: logging.LogRecord) -> str:
    # What a caller sent may be half a surrogate pair, which no stream takes.
    return record.getMessage().encode("utf-8", "backslashreplace").decode()


def _facts(record: logging.LogRecord) -> dict[str, Any]:
    facts: dict[str, Any] = getattr(record, _ABOUT, {})
    return facts


def _plainly(fact: object) -> str:
    """A fact on one line, quoted where it would not be seen where it ends."""
    text = f"{fact:.6g}" if isinstance(fact, float) else str(fact)
    return text if text.isprintable() and text and not set(text) & set(' "=') else msgspec.json.encode(text).decode()


def _traces(formatter: logging.Formatter, record: logging.LogRecord) -> list[str]:
    traces = [formatter.formatException(record.exc_info)] if record.exc_info else []
    return [*traces, formatter.formatStack(record.stack_info)] if record.stack_info else traces
