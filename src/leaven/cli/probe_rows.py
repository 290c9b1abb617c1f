"""Which rows is a server asked about, to see that it answers?"""

from __future__ import annotations

from typing import Any

import msgspec

from leaven.app import App
from leaven.errors import BadDefinition, LeavenError
from leaven.gateway.answering import Columns
from leaven.gateway.features import columns_of
from leaven.loop import Loop
from leaven.storage.rows import features_in

_LOOKED_AT = 50
_ROWS = 2  # that a server gives one answer to each shows with two


def probe_rows(installed: App, loop: Loop, given: str | None) -> tuple[Columns, int]:
    """Return rows as models take them, and how many: the one given as JSON, the newest logged, or made-up ones.

    Raises:
        BadDefinition: what is given is no row of the loop.
    """
    if given is not None:
        return _columns(loop, [_row(given)] * _ROWS)
    logged = _logged(installed, loop)
    try:
        return _columns(loop, logged or [_made_up(loop)] * _ROWS)
    except BadDefinition:
        return _columns(loop, [_made_up(loop)] * _ROWS)  # logged before the loop changed


def _columns(loop: Loop, rows: list[dict[str, Any]]) -> tuple[Columns, int]:
    sent = {
        name: ("mixed", [row.get(name) for row in rows])
        for name in loop.schema.names
        if any(row.get(name) is not None for row in rows)
    }
    try:
        columns, _ = columns_of(sent, loop.schema, len(rows))
    except LeavenError as error:
        raise BadDefinition("--row", str(error), "Give a row of the loop.") from error
    return columns, len(rows)


def _row(given: str) -> dict[str, Any]:
    try:
        row: dict[str, Any] = msgspec.json.decode(given, type=dict[str, Any])
    except msgspec.MsgspecError as error:
        raise BadDefinition("--row", str(error), 'Write JSON such as {"x": 1.5}.') from error
    return row


def _logged(installed: App, loop: Loop) -> list[dict[str, Any]]:
    """The features of the newest predictions in the lake."""
    if loop.name not in installed.lake.loops():
        return []
    kept = installed.lake.tail(loop.name, _LOOKED_AT)  # shadows' rows among them have no features
    rows = [
        {name: next((row[column] for column in columns if row[column] is not None), None)
         for name, columns in features_in(row).items()}
        for row in kept
    ]  # fmt: skip
    return [row for row in rows if any(value is not None for value in row.values())][-_ROWS:]


def _made_up(loop: Loop) -> dict[str, Any]:
    """Zeros, and the first category that the loop file names, if it names any."""
    made: dict[str, Any] = {}
    for feature in loop.features:
        if feature.default is not None:
            made[feature.name] = feature.default
        elif feature.type in ("category", "text"):
            made[feature.name] = feature.values[0] if feature.values else ("" if feature.required else None)
        else:
            made[feature.name] = False if feature.type == "bool" else 0
    return made
