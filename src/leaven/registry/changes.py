"""May this definition of a loop take the place of the one before?

Nearly always. Features may come, go and change their type: rows that were logged before stay readable, and versions
that were made before get what they were made for (`leaven.controller.promotion`). A trial under which label, unit or
rollout were edited is ended by the controller. What nothing can make good is another kind of answer while a version
serves: the champion's answers, and all that was learnt from them, would be read as what they are not.
"""

from __future__ import annotations

import ast

from sqlalchemy import Connection, select

from leaven.errors import BadDefinition
from leaven.loop import Feature, FeatureType, Loop
from leaven.storage.control.schema import aliases
from leaven.values import from_written

Features = tuple[tuple[str, FeatureType], ...]  # name and type


class ChangeRefused(BadDefinition):
    """A loop's new definition cannot take the place of the registered one; that one stands."""


def check_change(connection: Connection, loop: Loop, *, task_before: str, before: str) -> None:
    """Refuse a definition that cannot take the place of a registered one.

    Args:
        connection: To the control database, in the transaction that is to register it.
        loop: The new definition.
        task_before: What the registered definition's label is.
        before: The registered definition as written.
    Raises:
        ChangeRefused: it answers another kind of question, or a model takes the place of parameters (or the other way
            round), and a version of the old kind serves.
    """
    champion = connection.execute(
        select(aliases.c.version).where(aliases.c.loop == loop.name, aliases.c.alias == "champion")
    ).scalar()
    if champion is not None and loop.of_parameters != _of_parameters(before):
        is_now, was = ("parameters", "a model") if loop.of_parameters else ("a model", "parameters")
        raise ChangeRefused(
            f"Loop({loop.name!r}), learner={loop.learner!r}",
            f"its versions would be {is_now}, and version {champion}, which serves, is {was}; the registered "
            "definition stands",
            "Give the new loop a name of its own.",
        )
    if champion is None or loop.label.task == task_before:
        return
    raise ChangeRefused(
        f"Loop({loop.name!r}), label={loop.label!r}",
        f"it makes the answer a {loop.label.task} one, and version {champion}, which serves, gives {task_before} ones; "
        "the registered definition stands",
        f"Give the loop with the new label a name of its own (import its history with `leaven events import`), or go "
        f"back to a {task_before} label.",
    )


def _of_parameters(definition: str) -> bool:
    """Whether the versions of a definition as it is registered are sets of parameters."""
    learner = next((ast.unparse(each.value) for each in _arguments(definition) if each.arg == "learner"), "")
    return learner == "Parameters()"


def _arguments(definition: str) -> list[ast.keyword]:
    call = ast.parse(definition, mode="eval").body
    return call.keywords if isinstance(call, ast.Call) else []


def features_of(definition: str) -> Features:
    """Return the features of a definition as it is registered, in order."""
    listed = [
        element
        for keyword in _arguments(definition)
        if keyword.arg == "features" and isinstance(keyword.value, ast.List)
        for element in keyword.value.elts
    ]
    made = [from_written(ast.get_source_segment(definition, each) or "", {"Feature": Feature}) for each in listed]
    return tuple((feature.name, feature.type) for feature in made)
