"""Is a learner's setting a number that it can mean, and how many threads are worth while?"""

from __future__ import annotations

import os

from leaven.errors import BadDefinition
from leaven.training.encoding import Matrix

_VALUES_PER_THREAD = 2_000_000


def check_count(where: str, given: object, *, least: int) -> None:
    """Refuse what is no whole number of `least` or more.

    Raises:
        BadDefinition: it is none; `where` names the setting.
    """
    if not isinstance(given, int) or isinstance(given, bool) or given < least:
        raise BadDefinition(where, f"{given!r} is no count", f"Use a whole number, {least} or more.")


def check_share(where: str, given: object, *, zero: bool = False) -> None:
    """Refuse what is no number of (0, 1], or of [0, 1] where it may be `zero`.

    Raises:
        BadDefinition: it is none; `where` names the setting.
    """
    if not _is_number(given) or not 0 <= given <= 1 or (given == 0 and not zero):  # type: ignore[operator]
        span = "from 0 to 1" if zero else "above 0, up to 1"
        raise BadDefinition(where, f"{given!r} is no share", f"Use a number {span}.")


def check_weight(where: str, given: object) -> None:
    """Refuse what is no finite number of 0 or more.

    Raises:
        BadDefinition: it is none; `where` names the setting.
    """
    if not _is_number(given) or not 0 <= given < float("inf"):  # type: ignore[operator]
        raise BadDefinition(where, f"{given!r} is no weight", "Use a number, 0 or more.")


def check_choice(where: str, given: object, choices: tuple[str, ...]) -> None:
    """Refuse what is none of `choices`.

    Raises:
        BadDefinition: it is none; `where` names the setting.
    """
    if given not in choices:
        known = " or ".join(f'"{choice}"' for choice in choices)
        raise BadDefinition(where, f"{given!r} is none of its values", f"Use {known}.")


def threads_for(matrix: Matrix, given: int) -> int:
    """Return `given`, or, where that is 0, one thread per two million values, up to one per core."""
    return given or min(len(os.sched_getaffinity(0)), 1 + matrix.size // _VALUES_PER_THREAD)


def _is_number(given: object) -> bool:
    return isinstance(given, int | float) and not isinstance(given, bool)
