"""Who can be asked for answers, and what comes back?

Whatever stands behind an arm (a model in this process, one in a process of its own, a server elsewhere) is asked the
same way: without blocking, and at a price that is known afterwards.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from leaven.errors import LeavenError

Columns = dict[str, NDArray[Any]]  # by feature, all of one length; categories as objects, numbers as float64

# Where a version answers: in this process; in one of its own; or in one of its own that gives way to everything else.
Place = Literal["here", "apart", "aside"]


class Answers(Protocol):
    """A loaded model."""

    def answer(self, columns: Mapping[str, NDArray[Any]]) -> NDArray[np.float64]:
        """Return one answer per row of `columns`, shape (rows,), or (rows, classes)."""
        ...


@dataclass(frozen=True, slots=True)
class Asked:
    """What an arm said, and what a row of it cost."""

    answers: NDArray[np.float64]  # shape (rows,) or (rows, classes); what is not finite is for the caller to judge
    seconds: float  # spent per row


class Answerer(Protocol):
    """Something that answers rows for an arm; used by one event loop."""

    async def ask(self, columns: Columns, count: int) -> Asked:
        """Return the answers to `count` rows.

        Raises:
            Overloaded: too many rows wait already; nothing is said about the arm.
            Exception: anything else is the arm's failure.
        """
        ...


class ArmDown(LeavenError, RuntimeError):
    """What stands behind an arm cannot be asked now."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why

    def __str__(self) -> str:
        return self.why
