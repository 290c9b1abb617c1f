"""How much worse does a model get as it grows older?

The same recipe is trained on data that ends at many moments of the past, and each model answers all windows that come
within the oldest age. Some windows are hard for every model, so each window keeps an effect of its own; what is left is
the effect of age.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from leaven.errors import BadDefinition

Floats = NDArray[np.float64]

_MOST_BLOCKS = 8
_FEWEST_BLOCKS = 3


@dataclass(frozen=True, slots=True)
class Scores:
    """How models of several ages did on windows; all arrays of shape (scores,)."""

    window: Floats  # when it began, in days since any moment; equal for equal windows
    age_days: Floats  # of the model, at the beginning of the window
    loss: Floats  # mean over the window's rows
    rows: Floats  # of the window: what its scores weigh

    def within(self, youngest: float, oldest: float) -> Scores:
        """Return the scores of models of these ages, on windows that two models or more answered."""
        kept = self._at((self.age_days >= youngest) & (self.age_days <= oldest) & np.isfinite(self.loss))
        _, which, models = np.unique(kept.window, return_inverse=True, return_counts=True)
        return kept._at(models[which] > 1)

    def _at(self, which: NDArray[Any]) -> Scores:
        return Scores(self.window[which], self.age_days[which], self.loss[which], self.rows[which])


class FreshnessCurve(msgspec.Struct, frozen=True):
    """Loss by model age, with the windows' own effects taken out."""

    ages_days: tuple[float, ...]
    loss: tuple[float, ...]  # at each age, at the level of the average row
    band: tuple[tuple[float, float], ...]  # of the difference from the youngest age, added to its loss
    slope_per_day: float
    slope_ci: tuple[float, float]
    windows: int
    blocks: int  # stretches of neighbouring windows, which count as independent

    @property
    def excess(self) -> Floats:
        """Loss at each age less the loss at the youngest."""
        return np.subtract(self.loss, self.loss[0])


@dataclass(frozen=True, slots=True)
class Ageing:
    """The curve, and what else is known of it."""

    curve: FreshnessCurve
    draws: Floats  # shape (draws, ages): bootstrap draws of the excess loss
    information: Floats  # shape (ages, ages): how much the scores say of each age's loss and of their differences
    scored_days: Floats  # shape (scored,): all ages that were scored, ascending
    projection: Floats  # shape (ages, scored): takes a function of these to the curve nearest to it, level apart


def ageing_of(
    scores: Scores, ages_days: Sequence[float], *, rng: np.random.Generator, alpha: float = 0.05, draws: int = 1_000
) -> Ageing:
    """Return the loss by age from a back-test.

    Args:
        scores: Of models of any age; those younger or older than `ages_days` are left out.
        ages_days: Shape (ages,), ascending, two or more: where the curve has its corners. Between them it is straight.
        rng: Draws the bootstrap.
        alpha: The intervals miss with this probability.
        draws: Bootstrap samples.
    Raises:
        BadDefinition: the windows that two ages were scored on span less than 3 blocks, or models of all one age.
    Source:
        Least squares on loss = window + curve(age), weighted by rows / (g + age)^2 with g the smallest gap between
        `ages_days`: how fast models age differs between times, and drives losses apart in proportion to age. The slope
        is that of the line nearest to the curve. Neighbouring windows resemble each other and share models, so windows
        form blocks in time (Bester, Conley and Hansen 2011), each at least half of the oldest age long and at most 8:
        few and long ones, since how fast models age changes slowly. The error is the jackknife over blocks (CV3 of
        MacKinnon, Nielsen and Webb 2023), with Student's t at blocks - 1; the band is a Gaussian multiplier bootstrap
        of the same deviations, studentised by a chi of as many degrees.
    """
    ages = np.asarray(ages_days, dtype=np.float64)
    kept = scores.within(ages[0], ages[-1])
    weight = kept.rows / (np.diff(ages).min() + kept.age_days) ** 2
    block = _blocks(kept.window, oldest=float(ages[-1]))
    gram, right = _normal_by_block(kept, ages, weight, block)
    information, estimate = gram.sum(axis=0), _effects(gram.sum(axis=0), right.sum(axis=0))
    along = information @ ages
    if not along @ ages > 1e-12 * float(weight.sum()):
        raise BadDefinition("freshness", "all models are of one age", "Name two ages or more.")
    count = len(gram)
    left_out = _effects(information - gram, right.sum(axis=0) - right) - estimate
    spread = np.sqrt((count - 1) / count) * left_out  # shape (blocks, ages): its outer products add up to the variance
    drawn = estimate + _noise(count, draws, rng) @ spread
    slope = float(along @ estimate / (along @ ages))
    level = float(np.average(kept.loss - np.interp(kept.age_days, ages, estimate), weights=kept.rows))
    low, high = np.quantile(drawn, [alpha / 2, 1 - alpha / 2], axis=0)
    curve = FreshnessCurve(
        tuple(ages.tolist()), tuple((level + estimate).tolist()),
        tuple(zip((level + low).tolist(), (level + high).tolist(), strict=True)),
        slope, _around(slope, spread @ along / (along @ ages), alpha), len(np.unique(kept.window)), count,
    )  # fmt: skip
    scored, projection = _projection(kept, ages, weight, information)
    return Ageing(curve, drawn, information, scored, projection)


