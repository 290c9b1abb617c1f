"""What is the chance of a yes, given a product of factors, which is no probability?

A logistic curve over four numbers: 1, the product, and how much more often than usual the user said yes, and the item
was said yes to. It is fitted to rows that the factors were not made from, so it knows what a product is worth for new
rows; those that it was made from look better than any that will come (Platt, "Probabilistic Outputs for Support Vector
Machines", 1999, section 2.1).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leaven.learners.als.factors import Codes, Numbers, Side, tallied

_DOUBT = 5.0  # rows of the usual kind that a user's or an item's own rate is mixed with
_BEGIN = np.array([0.0, 0.0, 1.0, 1.0])  # before any row: the rates as they are, nothing yet of the product
_BEGIN_PRECISION = np.eye(4)


@dataclass(frozen=True, slots=True)
class Chances:
    """Yeses by user and item, and the curve; the last row of the yeses is nobody's."""

    rate: float  # of yes among all rows of the first fit, inside (0, 1)
    user_yes: Numbers  # shape (users + 1,)
    item_yes: Numbers  # shape (items + 1,)
    curve: Numbers  # shape (4,)
    precision: Numbers  # shape (4, 4): how sure the curve is, the second derivative of its loss

    @classmethod
    def unknown(cls, rate: float, users: int, items: int) -> Chances:
        """Return what is known before any row: `rate`, for everybody."""
        curve = np.array([_log_odds(rate), *_BEGIN[1:]])
        return cls(rate, np.zeros(users + 1), np.zeros(items + 1), curve, _BEGIN_PRECISION)

    def widened(self, users: int, items: int) -> Chances:
        """Return the same with room for more users and items."""
        yes = [np.concatenate([each[:-1], np.zeros(size + 1 - len(each[:-1]))])
               for each, size in ((self.user_yes, users), (self.item_yes, items))]  # fmt: skip
        return replace(self, user_yes=yes[0], item_yes=yes[1])

    def counted(self, user: Codes, item: Codes, label: Numbers, *, decay: float) -> Chances:
        """Return the same after one more row for each label; older yeses of those in them count `decay`."""
        return replace(
            self,
            user_yes=tallied(self.user_yes, user, label, decay=decay),
            item_yes=tallied(self.item_yes, item, label, decay=decay),
        )

    def fitted(self, inputs: Numbers, label: Numbers, *, decay: float) -> Chances:
        """Return the same with the curve moved to what is most likely after `label`, shape (rows,).

        The curve before is the prior, as sure as it was, of which `decay` counts.
        """
        from scipy.optimize import minimize

        prior, mean = decay * self.precision + (1 - decay) * _BEGIN_PRECISION, self.curve

        def loss(curve: Numbers) -> float:
            score, gone = inputs @ curve, curve - mean
            return float(np.logaddexp(0.0, score).sum() - label @ score + 0.5 * gone @ prior @ gone)

        def slope(curve: Numbers) -> Numbers:
            down: Numbers = inputs.T @ (_chance(inputs @ curve) - label) + prior @ (curve - mean)
            return down

        def bend(curve: Numbers) -> Numbers:
            chance = _chance(inputs @ curve)
            bent: Numbers = (inputs * (chance * (1 - chance))[:, None]).T @ inputs + prior
            return bent

        found = minimize(loss, mean, jac=slope, hess=bend, method="trust-exact")
        return replace(self, curve=found.x, precision=bend(found.x))

    def inputs(self, users: Side, items: Side, user: Codes, item: Codes) -> Numbers:
        """Return what the curve is over, for each pair, shape (rows, 4)."""
        product = (users.vectors[user] * items.vectors[item]).sum(axis=1)
        told = [self._told(yes[code], side.seen[code]) for yes, side, code in
                ((self.user_yes, users, user), (self.item_yes, items, item))]  # fmt: skip
        return np.column_stack([np.ones(len(product)), product, *told])

    def answer(self, inputs: Numbers) -> NDArray[np.float64]:
        """Return the chance of a yes, shape (rows,)."""
        # Summed by row, so that a row gets the same bits alone as among many.
        chance: NDArray[np.float64] = _chance((inputs * self.curve).sum(axis=1))
        return chance

    def _told(self, yes: Numbers, seen: Numbers) -> Numbers:
        """How far the log odds of each lie above the usual; 0 for whom nothing is known of."""
        usual: Numbers = _log_odds((yes + _DOUBT * self.rate) / (seen + _DOUBT)) - _log_odds(self.rate)
        return usual


def _chance(score: Numbers) -> Numbers:
    chance: Numbers = np.exp(-np.logaddexp(0.0, -score))
    return chance


def _log_odds(chance: Any) -> Any:
    return np.log(chance) - np.log1p(-chance)
