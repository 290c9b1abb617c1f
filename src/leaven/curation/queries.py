"""Which of the predictions without a label is it worth asking a person about?

A query picks positions among candidates, the most wanted first; queries add up with `+`, each then picks its share.
What is chosen because it is hard says little about how often the model is wrong: judge it by rows of `Evenly`, or by
the labels that come by themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from leaven.curation.drawing import keys
from leaven.errors import BadDefinition
from leaven.events.columns import Column
from leaven.stats.answers import apart
from leaven.values import value

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Candidates:
    """Predictions that could be labelled, one per position, and where they lie among those that are."""

    id: Column  # object of str
    at: Column  # datetime64[us]
    answer: Floats  # shape (rows,) or (rows, classes), NaN where nobody answered
    other: Floats  # the challenger's answer to the same request, NaN where there is none
    space: Floats  # shape (rows, dimensions), features on one scale (`leaven.curation.feature_space`)
    known: Floats  # shape (labelled rows, dimensions), of rows whose label is known

    def __len__(self) -> int:
        return len(self.id)


@dataclass(frozen=True, slots=True)
class Pick:
    """One candidate that was picked, by its position, and why."""

    row: int
    why: str


class Query(Protocol):
    """Picks what is worth a label."""

    def pick(self, candidates: Candidates, rows: int, *, seed: int, among: Mask | None = None) -> list[Pick]:
        """Return up to `rows` picks, the most wanted first, each row once; where given, only of those `among` marks.

        Equal candidates are told apart by a hash of their ids and the seed.
        """
        ...


@value
class Uncertainty:
    """Where the model is least sure: the largest entropy of its probabilities.

    With two classes, the least confident answer and the smallest margin between the classes are the same rows.
    """

    def pick(self, candidates: Candidates, rows: int, *, seed: int, among: Mask | None = None) -> list[Pick]:
        """Return the picks; rows without an answer are left out.

        Raises:
            BadDefinition: an answer is no probability.
        """
        p = candidates.answer
        if ((p < 0) | (p > 1)).any():
            mend = "Use Margin, Diversity or Disagreement for a model that answers with a value."
            raise BadDefinition("Uncertainty()", f"{np.nanmax(np.abs(p)):.4g} is no probability", mend)
        entropy = _entropy(p)
        return [
            Pick(row, f"entropy {entropy[row]:.3f} bit") for row in _largest(entropy, candidates, rows, seed, among)
        ]

    def __add__(self, other: Query) -> Mixture:
        return mixture(self, other)


@value
class Margin:
    """Where a decision is closest: the smallest distance of the answer from the value `at` which it changes.

    Of several classes it is the smallest lead of the likeliest over the next.
    """

    at: float = 0.5

    def pick(self, candidates: Candidates, rows: int, *, seed: int, among: Mask | None = None) -> list[Pick]:
        """Return the picks; rows without an answer are left out."""
        if candidates.answer.ndim == 2:
            lead = _lead(candidates.answer)
            return [Pick(row, f"leads by {lead[row]:.3g}") for row in _largest(-lead, candidates, rows, seed, among)]
        gap = np.abs(candidates.answer - self.at)
        return [Pick(row, f"{gap[row]:.3g} from {self.at:g}") for row in _largest(-gap, candidates, rows, seed, among)]

    def __add__(self, other: Query) -> Mixture:
        return mixture(self, other)


@value
class Disagreement:
    """Where champion and challenger answer most differently; rows that the challenger did not shadow are left out."""

    def pick(self, candidates: Candidates, rows: int, *, seed: int, among: Mask | None = None) -> list[Pick]:
        """Return the picks."""
        ours, theirs = candidates.answer, candidates.other
        distance = apart(ours, theirs)
        picked = _largest(distance, candidates, rows, seed, among)
        if ours.ndim == 2 or theirs.ndim == 2:
            return [Pick(row, f"answers {distance[row]:.3g} apart") for row in picked]
        return [Pick(row, f"answers {ours[row]:.3g} and {theirs[row]:.3g}") for row in picked]

    def __add__(self, other: Query) -> Mixture:
        return mixture(self, other)


@value
class Diversity:
    """What is unlike all that is labelled, and unlike each other: k-center greedy on the features.

    Each pick is the candidate farthest from its nearest labelled row or earlier pick. The largest distance that is left
    is at most twice that of the best choice there is.

    Source:
        Gonzalez, "Clustering to minimize the maximum intercluster distance" (1985); Sener and Savarese, "Active
        learning for convolutional neural networks: a core-set approach" (2018), algorithm 1.
    """

    def pick(self, candidates: Candidates, rows: int, *, seed: int, among: Mask | None = None) -> list[Pick]:
        """Return the picks; the first is any candidate where nothing is labelled."""
        order = _order(candidates, seed)
        order = order if among is None else order[among[order]]
        space, gap = candidates.space[order], _nearest(candidates.space[order], candidates.known)
        picks: list[Pick] = []
        taken = np.zeros(len(order), dtype=bool)
        for _ in range(min(rows, len(order))):
            place = int(np.argmax(np.where(taken, -1.0, gap)))
            far = "the first" if np.isinf(gap[place]) else f"{np.sqrt(gap[place]):.3g} from the nearest known"
            picks.append(Pick(int(order[place]), far))
            taken[place] = True
            gap = np.minimum(gap, ((space - space[place]) ** 2).sum(axis=1))
        return picks

    def __add__(self, other: Query) -> Mixture:
        return mixture(self, other)


@value
class Evenly:
    """Any candidates, each as likely as any other: what an honest measure of the model needs."""

    def pick(self, candidates: Candidates, rows: int, *, seed: int, among: Mask | None = None) -> list[Pick]:
        """Return the picks."""
        order = _order(candidates, seed)
        order = order if among is None else order[among[order]]
        return [Pick(int(row), "drawn evenly") for row in order[:rows]]

    def __add__(self, other: Query) -> Mixture:
        return mixture(self, other)


@dataclass(frozen=True, repr=False)
class Mixture:
    """Several queries, each for an equal share of the rows; what one cannot fill, the later ones do."""

    queries: tuple[Query, ...]

    def pick(self, candidates: Candidates, rows: int, *, seed: int, among: Mask | None = None) -> list[Pick]:
        """Return the picks, those of the queries in turn; no row is picked twice."""
        left = np.ones(len(candidates), dtype=bool) if among is None else among.copy()
        picked: list[list[Pick]] = []
        for index, query in enumerate(self.queries):
            share = -(-(rows - sum(map(len, picked))) // (len(self.queries) - index))
            picked.append(query.pick(candidates, share, seed=seed, among=left))
            left[[pick.row for pick in picked[-1]]] = False
        return _in_turn(picked)

    def __add__(self, other: Query) -> Mixture:
        return mixture(self, other)

    def __repr__(self) -> str:
        return " + ".join(map(repr, self.queries))


def mixture(*queries: Query) -> Mixture:
    """Return all of these together, mixtures among them taken apart."""
    apart = [query.queries if isinstance(query, Mixture) else (query,) for query in queries]
    return Mixture(tuple(query for group in apart for query in group))


def _entropy(p: Floats) -> Floats:
    """Of a yes-or-no question, or of several classes, in bits, NaN where the probability is."""
    if p.ndim == 2:
        with np.errstate(divide="ignore", invalid="ignore"):
            parts = np.where(p == 0, 0.0, -p * np.log2(p))
        every: Floats = parts.sum(axis=1)
        return every
    with np.errstate(divide="ignore", invalid="ignore"):
        bits = -(p * np.log2(p) + (1 - p) * np.log2(1 - p))
    return np.where((p == 0) | (p == 1), 0.0, bits)


def _lead(p: Floats) -> Floats:
    """The likeliest class's probability less that of the next, NaN where there is no answer."""
    ranked = np.sort(p, axis=1)
    lead: Floats = ranked[:, -1] - ranked[:, -2]
    return lead


def _order(candidates: Candidates, seed: int) -> NDArray[np.intp]:
    """All positions in the order of a hash."""
    _, tie = keys(candidates.id, candidates.at, seed=seed)
    return np.argsort(tie, kind="stable")


def _largest(score: Floats, candidates: Candidates, rows: int, seed: int, among: Mask | None) -> list[int]:
    """Positions of the largest scores, largest first; those without one left out."""
    order = _order(candidates, seed)
    order = order[~np.isnan(score[order])] if among is None else order[~np.isnan(score[order]) & among[order]]
    return [int(row) for row in order[np.argsort(-score[order], kind="stable")][:rows]]


def _nearest(space: Floats, known: Floats) -> Floats:
    """Squared distance of each row from the nearest known one; infinite where none is known."""
    gap = np.full(len(space), np.inf)
    for one in known:
        gap = np.minimum(gap, ((space - one) ** 2).sum(axis=1))
    return gap


def _in_turn(picked: Sequence[Sequence[Pick]]) -> list[Pick]:
    longest = max(map(len, picked), default=0)
    return [group[place] for place in range(longest) for group in picked if place < len(group)]
