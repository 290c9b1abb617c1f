"""Is an arm better, looked at a few times on the way to a planned size?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from leaven.errors import BadDefinition
from leaven.stats.boundaries import POWER_3, Spending, boundaries

_STEPS = 20  # assumed on the way where nobody wrote down the looks: a plan in steps of 5 %
_SMALLEST = 1e-15  # p-values below are not told apart


@dataclass(frozen=True, slots=True)
class GroupSequential:
    """The latest of several looks at growing shares of a planned number of units.

    Over all looks, two-sided, the error is at most `alpha`. The interval is the repeated confidence interval, the
    p-value the repeated p-value of this look (Jennison and Turnbull 1989): both hold whether or not one stops here.
    """

    looks: tuple[float, ...]  # information fractions so far, this look last
    alpha: float = 0.05
    spending: Spending = POWER_3

    @property
    def fraction(self) -> float:
        """Share of the planned units that is in."""
        return self.looks[-1]

    def critical(self, df: float, n: int) -> float:
        """Return the boundary of this look, at Student's quantile of the same tail."""
        from scipy.special import ndtr, stdtrit

        bound = self._bound(self.alpha)
        return bound if math.isinf(df) else -float(stdtrit(df, float(ndtr(-bound))))

    def p_value(self, z: float, df: float, n: int) -> float:
        """Return the smallest alpha at which this look would have crossed its boundary."""
        from scipy.optimize import brentq
        from scipy.special import ndtri, stdtr

        score = abs(z) if math.isinf(df) else -float(ndtri(stdtr(df, -abs(z))))
        if not self._bound(_SMALLEST) > score:
            return _SMALLEST
        if self._bound(1 - 1e-9) >= score:
            return 1.0
        found = brentq(lambda log: self._bound(math.exp(log)) - score, math.log(_SMALLEST), -1e-9, xtol=1e-9)
        return math.exp(float(found))

    def _bound(self, alpha: float) -> float:
        return boundaries(self.looks, alpha=alpha, spending=self.spending)[-1]


def looks_until(units: int, planned: int, *, before: Sequence[float] | None = None) -> tuple[float, ...]:
    """Return the information fractions of all looks so far, the present one last.

    Args:
        units: Mature units seen, of all arms.
        planned: Units that the trial was planned for, of all arms.
        before: Fractions of the earlier looks; None where nobody knows, and then a look at every 5 % of the plan is
            assumed, which costs little power and covers whoever looked less often.
    Raises:
        BadDefinition: there is nothing to look at, or the last look was at the full plan: its error is spent.
    """
    if planned < 1 or units < 1:
        raise BadDefinition("planned", f"{units} mature units of {planned} planned", "Plan for 1 unit or more; wait.")
    fraction = min(1.0, units / planned)
    # A step right before this look would leave it nothing to spend.
    assumed = [step / _STEPS for step in range(1, _STEPS) if step / _STEPS < fraction - 0.5 / _STEPS]
    earlier = assumed if before is None else list(before)
    if earlier and earlier[-1] >= fraction:
        raise BadDefinition(
            "looks", f"the last look was at {earlier[-1]:g} of the plan, this one is at {fraction:g}",
            "Name the looks before this one only; after a look at 1 there is none.",
        )  # fmt: skip
    return (*earlier, fraction)
