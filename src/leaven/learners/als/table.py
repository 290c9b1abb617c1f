"""Who met what, and how did it go, according to a training set?"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from leaven.learners.als.chances import Chances
from leaven.learners.als.factors import Codes, Rows, Side
from leaven.learners.als.files import Recommender, codes_of
from leaven.training.learner import TrainingSet


@dataclass(frozen=True, slots=True)
class Table:
    """The rows of a training set by user and item."""

    columns: tuple[int, int]  # of user and item, in the matrix
    users: int  # how many the encoder knows
    items: int
    user: Codes  # shape (rows,), -1 where missing
    item: Codes
    label: NDArray[np.float64]
    binary: bool

    def blank(self, width: int, *, mean: float = 0.0, chances: Chances | None = None) -> Recommender:
        """Return a model that knows no user and no item."""
        users, items = Side.unknown(self.users, width), Side.unknown(self.items, width)
        return Recommender(*self.columns, mean, users, items, chances)

    def parted(self, at: int) -> tuple[Table, Table]:
        """Return the first `at` rows, and the others."""
        parts = (slice(None, at), slice(at, None))
        first, second = (
            replace(self, user=self.user[part], item=self.item[part], label=self.label[part]) for part in parts
        )
        return first, second

    def pairs(self, alpha: float) -> Rows:
        """Return each pair once, with what its rows of yes and no together say.

        With m the yeses less the noes, the confidence is c = 1 + alpha |m|, in a yes where m is above 0, in a no where
        it is below; pairs that say neither, and rows without a user or an item, are left out.
        """
        both = (self.user >= 0) & (self.item >= 0)
        pair, where = np.unique(self.user[both] * self.items + self.item[both], return_inverse=True)
        margin = np.bincount(where, weights=2 * self.label[both] - 1, minlength=len(pair))
        pair, margin = pair[margin != 0], margin[margin != 0]
        weight = alpha * np.abs(margin)
        return Rows(pair // self.items, pair % self.items, weight, np.where(margin > 0, 1 + weight, 0.0))

    def counted_by(self, made: Recommender, *, decay: float) -> Recommender:
        """Return the model with these rows counted for all who moved."""
        users, items, chances = made.users, made.items, made.chances
        if chances is not None:
            moved = users.moving(self.user), items.moving(self.item)
            chances = chances.counted(*moved, self.label, decay=decay)
        users, items = users.counted(self.user, decay=decay), items.counted(self.item, decay=decay)
        return replace(made, users=users, items=items, chances=chances)


def table_of(data: TrainingSet, *, user: str, item: str) -> Table:
    """Return the rows of `data` by the category features `user` and `item`."""
    names = [name for name, _, _ in data.encoder.features]
    columns = (names.index(user), names.index(item))
    users, items = (len(data.encoder.categories[name]) for name in (user, item))
    codes = (codes_of(data.matrix[:, columns[0]], users), codes_of(data.matrix[:, columns[1]], items))
    return Table(columns, users, items, *codes, data.label, data.schema.task == "binary")
