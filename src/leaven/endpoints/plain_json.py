"""How are rows put to a server that takes and gives JSON of its own form?

The request is a template: JSON in which one object with a single key stands for the rows. The answer is at a JSON
pointer (RFC 6901), in which `*` stands for the place of a row.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from leaven.endpoints.failures import EndpointFailed
from leaven.endpoints.numbers import numbers, per_row
from leaven.errors import BadDefinition

Features = tuple[tuple[str, str], ...]  # name and type
_MANY, _ONE = ("$rows", "$column"), ("$row", "$value")
_encode = msgspec.json.Encoder().encode
_HOLDERS = (
    '{"$rows": "objects"}, {"$rows": "lists"} or {"$column": FEATURE} for many rows, {"$row": "object"}, '
    '{"$row": "list"} or {"$value": FEATURE} for one'
)


class JsonMapping(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="protocol", tag="json"):
    """Rows as JSON by a template, and the answer at a pointer.

    Args:
        request: The template. For many rows: `{"$rows": "objects"}` becomes a list of objects by feature, `{"$rows":
            "lists"}` a list of lists, `{"$column": "name"}` the list of one feature's values. For servers that take one
            row at a time: `{"$row": "object"}`, `{"$row": "list"}`, `{"$value": "name"}`.
        answer: Pointer to the numbers, such as `/predictions/*/score`; "" is the reply itself.
        features: Name and type of those that are sent, in this order.
        column: Which number per row is the answer, from 0, where the pointer leads to several.
    """

    request: Any
    answer: str
    features: Features
    column: int | None = None

    def __post_init__(self) -> None:
        found = list(_holders(self.request))
        kinds = {"one" if next(iter(each)) in _ONE else "many" for each in found}
        if len(kinds) != 1:
            raise BadDefinition("request", "nothing in it stands for rows, or both for one and for many",
                                f"Put in {_HOLDERS}.")  # fmt: skip
        names = {name for name, _ in self.features}
        for each in found:
            (key, said), *_ = each.items()
            known = names if key in ("$column", "$value") else _FORMS[key]
            if said not in known:
                raise BadDefinition("request", f"{each!r} stands for nothing", f"Use {_HOLDERS}.")
        if (self.answer and not self.answer.startswith("/")) or self.answer.split("/").count("*") > 1:
            raise BadDefinition("answer", f"{self.answer!r} is no pointer", "Write one such as /predictions/*/score.")

    @property
    def single(self) -> bool:
        """Whether a request is for one row."""
        return any(next(iter(each)) in _ONE for each in _holders(self.request))

    target = ""  # the endpoint's own address

    def body(self, columns: Mapping[str, NDArray[Any]], rows: int) -> tuple[bytes, None]:
        """Return the request for `rows` rows."""
        values = {name: _values(kind, columns.get(name), rows) for name, kind in self.features}
        return _encode(_filled(self.request, values, rows)), None

    def answers(self, body: bytes, json_length: str | None, rows: int) -> NDArray[np.float64]:
        """Return what a reply answers to `rows` rows.

        Raises:
            EndpointFailed: it is no such reply.
        """
        try:
            reply = msgspec.json.decode(body)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise EndpointFailed("no answer", f"answered what is no JSON: {error}"[:300]) from None
        what = f"its reply at {self.answer!r}"
        found = _at(reply, self.answer.split("/")[1:], what)
        by_row = not self.single or "*" in self.answer
        if by_row and (not isinstance(found, list) or len(found) != rows):
            count = len(found) if isinstance(found, list) else "no list of"
            raise EndpointFailed("no answer", f"answered {count} values to {rows} rows in {what}")
        return per_row(numbers(found, what=what), rows, self.column, what=what)


_FORMS: Mapping[str, tuple[str, ...]] = {"$rows": ("objects", "lists"), "$row": ("object", "list")}


def _holders(template: Any) -> Iterator[dict[str, Any]]:
    """The objects of a template that stand for rows."""
    if isinstance(template, dict):
        if len(template) == 1 and next(iter(template)) in (*_MANY, *_ONE):
            yield template
            return
        for value in template.values():
            yield from _holders(value)
    elif isinstance(template, list):
        for value in template:
            yield from _holders(value)


def _filled(template: Any, values: Mapping[str, list[Any]], rows: int) -> Any:
    if isinstance(template, list):
        return [_filled(part, values, rows) for part in template]
    if not isinstance(template, dict):
        return template
    if len(template) == 1:
        key, said = next(iter(template.items()))
        if key in ("$column", "$value"):
            return values[said] if key == "$column" else values[said][0]
        if key in ("$rows", "$row"):
            by_row = list(zip(*values.values(), strict=True)) if values else [()] * rows
            made = by_row if said.startswith("list") else [dict(zip(values, row, strict=True)) for row in by_row]
            return made if key == "$rows" else made[0]
    return {key: _filled(part, values, rows) for key, part in template.items()}


def _values(kind: str, column: NDArray[Any] | None, rows: int) -> list[Any]:
    """A feature's values as JSON has them; what is missing is null."""
    if column is None:
        return [None] * rows
    listed = [None if value is None or value != value else value for value in column.tolist()]
    if kind in ("int", "bool"):
        convert = int if kind == "int" else bool
        return [None if value is None else convert(value) for value in listed]
    return listed


def _at(reply: Any, tokens: list[str], what: str) -> Any:
    """What a pointer leads to; the list of what it leads to in each row, from a `*` on."""
    for place, token in enumerate(tokens):
        if token == "*":  # noqa: S105 - a pointer's, not a secret
            if not isinstance(reply, list):
                raise EndpointFailed("no answer", f"answered no list at * of {what}")
            return [_at(part, tokens[place + 1 :], what) for part in reply]
        reply = _step(reply, token.replace("~1", "/").replace("~0", "~"), what)
    return reply


def _step(reply: Any, token: str, what: str) -> Any:
    if isinstance(reply, dict) and token in reply:
        return reply[token]
    if isinstance(reply, list) and token.isdigit() and int(token[:9]) < len(reply):
        return reply[int(token[:9])]
    raise EndpointFailed("no answer", f"answered nothing at {token!r} of {what}")
