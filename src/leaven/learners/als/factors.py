"""Which vectors of users and items explain these rows best, given what was learnt before?

With the vectors of one side held, those of the other are found one by one in closed form. An entity (a user, or an
item) whose vector was v₀ after n rows gets the v that minimises

    Σ over its new rows of (w (d·v)² - 2 t d·v)  +  (v - v₀)ᵀ P (v - v₀),      P = B + decay · n · G

d is the other side's vector in that row, w the row's weight, t what it pulls towards: the normal equations are
(P + Σ w d dᵀ) v = P v₀ + Σ t d. For a newcomer n = 0 and v₀ = 0, which leaves the usual ridge. For one who is known, P
is what the old rows said, had each told as much as a row does on average (G, the mean of d dᵀ): recursive least squares
that keeps a count of the old rows and not the rows.

Sources: Zhou and others, "Large-scale Parallel Collaborative Filtering for the Netflix Prize" (AAIM 2008), for the
alternation; Koren, Bell and Volinsky, "Matrix Factorization Techniques for Recommender Systems" (IEEE Computer 42,
2009), for biases; Hu, Koren and Volinsky, "Collaborative Filtering for Implicit Feedback Datasets" (ICDM 2008),
equation 4, for weights of what was seen over what was not.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]
Codes = NDArray[np.intp]

_FIRST_SPREAD = 0.1  # of items' factors before the first alternation
_VALUES_AT_ONCE = 4_000_000  # 32 MB of the designs and matrices that are solved together


@dataclass(frozen=True, slots=True)
class Side:
    """All users, or all items, by code; the last row is nobody, whose code is -1."""

    vectors: Numbers  # shape (entities + 1, width)
    seen: Numbers  # shape (entities + 1,), rows that each was learnt from; fewer where older ones count less
    held: NDArray[np.bool_]  # shape (entities + 1,), who is to stay as they are; nobody always is

    @classmethod
    def of(cls, vectors: Numbers, seen: Numbers) -> Side:
        """Return the side of these entities, shapes (entities, width) and (entities,); any of them may move."""
        count, width = vectors.shape
        held = np.arange(count + 1) == count
        return cls(np.vstack([vectors, np.zeros((1, width))]), np.append(seen, 0.0), held)

    @classmethod
    def unknown(cls, entities: int, width: int) -> Side:
        """Return a side of which nothing is known."""
        return cls.of(np.zeros((entities, width)), np.zeros(entities))

    def widened(self, entities: int) -> Side:
        """Return the side with room for `entities`, of whom nothing is known beyond the ones there are."""
        more = entities - self.entities
        vectors = np.vstack([self.vectors[:-1], np.zeros((more, self.vectors.shape[1]))])
        return Side.of(vectors, np.append(self.seen[:-1], np.zeros(more)))

    def for_newcomers(self) -> Side:
        """Return the side in which those who were seen stay as they are."""
        return replace(self, held=self.held | (self.seen > 0))

    def moving(self, codes: Codes) -> Codes:
        """Return the codes, -1 in place of those who stay as they are."""
        return np.where(self.held[codes], -1, codes)

    def counted(self, codes: Codes, *, decay: float) -> Side:
        """Return the side after one more row for each of `codes` that moves; what was seen before counts `decay`."""
        return replace(self, seen=tallied(self.seen, self.moving(codes), np.ones(len(codes)), decay=decay))

    @property
    def entities(self) -> int:
        """How many there are, without nobody."""
        return len(self.seen) - 1


@dataclass(frozen=True, slots=True)
class Rows:
    """What is learnt from: who met what, how much that weighs and what it pulls the product of the two towards."""

    user: Codes  # shape (rows,), -1 where unknown
    item: Codes  # shape (rows,)
    weight: Numbers  # shape (rows,)
    target: Numbers  # shape (rows,)


def tallied(before: Numbers, codes: Codes, amounts: Numbers, *, decay: float) -> Numbers:
    """Return sums by code with `amounts` added; of those that get any, the sum before counts `decay`. Nobody's is 0."""
    known, size = codes >= 0, len(before)
    met = np.bincount(codes[known], minlength=size) > 0
    kept: Numbers = np.where(met, decay * before, before)
    return kept + np.bincount(codes[known], weights=amounts[known], minlength=size)


def mean_outer(designs: Numbers, seen: Numbers) -> Numbers:
    """Return the mean of d dᵀ over the rows that were seen, shape (width, width); zero where none was."""
    rows = float(seen.sum())
    gram: Numbers = (designs * seen[:, None]).T @ designs
    return gram / rows if rows else gram


