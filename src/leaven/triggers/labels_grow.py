"""Have enough new labels matured?"""

from __future__ import annotations

from leaven.errors import BadDefinition
from leaven.triggers.facts import Cause, Facts
from leaven.values import value


@value
class LabelsGrow:
    """Fires once as many labels have matured since the last refresh as are `by` of the champion's training rows."""

    by: float

    def __post_init__(self) -> None:
        if not self.by > 0:
            raise BadDefinition("LabelsGrow(…)", f"{self.by!r} is no growth", "Give a positive share, such as 0.05.")

    def fires(self, facts: Facts) -> Cause | None:
        """Return a cause if the new labels are enough."""
        if not facts.has_champion:
            return None  # the first version waits for the schedule or a person
        new = facts.matured_since_refresh()
        needed = self.by * facts.learnt_rows
        if new < max(1.0, needed):
            return None
        return Cause(repr(self), f"{new} labels matured since the last refresh, {needed:.0f} were needed")
