"""How does a command look at the control database, and show what it finds?"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection

from leaven.duration import instant
from leaven.registry.decisions import Decision
from leaven.registry.versions import VersionRecord
from leaven.settings import settings_from
from leaven.storage.control.database import ControlDatabase


@contextmanager
def reading(home: Path | None) -> Iterator[Connection]:
    """Open the installation's control database to look at one moment of it.

    Raises:
        DatabaseUnavailable: there is none, or it cannot be read.
        DatabaseNewer: a newer Leaven made it.
    """
    database = _opened(home)
    try:
        with database.read() as connection:
            yield connection
    finally:
        database.dispose()


@contextmanager
def writing(home: Path | None) -> Iterator[Connection]:
    """Open the installation's control database for one change; raises as `reading` does."""
    database = _opened(home)
    try:
        with database.write() as connection:
            yield connection
    finally:
        database.dispose()


def _opened(home: Path | None) -> ControlDatabase:
    database = ControlDatabase(settings_from(home=home).database)
    database.check()
    return database


def moment(micros: int | None, *, none: str = "") -> str:
    """Return a time as people read it, in UTC and to the second."""
    return none if micros is None else f"{instant(micros):%Y-%m-%d %H:%M:%S}"


def cause_of(version: VersionRecord) -> str:
    """Return why the version was made, in words; empty where nobody said."""
    cause = version.lineage.get("cause")
    return str(cause.get("why") or cause.get("trigger") or "") if isinstance(cause, dict) else ""


def metrics_of(decisions: list[Decision]) -> dict[str, dict[str, Any]]:
    """Return what the gates measured of a version on fresh rows: an interval per metric, from its last judgement."""
    judged = [decision.evidence["fresh"] for decision in decisions if "fresh" in decision.evidence]
    return dict(judged[-1]) if judged else {}


def measured(interval: dict[str, Any] | None) -> str:
    """Return an interval as text: the estimate and its bounds, where they are known."""
    if not interval or interval.get("estimate") is None:
        return "unknown"
    bounds = [interval.get("low"), interval.get("high")]
    estimate = f"{interval['estimate']:.4f}"
    return estimate if None in bounds else f"{estimate} ({bounds[0]:.4f} to {bounds[1]:.4f})"
