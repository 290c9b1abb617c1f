"""How is code of the owner's found by its name, and who may run it?"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Collection
from hashlib import sha256
from importlib import import_module
from pathlib import Path
from typing import Any

from leaven.errors import BadDefinition, LeavenError

logger = logging.getLogger(__name__)


class UntrustedCode(LeavenError, ValueError):
    """A model is loaded by code that nobody allowed."""

    def __init__(self, function: str) -> None:
        super().__init__(function)
        self.function = function

    def __str__(self) -> str:
        return (
            f"the model is loaded by {self.function}, code that nobody allowed. If it is yours, name it wherever the "
            f"model is loaded (LEAVEN_TRUSTED_TYPES={self.function})."
        )


def imported(where: str, name: str) -> Callable[..., Any]:
    """Return the function called `name`, `"module:function"`.

    Args:
        where: The setting that names it.
        name: The function.

    Raises:
        BadDefinition: there is none.
    """
    module, _, function = name.partition(":")
    if not module or not function:
        raise BadDefinition(where, f"{name!r} is no function", 'Write it as "module:function".')
    try:
        found = getattr(import_module(module), function, None)
    except ImportError as error:
        mend = "Put the module beside the loop file; where it serves, install it or put its folder on PYTHONPATH."
        raise BadDefinition(where, f"module {module!r} cannot be imported ({error})", mend) from error
    if not callable(found):
        raise BadDefinition(where, f"module {module!r} has no function {function!r}", "Name one that it has.")
    return found  # type: ignore[no-any-return]


def code_of(name: str) -> str:
    """Return the digest of the file of a function's module, which has been imported; empty for one without a file."""
    path = getattr(sys.modules[name.partition(":")[0]], "__file__", None)
    return sha256(Path(path).read_bytes()).hexdigest() if path else ""


def allowed(where: str, name: str, *, code: str, trusted: Collection[str]) -> Callable[..., Any]:
    """Return the function by which a stored model is loaded, if it is in `trusted`.

    Args:
        where: The setting that named it.
        name: The function.
        code: What `code_of` said when the model was stored; where it says something else now, the log does too.
        trusted: What may be run.

    Raises:
        UntrustedCode: nobody allowed the function; nothing was imported.
        BadDefinition: it cannot be imported here.
    """
    if name not in trusted:
        raise UntrustedCode(name)
    found = imported(where, name)
    if code_of(name) != code:
        logger.warning("%s has changed since this version was trained; it is loaded by the code as it is", name)
    return found
