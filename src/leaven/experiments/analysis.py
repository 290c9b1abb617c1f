"""What do the sums of a trial say about its arms, and what follows?"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import msgspec

from leaven.errors import BadDefinition
from leaven.experiments.conclusion import Conclusion, Result, Split, conclude
from leaven.experiments.measures import Cell, Kept, Measure, Sums
from leaven.stats.bayesian import USUAL, belief
from leaven.stats.clustered import between_means, clustered_estimates
from leaven.stats.clustered_auc import AucCohorts
from leaven.stats.comoments import Comoments
from leaven.stats.comparison import Rule, Wholes, compare
from leaven.stats.corrections import benjamini_hochberg, holm
from leaven.stats.estimate import Estimate, adjusted_estimates, adjusted_wholes, mean_estimate, ratio_estimate
from leaven.stats.quantiles import QuantileCounts
from leaven.stats.shrinkage import shrunk
from leaven.stats.split import split_evidence, split_p_value

SPLIT_ALPHA = 0.01  # a split less likely than this is called broken


class Analysis(msgspec.Struct, frozen=True):
    """The whole answer."""

    arms: dict[str, int]
    srm: Split
    results: tuple[Result, ...]
    verdict: Conclusion


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked of every pair of arms."""

    rule: Rule
    method: str
    usual_effect: float


def analyse(
    sums: Sums,
    measures: Sequence[Measure],
    *,
    control: str,
    rule: Rule,
    method: str,
    shares: Mapping[str, float],
    correct: Literal["holm", "bh"] | None = None,
    usual_effect: float = USUAL,
) -> Analysis:
    """Return every comparison with the control, and what follows from the first metric.

    Args:
        sums: Of the trial; an arm is compared on its mature units only.
        measures: The metrics; the first one decides.
        control: The arm that the others are compared with.
        rule: How far is far enough.
        method: The rule's name.
        shares: Planned, by arm, by proportion; empty for an even split.
        correct: For many comparisons: Holm keeps the chance of any false finding, Benjamini-Hochberg the share of
            false ones. The family is everything that is compared here but the guardrails; intervals stay as they are.
        usual_effect: Standard deviation of true differences, as a share of the control: for what is only shown.
    Raises:
        BadDefinition: the control is no arm, or there is nothing to compare it with.
    """
    if control not in sums.units or len(sums.units) < 2:
        raise BadDefinition(
            "control", f"the arms are {', '.join(sums.units)}", "Name one of at least two as the control."
        )
    split = judge_split(sums.units, shares, sequential=method != "fixed")
    by_name, ask = {measure.name: measure for measure in measures}, Question(rule, method, usual_effect)
    results = tuple(
        result
        for cell in sorted(sums.cells, key=lambda cell: cell.slice is not None)
        for result in _results(cell, by_name[cell.measure], control, list(sums.units), ask)
    )
    results = _corrected(results, by_name, correct)
    return Analysis(sums.units, split, results, conclude(split, results, measures, rule))


def _corrected(
    results: tuple[Result, ...], by_name: Mapping[str, Measure], correct: Literal["holm", "bh"] | None
) -> tuple[Result, ...]:
    if correct is None:
        return results
    family = [index for index, row in enumerate(results) if by_name[row.metric].margin is None]
    adjust = holm if correct == "holm" else benjamini_hochberg
    adjusted = dict(zip(family, adjust([results[index].p_value for index in family]).tolist(), strict=True))
    return tuple(
        msgspec.structs.replace(row, p_value=adjusted.get(index, row.p_value)) for index, row in enumerate(results)
    )


def judge_split(units: Mapping[str, int], shares: Mapping[str, float], *, sequential: bool) -> Split:
    """Return whether the arms got their planned shares, by a test for one look or for any number of looks."""
    unknown = sorted(set(shares) ^ set(units)) if shares else []
    if unknown:
        raise BadDefinition("shares", f"{', '.join(unknown)} is not in both", f"The arms are {', '.join(units)}.")
    planned = [shares[arm] if shares else 1.0 for arm in units]
    counts = list(units.values())
    if sequential:
        p_value = min(1.0, 1 / float(split_evidence(counts, planned)))
    else:
        p_value = split_p_value(counts, planned)
    return Split(p_value, "sequential" if sequential else "chi2", p_value < SPLIT_ALPHA)


def _results(cell: Cell, measure: Measure, control: str, arms: Sequence[str], ask: Question) -> list[Result]:
    return [_result(cell, measure, arm, pair_of(cell, measure, control, arm), ask) for arm in arms if arm != control]


@dataclass(frozen=True, slots=True)
class Pair:
    """The control's and the arm's estimates: for their difference, and for their ratio."""

    control: Estimate
    arm: Estimate
    covariance: float = 0.0
    wholes: Wholes | None = None  # of both with an error that cancels in their difference, not in their ratio


def pair_of(cell: Cell, measure: Measure, control: str, arm: str) -> Pair:
    """Return the metric of two arms, adjusted by its covariate where it has one."""
    one, other = cell.arms.get(control, Comoments()), cell.arms.get(arm, Comoments())
    if min(one.count, other.count) < 2 or not (isinstance(one, Comoments) and isinstance(other, Comoments)):
        return Pair(_estimate(cell, measure, one), _estimate(cell, measure, other))
    both = cell.both(control, arm) if cell.shared is not None else None
    between = between_means(one, other, both) if both is not None else None
    wholes = adjusted_wholes(one, other, between=between) if measure.covariate else None
    if both is not None:
        return Pair(*clustered_estimates(one, other, both), wholes)
    if wholes is not None:
        return Pair(*adjusted_estimates(one, other), 0.0, wholes)
    return Pair(_estimate(cell, measure, one), _estimate(cell, measure, other))


def _estimate(cell: Cell, measure: Measure, sample: Kept) -> Estimate:
    if isinstance(sample, QuantileCounts):
        return sample.estimate(measure.quantile or 0.5)
    if isinstance(sample, AucCohorts):
        return sample.estimate()
    if not sample.count:
        return Estimate(math.nan, math.nan, 0)
    if measure.denominator is not None or cell.shared is not None:
        return ratio_estimate(sample)
    return mean_estimate(sample.along([1.0] + [0.0] * (len(sample.centres) - 1)))


def _result(cell: Cell, measure: Measure, name: str, pair: Pair, ask: Question) -> Result:
    control, arm = pair.control, pair.arm
    found = compare(control, arm, ask.rule, covariance=pair.covariance, wholes=pair.wholes)
    *estimates, common = pair.wholes or (control, arm, pair.covariance)
    believed = belief(
        estimates[0], estimates[1], usual=ask.usual_effect, covariance=common, lower_is_better=measure.lower_is_better
    )
    usual, error = ask.usual_effect * abs(control.value), _known(found.standard_error)
    left = shrunk(found.difference, error, usual=usual) if error is not None and usual > 0 else None
    return Result(
        cell.measure, name, _known(found.control), _known(found.arm), _known(found.difference),
        (_known(found.low), _known(found.high)), found.relative,
        (_known(found.relative_low), _known(found.relative_high)), found.p_value, _known(found.statistic), ask.method,
        cell.slice, _estimator(cell, measure), found.p_value, (control.n, arm.n), error, left, believed,
    )  # fmt: skip


def _estimator(cell: Cell, measure: Measure) -> str:
    return measure.estimator if cell.shared is None else f"{measure.estimator}, over clusters"


def _known(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
