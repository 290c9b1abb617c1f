"""How does the reference learn what a value's constructor takes?

`leaven.values.value` and msgspec's structs make constructors from fields, as dataclasses do; Griffe, which reads the
source without running it, knows only the latter.
"""

from __future__ import annotations

from typing import Any

import griffe

DATACLASS = griffe.ExprName("dataclasses.dataclass")
MAKERS = ("leaven.values.value",)
BASES = ("msgspec.Struct",)


class Values(griffe.Extension):
    """Shows values and structs to Griffe as the dataclasses that they resemble."""

    def on_class_members(self, *, cls: griffe.Class, **_: Any) -> None:
        """Mark the class, once all of it has been read."""
        for decorator in cls.decorators:
            if path_of(decorator.value) in MAKERS:
                decorator.value = DATACLASS
        if any(path_of(base) in BASES for base in cls.bases):
            cls.decorators.append(griffe.Decorator(DATACLASS, lineno=cls.lineno, endlineno=cls.lineno))


def path_of(expression: str | griffe.Expr) -> str:
    """Return the full name that an expression stands for."""
    return expression if isinstance(expression, str) else expression.canonical_path
