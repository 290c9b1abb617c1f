"""Can a model of another make learn what the one before it knows, without being made of it?

A student is fitted from scratch, but its labels are in part what a teacher answers to the same rows. These carry what
the teacher learnt from rows, and from features, that the student does not have, and less noise than the outcomes.

Source: G. Hinton, O. Vinyals, J. Dean, "Distilling the Knowledge in a Neural Network" (2015), at temperature 1: the
loss of a weighted mean of two labels is the weighted mean of the losses, for log loss and for squared error but for a
constant.
"""

from __future__ import annotations

from dataclasses import KW_ONLY

import numpy as np
from numpy.typing import NDArray

from leaven.errors import BadDefinition
from leaven.training.plans import Choice, PlanHistory
from leaven.values import value


@value
class Distill:
    """Every version is fitted from scratch on the loop's data, to labels that are in part a teacher's answers.

    The teacher is asked for the rows as they were logged, so features that the loop has dropped since still tell. Where
    it has no answer, and until there is a teacher, the outcomes alone are learnt.

    Args:
        teacher: A version of the loop: an alias, such as `"champion"`, or a number, such as `"7"`. Whatever answers for
            it: a model of any learner, or a server elsewhere.
        weight: Of the teacher's answers, (0, 1]; the outcomes have the rest. For a binary label the learner must take
            labels between 0 and 1.

    Raises:
        BadDefinition: a setting is out of its range.
    """

    teacher: str = "champion"
    _: KW_ONLY
    weight: float = 0.5

    def __post_init__(self) -> None:
        if not isinstance(self.teacher, str) or not self.teacher:
            raise BadDefinition("Distill(teacher)", f"{self.teacher!r} names no version", 'Write "champion", or "7".')
        number = isinstance(self.weight, int | float) and not isinstance(self.weight, bool)
        if not number or not 0 < self.weight <= 1:
            raise BadDefinition("Distill(weight=…)", f"{self.weight!r} is no weight", "Use a number above 0, up to 1.")

    def choose(self, history: PlanHistory) -> Choice:
        """Return `fit`, with the teacher's weight once there is one."""
        if history.teacher is None:
            return Choice("fit", f"fitted from scratch; there is no {self.teacher} to learn from yet")
        told = (
            f"version {history.teacher} ({self.teacher})" if not self.teacher.isdigit() else f"version {self.teacher}"
        )
        why = f"fitted from scratch, to labels of which {self.weight:.0%} are what {told} answers"
        return Choice("fit", why, distil=self.weight)


def mixed_labels(label: NDArray[np.float64], answer: NDArray[np.float64], *, weight: float) -> NDArray[np.float64]:
    """Return the labels to learn from: `(1 - weight)` of the outcome and `weight` of the teacher's answer.

    Args:
        label: Outcomes, shape (rows,).
        answer: The teacher's, shape (rows,); where one is no number, the outcome stands.
        weight: Of the answers, [0, 1].
    """
    mixed: NDArray[np.float64] = np.where(np.isfinite(answer), (1 - weight) * label + weight * answer, label)
    return mixed
