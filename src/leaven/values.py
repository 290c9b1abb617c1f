"""How does a value of the loop file check itself and print as it was written?"""

from __future__ import annotations

import ast
import math
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, dataclass, fields
from typing import Any, TypeVar, dataclass_transform

from leaven.errors import BadDefinition

T = TypeVar("T")


@dataclass_transform(frozen_default=True)
def value(cls: type[T]) -> type[T]:
    """Make `cls` a frozen dataclass whose `repr` is the expression that makes it again.

    Fields print by position up to the first one left at its default, later ones by name, so
    `eval(repr(v)) == v` and `repr(v)` is stable enough to digest.
    """
    own_repr = cls.__dict__.get("__repr__")
    made = dataclass(frozen=True, repr=False)(cls)
    if own_repr is None:
        made.__repr__ = as_written  # type: ignore[method-assign]
    return made


def as_written(self: Any) -> str:
    """Return the constructor call that makes `self`, without the arguments that are at their defaults."""
    parts: list[str] = []
    by_name = False
    for field in fields(self):
        given = getattr(self, field.name)
        if _at_default(field, given):
            by_name = True
        elif by_name or field.kw_only:
            parts.append(f"{field.name}={written(given)}")
        else:
            parts.append(written(given))
    return f"{type(self).__name__}({', '.join(parts)})"


def _at_default(field: Field[Any], given: object) -> bool:
    if field.default is not MISSING:
        return bool(given == field.default)
    factory: Callable[[], object] | Any = field.default_factory
    return factory is not MISSING and bool(given == factory())


def written(given: object) -> str:
    """Return the literal, or the constructor call, that makes `given`."""
    # Sequences are kept as tuples but written as lists in a loop file.
    if isinstance(given, tuple | list):
        return f"[{', '.join(written(item) for item in given)}]"
    if isinstance(given, float) and math.isinf(given):
        return "1e999" if given > 0 else "-1e999"  # `inf` is a name, not a literal
    return (
        f'"{given}"' if isinstance(given, str) and given.isprintable() and not set(given) & {'"', "\\"} else repr(given)
    )


def from_written(text: str, makers: Mapping[str, Callable[..., Any]]) -> Any:
    """Return the value whose `repr` is `text`, made by one of `makers`; nothing but literals and their calls is run.

    Raises:
        BadDefinition: the text is anything else.
    """
    try:
        return _made(ast.parse(text, mode="eval").body, makers)
    except (SyntaxError, ValueError, KeyError, TypeError) as error:
        raise BadDefinition(repr(text), "it is no written value", f"Known are {', '.join(makers)}.") from error


def _made(node: ast.expr, makers: Mapping[str, Callable[..., Any]]) -> Any:
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        arguments = [_made(argument, makers) for argument in node.args]
        named = {str(keyword.arg): _made(keyword.value, makers) for keyword in node.keywords}
        return makers[node.func.id](*arguments, **named)
    if isinstance(node, ast.List | ast.Tuple):
        return [_made(item, makers) for item in node.elts]
    return ast.literal_eval(node)