def solved(
    side: Side, codes: Codes, designs: Numbers, weight: Numbers, target: Numbers, *, base: Numbers, past: Numbers
) -> Numbers:
    """Return the vectors of a side, with new ones for those in `codes` who may move; all others as they were.

    Args:
        side: What was known of it: v₀ and n.
        codes: Whose each row is, shape (rows,).
        designs: d of each row, shape (rows, width).
        weight: w of each row, shape (rows,).
        target: t of each row, shape (rows,).
        base: B, shape (width, width), positive definite.
        past: G, times the share that old rows count, shape (width, width).
    """
    vectors, width = side.vectors.copy(), side.vectors.shape[1]
    for whose, rows in _alike(side.moving(codes), width):
        design, old = designs[rows], side.vectors[whose]
        prior = base + side.seen[whose, None, None] * past
        left = prior + (design * weight[rows][..., None]).transpose(0, 2, 1) @ design
        right = prior @ old[..., None] + design.transpose(0, 2, 1) @ target[rows][..., None]
        vectors[whose] = np.linalg.solve(left, right)[..., 0]
    return vectors


def _alike(codes: Codes, width: int) -> Iterator[tuple[Codes, Codes]]:
    """Entities with equally many rows, some at a time: who they are, (some,), and their rows, (some, rows of each)."""
    order = np.argsort(codes, kind="stable")
    order = order[codes[order] >= 0]
    whose, first, count = np.unique(codes[order], return_index=True, return_counts=True)
    for rows in np.unique(count):
        chosen = np.flatnonzero(count == rows)
        some = max(1, _VALUES_AT_ONCE // ((int(rows) + width) * width))
        for at in range(0, len(chosen), some):
            part = chosen[at : at + some]
            yield whose[part], order[first[part][:, None] + np.arange(rows)]


def first_items(codes: Codes, items: Side, *, seed: int) -> Numbers:
    """Return small random factors of the items in `codes`, for a first alternation; others stay unknown."""
    vectors = items.vectors.copy()
    spread = np.random.default_rng(seed).normal(scale=_FIRST_SPREAD, size=(len(vectors), vectors.shape[1] - 1))
    vectors[:, 1:] = np.where(np.isin(np.arange(len(vectors)), codes)[:, None], spread, 0.0)
    return vectors


def with_ratings(
    users: Side, items: Side, rows: Rows, *, ridge: Numbers, iterations: int, decay: float = 1.0, start: Numbers
) -> tuple[Side, Side]:
    """Return both sides after rows whose target is a rating less the mean of all: b_u + b_i + x_u · y_i.

    Vectors are (b, x) and (b, y). One side's bias is part of what the other's is fitted to, so its design is (1, y).

    Args:
        users: What was known of them.
        items: What was known of them.
        rows: New ratings; their weight is 1.
        ridge: Penalty on each number of a vector, shape (width,).
        iterations: How often each side is solved.
        decay: How much older rows count.
        start: Vectors of the items that the first users are solved against, shape as `items.vectors`.
    """
    base, user_vectors, item_vectors = np.diag(ridge), users.vectors, start
    user_past = decay * mean_outer(_design(items.vectors), items.seen)
    item_past = decay * mean_outer(_design(users.vectors), users.seen)
    for _ in range(iterations):
        bias = item_vectors[rows.item, 0]
        user_vectors = solved(users, rows.user, _design(item_vectors)[rows.item], rows.weight, rows.target - bias,
                              base=base, past=user_past)  # fmt: skip
        bias = user_vectors[rows.user, 0]
        item_vectors = solved(items, rows.item, _design(user_vectors)[rows.user], rows.weight, rows.target - bias,
                              base=base, past=item_past)  # fmt: skip
    return replace(users, vectors=user_vectors), replace(items, vectors=item_vectors)


def with_events(
    users: Side, items: Side, rows: Rows, *, ridge: float, weight: float, iterations: int, decay: float = 1.0
) -> tuple[Side, Side]:
    """Return both sides after rows that each weigh more than what was not seen, which counts as a no of weight 1.

    Args:
        users: What was known of them.
        items: What was known of them.
        rows: New pairs, each once, with weight c - 1 and target c · p (c the confidence, p 1 for a yes and 0 for a no).
        ridge: Penalty on each number of a vector.
        weight: c - 1 of a row, as older rows had it.
        iterations: How often each side is solved.
        decay: How much older rows count.
    """
    user_vectors, item_vectors = users.vectors, items.vectors
    user_past = decay * weight * mean_outer(items.vectors, items.seen)
    item_past = decay * weight * mean_outer(users.vectors, users.seen)
    penalty = ridge * np.eye(users.vectors.shape[1])
    for _ in range(iterations):
        user_vectors = solved(users, rows.user, item_vectors[rows.item], rows.weight, rows.target,
                              base=item_vectors.T @ item_vectors + penalty, past=user_past)  # fmt: skip
        item_vectors = solved(items, rows.item, user_vectors[rows.user], rows.weight, rows.target,
                              base=user_vectors.T @ user_vectors + penalty, past=item_past)  # fmt: skip
    return replace(users, vectors=user_vectors), replace(items, vectors=item_vectors)


def _design(vectors: Numbers) -> Numbers:
    """(1, y) of (b, y); (1, 0) of nobody."""
    design = vectors.copy()
    design[:, 0] = 1.0
    return design
