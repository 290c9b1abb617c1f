"""What does a definition say, part by part, and in which parts do two differ?"""

from __future__ import annotations

import ast


def written_parts(definition: str | None) -> dict[str, str]:
    """Return the arguments of a definition as they are written, by name; the items of a list one by one.

    `Loop("a", unit="u", gates=[Sane()])` gives `{"unit": '"u"', "gates\\0Sane()": "Sane()"}`: an item that both
    versions have is the same however the list around it changed.
    """
    if definition is None:
        return {}
    call = ast.parse(definition, mode="eval").body
    if not isinstance(call, ast.Call):
        return {"definition": definition}
    parts: dict[str, str] = {}
    for keyword in call.keywords:
        if isinstance(keyword.value, ast.List):
            items = [ast.get_source_segment(definition, item) or "" for item in keyword.value.elts]
            parts |= {f"{keyword.arg}\0{item}": item for item in items}
        else:
            parts[str(keyword.arg)] = ast.get_source_segment(definition, keyword.value) or ""
    return parts


def part_of(name: str) -> str:
    """Return which argument a name of `written_parts` belongs to."""
    return name.partition("\0")[0]


def changed_parts(before: str, after: str) -> tuple[str, ...]:
    """Return the names of the arguments in which two definitions differ, in alphabetical order.

    A learner that is made by the same calls with other settings is a change of `parameters`, not of `learner`.
    """
    old, new = written_parts(before), written_parts(after)
    names = {part_of(name) for name in [*old, *new] if old.get(name) != new.get(name)}
    if "learner" in names and _calls(old.get("learner", "")) == _calls(new.get("learner", "")):
        names = names - {"learner"} | {"parameters"}
    return tuple(sorted(names))


def _calls(expression: str) -> list[str]:
    """What an expression calls, in its order: the kinds of things it is made of."""
    if not expression:
        return []
    calls = [node for node in ast.walk(ast.parse(expression, mode="eval")) if isinstance(node, ast.Call)]
    return [ast.unparse(call.func) for call in calls]
