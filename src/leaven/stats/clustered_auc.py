"""How well does a model rank, where the rows of one unit are alike?

ROC AUC compares rows with each other, so it does not add up row by row. Cohorts do: units that came in on one day,
none of them in another cohort, give an estimate of their own, and estimates of disjoint units are independent.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from leaven.stats.estimate import Estimate
from leaven.stats.metrics import auc_components
from leaven.stats.moments import numbered

Floats = NDArray[np.float64]


class AucCohorts(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag=True):
    """The AUC of cohorts that share no unit, weighted by their units; those of two sets of cohorts add up.

    Positives of one cohort are never compared with negatives of another: what moves all scores of a day, in both arms,
    is no quality of a model. Compare arms whose shares stay as they are, or the days weigh differently in each.
    """

    units: int = 0
    weighted: float = 0.0  # sum over cohorts of units * AUC
    weighted_variance: float = 0.0  # sum over cohorts of units^2 * variance of AUC
    left_out: int = 0  # units of cohorts with fewer than two units that hold a positive, or a negative

    def __add__(self, other: AucCohorts) -> AucCohorts:
        return AucCohorts(
            self.units + other.units,
            self.weighted + other.weighted,
            self.weighted_variance + other.weighted_variance,
            self.left_out + other.left_out,
        )

    @property
    def count(self) -> int:
        """The units."""
        return self.units

    def estimate(self) -> Estimate:
        """Return the weighted mean of the cohorts' AUCs with its variance; NaN of none."""
        if not self.units:
            return Estimate(math.nan, math.nan, 0)
        return Estimate(self.weighted / self.units, self.weighted_variance / self.units**2, self.units)


def auc_cohort(unit: NDArray[np.object_] | Sequence[str], label: Floats, answer: Floats) -> AucCohorts:
    """Return the AUC of one cohort, its variance counting units.

    Args:
        unit: Shape (rows,): whom the row is about; in no other cohort.
        label: Shape (rows,), 0 or 1; no NaN.
        answer: Shape (rows,), any score; ties count by half.
    Source:
        Obuchowski (1997): with e10 and e01 the sums over a unit's positives and negatives of their component less the
        AUC, I10 and I01 units that hold one, I units, m positives and n negatives,
        var = I10 / (I10 - 1) sum e10^2 / m^2 + I01 / (I01 - 1) sum e01^2 / n^2 + 2 I / (I - 1) sum e10 e01 / (m n).
        With one row per unit it is DeLong's.
    """
    which, units = numbered(unit)
    positive = label > 0.5
    holding = tuple(len(np.unique(which[rows])) for rows in (positive, ~positive))
    if min(holding) < 2:
        return AucCohorts(left_out=units)
    auc, v10, v01 = auc_components(positive, answer)
    e10 = np.bincount(which[positive], weights=v10 - auc, minlength=units) / len(v10)
    e01 = np.bincount(which[~positive], weights=v01 - auc, minlength=units) / len(v01)
    variance = _raised(holding[0]) * (e10 @ e10) + _raised(holding[1]) * (e01 @ e01) + 2 * _raised(units) * (e10 @ e01)
    return AucCohorts(units, units * auc, units**2 * max(0.0, float(variance)))


def _raised(count: int) -> float:
    return count / (count - 1)
