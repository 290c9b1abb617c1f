"""Has enough time passed?"""

from __future__ import annotations

from leaven.duration import duration, floor_to
from leaven.triggers.facts import Cause, Facts
from leaven.values import value


@value
class Every:
    """Fires once in every period; periods are counted from the Unix epoch, so restarts do not shift them."""

    period: str

    def __post_init__(self) -> None:
        duration(self.period, where="Every(…)")

    def fires(self, facts: Facts) -> Cause | None:
        """Return a cause if no refresh was started in the present period."""
        due = floor_to(facts.now, duration(self.period))
        if facts.last_refresh is not None and facts.last_refresh >= due:
            return None
        return Cause(repr(self), f"a new period of {self.period} began at {due:%Y-%m-%d %H:%M} UTC")
