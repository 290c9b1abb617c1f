"""What can be said of answers whatever they are: numbers, or the probabilities of several classes?

Answers are arrays of shape (rows,), the value or the probability of class 1; or, of a label with classes, of shape
(rows, classes). Classes are only ever added behind the others, so an answer of fewer gives the later ones 0.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]


def given(answer: Floats) -> Mask:
    """Return which rows have an answer, shape (rows,): a finite number, or a finite one for every class."""
    finite = np.isfinite(answer)
    every: Mask = finite if answer.ndim == 1 else np.all(finite, axis=1)
    return every


def padded(answer: Floats, classes: int) -> Floats:
    """Return the answers with a probability of 0 for each class that they do not know; NaN where there is no answer.

    Args:
        answer: Of any shape that answers have.
        classes: How many there are, at least as many as the answers know; 0 where answers are numbers.
    """
    if answer.ndim == 1 or answer.shape[1] >= classes:
        return answer
    more = np.where(np.isnan(answer[:, :1]), np.nan, 0.0)
    return np.concatenate([answer, np.repeat(more, classes - answer.shape[1], axis=1)], axis=1)


def alike(answers: Sequence[Floats]) -> list[Floats]:
    """Return the answers, each of as many classes as the one that knows most."""
    most = max((answer.shape[1] for answer in answers if answer.ndim == 2), default=0)
    return [none(len(answer), most) if most and answer.ndim == 1 else padded(answer, most) for answer in answers]


def none(rows: int, classes: int) -> Floats:
    """Return answers that are not there, of numbers (`classes` 0) or of classes."""
    return np.full((rows, classes) if classes else rows, np.nan)


def apart(ours: Floats, theirs: Floats) -> Floats:
    """Return how far two answers lie from each other, shape (rows,); NaN where one is missing.

    Of numbers that is their distance; of classes the total variation distance, half the sum of the distances: the
    largest difference in the probability of anything, in [0, 1] as with two classes.
    """
    if ours.ndim == theirs.ndim == 1:
        distance: Floats = np.abs(ours - theirs)
        return distance
    one, other = alike([ours, theirs])
    halves: Floats = np.abs(one - other).sum(axis=1) / 2
    return halves


def decided(answer: Floats, threshold: float = 0.5) -> NDArray[np.intp]:
    """Return the class that each answer decides for, shape (rows,): 1 from the threshold on, or the likeliest one.

    Of classes that are equally likely it is the first. Rows without an answer decide for class 0.
    """
    if answer.ndim == 1:
        return (answer >= threshold).astype(np.intp)
    if not len(answer):
        return np.empty(0, dtype=np.intp)
    likeliest: NDArray[np.intp] = np.argmax(np.where(np.isnan(answer), -np.inf, answer), axis=1)
    return likeliest


def telling(answer: Floats) -> Floats:
    """Return one number per row: the answer, or the probability of the class in which the rows differ most."""
    if answer.ndim == 1:
        return answer
    if not len(answer):
        return np.empty(0)
    return answer[:, int(np.argmax(answer.std(axis=0)))]
