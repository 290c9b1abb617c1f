"""Which moment did the user write?"""

from __future__ import annotations

from datetime import UTC, datetime

from leaven.errors import BadDefinition


def moment_from(text: str, *, where: str) -> datetime:
    """Return the moment that an ISO 8601 date, with or without a time, names; UTC where it says nothing else.

    Raises:
        BadDefinition: the text is no date.
    """
    try:
        given = datetime.fromisoformat(text)
    except ValueError as error:
        raise BadDefinition(where, f"{text!r} is no date", "Write it as 2013-03-01, or 2013-03-01T12:00.") from error
    return given if given.tzinfo is not None else given.replace(tzinfo=UTC)