def _blocks(window: Floats, *, oldest: float) -> NDArray[np.intp]:
    """The block of each score, from 0; stretches of equal length, as many as there are allowed to be."""
    span = float(np.ptp(window)) if len(window) else 0.0
    count = min(_MOST_BLOCKS, int(2 * span / oldest))
    if count < _FEWEST_BLOCKS:
        what = f"windows that models of two ages answered span {span:g} days, {oldest / 2:g} of which are one block"
        raise BadDefinition("freshness", what, f"Give {_FEWEST_BLOCKS} blocks: more data, or younger ages.")
    place = np.minimum(((window - window.min()) / span * count).astype(np.intp), count - 1)
    return np.unique(place, return_inverse=True)[1]  # gaps in time leave no empty block


def _normal_by_block(scores: Scores, ages: Floats, weight: Floats, block: NDArray[np.intp]) -> tuple[Floats, Floats]:
    """Normal equations of the curve at `ages`, the windows' own effects projected out; they add up over blocks."""
    centred = _less_window(_corners(scores, ages), scores.window, weight)
    weighted = weight[:, None] * centred
    gram = np.zeros((block.max() + 1, len(ages), len(ages)))
    right = np.zeros(gram.shape[:2])
    for each in range(len(gram)):
        here = block == each
        gram[each] = weighted[here].T @ centred[here]
        right[each] = weighted[here].T @ scores.loss[here]
    return gram, right


def _projection(scores: Scores, ages: Floats, weight: Floats, information: Floats) -> tuple[Floats, Floats]:
    """A bent function is not the straight lines between its values at `ages`: least squares lies between."""
    scored, which = np.unique(scores.age_days, return_inverse=True)
    weighted = weight[:, None] * _less_window(_corners(scores, ages), scores.window, weight)
    right = np.stack([np.bincount(which, column) for column in weighted.T])
    return scored, np.linalg.pinv(information, rcond=1e-9, hermitian=True) @ right


def _corners(scores: Scores, ages: Floats) -> Floats:
    """The curve at each score's age, by the curve at each of `ages`, shape (scores, ages)."""
    return np.column_stack([np.interp(scores.age_days, ages, corner) for corner in np.eye(len(ages))])


def _less_window(columns: Floats, window: Floats, weight: Floats) -> Floats:
    """Each column less its weighted mean over the scores of the same window."""
    which = np.unique(window, return_inverse=True)[1]
    sums = np.stack([np.bincount(which, weight * column) for column in columns.T], axis=1)
    less: Floats = columns - (sums / np.bincount(which, weight)[:, None])[which]
    return less


def _effects(gram: Floats, right: Floats) -> Floats:
    """Effects of the ages less that of the youngest; the equations fix them up to a constant."""
    effects: Floats = (np.linalg.pinv(gram, rcond=1e-9, hermitian=True) @ right[..., None])[..., 0]
    return effects - effects[..., :1]


def _noise(blocks: int, draws: int, rng: np.random.Generator) -> Floats:
    """Student's t at blocks - 1 degrees, one direction per block, shape (draws, blocks)."""
    scale = np.sqrt(rng.chisquare(blocks - 1, (draws, 1)) / (blocks - 1))
    drawn: Floats = rng.standard_normal((draws, blocks)) / scale
    return drawn


def _around(estimate: float, deviations: Floats, alpha: float) -> tuple[float, float]:
    from scipy.special import stdtrit

    reach = float(stdtrit(len(deviations) - 1, 1 - alpha / 2)) * float(np.sqrt(deviations @ deviations))
    return estimate - reach, estimate + reach
