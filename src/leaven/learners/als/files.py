"""How is a recommender kept, and how does it answer?

Arrays in one `.npz`, which holds numbers only; vectors are kept as float32 and computed with as float64.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from leaven.learners.als.chances import Chances
from leaven.learners.als.factors import Codes, Side
from leaven.learners.formats import ModelDamaged
from leaven.learners.guards import whole_file
from leaven.training.encoding import Matrix
from leaven.training.learner import Files

FORMAT = "als-npz"
MODEL_FILE = "model.npz"


@dataclass(frozen=True, slots=True)
class Recommender:
    """A fitted model; read-only, so threads may share it."""

    user_column: int
    item_column: int
    mean: float  # of the ratings of the first fit; 0 where the label is yes or no
    users: Side
    items: Side
    chances: Chances | None  # None where the label is a number

    def predict(self, matrix: Matrix) -> NDArray[np.float64]:
        """Return one answer per row, shape (rows,): the probability of class 1, or the value.

        A user or item that is missing or was never seen adds nothing: what remains is the other's bias and the mean.
        """
        user, item = self.pairs(matrix)
        if self.chances is not None:
            return self.chances.answer(self.chances.inputs(self.users, self.items, user, item))
        one, other = self.users.vectors[user], self.items.vectors[item]
        answer: NDArray[np.float64] = self.mean + one[:, 0] + other[:, 0] + (one[:, 1:] * other[:, 1:]).sum(axis=1)
        return answer

    def pairs(self, matrix: Matrix) -> tuple[Codes, Codes]:
        """Return the users and the items of rows, by code; -1 where missing, or not known to this model."""
        return (
            codes_of(matrix[:, self.user_column], self.users.entities),
            codes_of(matrix[:, self.item_column], self.items.entities),
        )

    def widened(self, users: int, items: int) -> Recommender:
        """Return the same with room for more users and items, of whom nothing is known."""
        chances = None if self.chances is None else self.chances.widened(users, items)
        return replace(self, users=self.users.widened(users), items=self.items.widened(items), chances=chances)

    def to_bytes(self) -> bytes:
        """Return what `recommender_in` reads; equal models give equal bytes."""
        kept: dict[str, Any] = {"columns": np.array([self.user_column, self.item_column]), "mean": self.mean}
        for name, side in (("users", self.users), ("items", self.items)):
            kept |= {name: side.vectors[:-1].astype(np.float32), f"{name}_seen": side.seen[:-1]}
        if self.chances is not None:
            each = self.chances
            kept |= {"rate": each.rate, "curve": each.curve, "precision": each.precision}
            kept |= {"users_yes": each.user_yes[:-1], "items_yes": each.item_yes[:-1]}
        file = io.BytesIO()
        np.savez(file, allow_pickle=False, **kept)
        return file.getvalue()


def codes_of(column: NDArray[np.float64], known: int) -> Codes:
    """Return codes as they index a side of `known` entities: -1 where missing, or later than all of these."""
    codes: Codes = np.where(column < known, column, -1).astype(np.intp)  # NaN is not less than anything
    return codes


def recommender_in(files: Files) -> Recommender:
    """Return the model that `files` hold.

    Raises:
        ModelDamaged: the files are incomplete or unreadable.
    """
    content = bytes(whole_file(files, MODEL_FILE, FORMAT))
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as kept:
            return _made({name: kept[name] for name in kept.files})
    except (BadZipFile, KeyError, ValueError) as error:
        raise ModelDamaged(FORMAT, f"{MODEL_FILE}: {error}") from error


def _made(kept: Mapping[str, NDArray[Any]]) -> Recommender:
    user_column, item_column = kept["columns"].tolist()
    chances = None
    if "curve" in kept:
        users_yes, items_yes = (np.append(kept[name], 0.0) for name in ("users_yes", "items_yes"))
        chances = Chances(float(kept["rate"]), users_yes, items_yes, kept["curve"], kept["precision"])
    users, items = (Side.of(kept[name].astype(np.float64), kept[f"{name}_seen"]) for name in ("users", "items"))
    return Recommender(user_column, item_column, float(kept["mean"]), users, items, chances)
