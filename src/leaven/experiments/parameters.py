"""What can a version be that is no model: a set of parameters?

A JSON object that callers get as it is: the text of a prompt, a temperature, a threshold. It is kept in the version's
artifact, so it is promoted, rolled back and compared as any version is. Nothing of it is executed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from leaven.errors import BadDefinition

if TYPE_CHECKING:
    from leaven.training.learner import Files

FILE = "parameters.json"
MOST_BYTES = 64 * 1024  # as JSON: every reply that gives the arm carries it
MOST_DEPTH = 32  # of objects and lists in each other

ParameterSet = dict[str, Any]


def encoded(parameters: ParameterSet) -> dict[str, bytes]:
    """Return the files of a version that holds `parameters`; equal ones give equal bytes.

    Raises:
        BadDefinition: they are too large, too deep, or none.
    """
    written = msgspec.json.encode(parameters, order="deterministic")
    read_parameters(written, where="parameters")
    return {FILE: written}


def decoded(files: Files) -> tuple[ParameterSet, bytes]:
    """Return the parameters of a version's files, and the JSON that says the same.

    Raises:
        BadDefinition: there are none in `files`, or they are damaged.
    """
    if FILE not in files:
        raise BadDefinition(FILE, "it is not among the version's files", "Register the parameters again.")
    written = bytes(files[FILE])
    return read_parameters(written, where=FILE), written


def read_parameters(written: bytes, *, where: str) -> ParameterSet:
    """Return the parameters that a text in JSON holds.

    Raises:
        BadDefinition: it is no JSON object, empty, too large or too deep.
    """
    if len(written) > MOST_BYTES:
        what = f"{len(written)} bytes are more than {MOST_BYTES}"
        raise BadDefinition(where, what, "Keep large texts elsewhere, and name them in the parameters.")
    try:
        found = msgspec.json.decode(written, type=ParameterSet)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise BadDefinition(where, f"it is no JSON object ({error})", 'Write one: {"prompt": "…"}.') from None
    if not found:
        raise BadDefinition(where, "it holds no parameter", 'Write at least one: {"prompt": "…"}.')
    if _depth(found) > MOST_DEPTH:
        raise BadDefinition(where, f"it is nested more than {MOST_DEPTH} deep", "Make it flatter.")
    return found


def _depth(value: Any) -> int:
    if isinstance(value, dict | list):
        inner = value.values() if isinstance(value, dict) else value
        return 1 + max(map(_depth, inner), default=0)
    return 0
