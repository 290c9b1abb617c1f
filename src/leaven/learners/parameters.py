"""Whose versions are written by people, and trained by nobody?"""

from __future__ import annotations

from typing import NoReturn

from leaven.loop import PARAMETERS
from leaven.training.learner import CannotLearn, Files, TrainingSet
from leaven.values import value


@value
class Parameters:
    """Stands where a learner does in a loop whose versions are sets of parameters: prompts, thresholds, weights.

    Such a version is a JSON object that `leaven parameters add` registers. Callers ask which one a unit gets
    (`POST /v1/assign`, `Client.assign`), and use it themselves: there is no model, nothing is trained, and `features`,
    `data`, `plan`, `triggers` and `gates` may be left out.
    """

    @property
    def format(self) -> str:
        """Of all versions of the loop."""
        return PARAMETERS

    @property
    def stateful(self) -> bool:
        """False: nothing is continued."""
        return False

    def fit(self, data: TrainingSet, *, seed: int) -> Files:
        """Refuse, always."""
        self._refuse()

    def update(self, parent: Files, data: TrainingSet, *, seed: int) -> Files:
        """Refuse, always."""
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise CannotLearn(repr(self), "people write its versions", "Add one: leaven parameters add LOOP FILE.json.")
