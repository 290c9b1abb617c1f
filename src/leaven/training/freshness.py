"""How much worse does a model get as it grows older?

The same recipe is trained on data that ends some days before each of many test windows. Some windows are hard for every
model, so each window keeps an effect of its own, and what is left is the effect of age.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import ArrayLike, NDArray

from leaven.errors import BadDefinition

Floats = NDArray[np.float64]


class FreshnessCurve(msgspec.Struct, frozen=True):
    """Loss by model age, with the windows' own effects taken out."""

    ages_days: tuple[float, ...]
    loss: tuple[float, ...]  # at each age, at the level of the average window
    band: tuple[tuple[float, float], ...]  # of the difference from the youngest age, added to its loss
    slope_per_day: float
    slope_ci: tuple[float, float]
    windows: int

    @property
    def excess(self) -> Floats:
        """Loss at each age less the loss at the youngest."""
        return np.subtract(self.loss, self.loss[0])


def freshness_curve(
    losses: ArrayLike, ages_days: Sequence[float], *, rng: np.random.Generator, alpha: float = 0.05, draws: int = 1_000
) -> FreshnessCurve:
    """Return the loss by age from a back-test.

    Args:
        losses: Shape (windows, ages): mean loss of the model of that age on that window; NaN where it was not measured.
            Windows in order of time.
        ages_days: Shape (ages,), ascending.
        rng: Draws the bootstrap.
        alpha: The intervals miss with this probability.
        draws: Bootstrap samples.
    Raises:
        BadDefinition: fewer than 3 windows with two ages each.
    Source:
        Least squares on loss = window + effect(age); the slope replaces the effects by a line, with the
        cluster-robust error of windows (Liang and Zeger 1986, with W / (W - 1) and Student's t at W - 1); the band is
        a circular block bootstrap over windows (Politis and Romano 1992), as neighbours resemble each other.
    """
    matrix = np.asarray(losses, dtype=np.float64)
    matrix = matrix[np.isfinite(matrix).sum(axis=1) >= 2]
    if len(matrix) < 3:
        raise BadDefinition("freshness", f"{len(matrix)} test windows hold two ages", "Give more data: 3 or more.")
    effects = excess_draws(matrix, rng=rng, draws=draws)
    estimate, level = _effects(*_normal(matrix)), float(np.nanmean(matrix[:, 0]))
    low, high = np.quantile(effects, [alpha / 2, 1 - alpha / 2], axis=0)
    slope, slope_ci = _slope(matrix, np.asarray(ages_days, dtype=np.float64), alpha)
    band = zip((level + low).tolist(), (level + high).tolist(), strict=True)
    return FreshnessCurve(
        tuple(float(age) for age in ages_days), tuple((level + estimate).tolist()), tuple(band), slope, slope_ci,
        len(matrix),
    )  # fmt: skip


def excess_draws(losses: ArrayLike, *, rng: np.random.Generator, draws: int) -> Floats:
    """Return bootstrap draws of the loss at each age less that at the youngest, shape (draws, ages).

    Args:
        losses: As `freshness_curve` takes them.
        rng: Draws the blocks.
        draws: How many.
    """
    matrix = np.asarray(losses, dtype=np.float64)
    gram, right = _normal_by_window(matrix)
    counts = _block_counts(len(matrix), draws, rng)
    return _effects(np.einsum("dw,wij->dij", counts, gram), counts @ right)


def _normal(matrix: Floats) -> tuple[Floats, Floats]:
    gram, right = _normal_by_window(matrix)
    return gram.sum(axis=0), right.sum(axis=0)


def _normal_by_window(matrix: Floats) -> tuple[Floats, Floats]:
    """Normal equations of the age effects, the window's own effect projected out; one per window, and they add up."""
    there = np.isfinite(matrix)
    number = np.maximum(there.sum(axis=1), 1)[:, None]
    mean = np.where(there, matrix, 0.0).sum(axis=1, keepdims=True) / number
    right = np.where(there, matrix - mean, 0.0)
    seen = there.astype(np.float64)
    gram = (
        np.einsum("wi,ij->wij", seen, np.eye(matrix.shape[1])) - seen[:, :, None] * seen[:, None, :] / number[:, None]
    )
    return gram, right


def _effects(gram: Floats, right: Floats) -> Floats:
    """Effects of the ages less that of the youngest; the equations fix them up to a constant."""
    effects: Floats = (np.linalg.pinv(gram, hermitian=True) @ right[..., None])[..., 0]
    return effects - effects[..., :1]


def _block_counts(windows: int, draws: int, rng: np.random.Generator) -> Floats:
    """How often each window is in each draw, shape (draws, windows); drawn in blocks of neighbours."""
    length = max(1, round(windows ** (1 / 3)))
    starts = rng.integers(0, windows, (draws, -(-windows // length)))
    picked = ((starts[:, :, None] + np.arange(length)) % windows).reshape(draws, -1)[:, :windows]
    counts = np.zeros((draws, windows))
    np.add.at(counts, (np.arange(draws)[:, None], picked), 1.0)
    return counts


def _slope(matrix: Floats, ages: Floats, alpha: float) -> tuple[float, tuple[float, float]]:
    from scipy.special import stdtrit

    there = np.isfinite(matrix)
    number = there.sum(axis=1, keepdims=True)
    x = np.where(there, ages - np.where(there, ages, 0.0).sum(axis=1, keepdims=True) / number, 0.0)
    y = np.where(there, matrix, 0.0)
    y = np.where(there, y - y.sum(axis=1, keepdims=True) / number, 0.0)
    spread = float((x * x).sum())
    if not spread:
        raise BadDefinition("freshness", "all models are of one age", "Name two ages or more.")
    slope = float((x * y).sum()) / spread
    scores = (x * (y - slope * x)).sum(axis=1)
    windows = len(matrix)
    error = float(np.sqrt((scores @ scores) * windows / (windows - 1))) / spread
    reach = float(stdtrit(windows - 1, 1 - alpha / 2)) * error
    return slope, (slope - reach, slope + reach)
