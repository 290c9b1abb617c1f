"""What do the sums of a trial say about its arms, and what follows?"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec

from leaven.errors import BadDefinition
from leaven.experiments.measures import Cell, Measure, Sums
from leaven.stats.comoments import Comoments
from leaven.stats.comparison import Comparison, Rule, compare
from leaven.stats.confidence_sequence import ConfidenceSequence
from leaven.stats.estimate import Estimate, adjusted_estimates, mean_estimate, ratio_estimate
from leaven.stats.group_sequential import GroupSequential
from leaven.stats.split import split_evidence, split_p_value

SPLIT_ALPHA = 0.01  # a split less likely than this is called broken


class Split(msgspec.Struct, frozen=True):
    """Whether the arms got their planned shares of the units."""

    p_value: float
    method: str
    broken: bool


class Result(msgspec.Struct, frozen=True):
    """One arm against the control, by one metric, on all units or a slice; a bound is None where data cannot tell."""

    metric: str
    arm: str
    control_mean: float | None
    arm_mean: float | None
    difference: float | None
    ci: tuple[float | None, float | None]
    relative: float | None
    relative_ci: tuple[float | None, float | None]
    p_value: float
    statistic: float | None
    method: str
    slice: str | None
    estimator: str
    n: tuple[int, int]  # units measured: control, arm
    standard_error: float | None


class Conclusion(msgspec.Struct, frozen=True):
    """What follows, and why."""

    decision: Literal["promote", "stop", "continue", "hold", "not enough evidence"]
    why: str


class Analysis(msgspec.Struct, frozen=True):
    """The whole answer."""

    arms: dict[str, int]
    srm: Split
    results: tuple[Result, ...]
    verdict: Conclusion


def analyse(
    sums: Sums, measures: Sequence[Measure], *, control: str, rule: Rule, method: str, shares: Mapping[str, float]
) -> Analysis:
    """Return every comparison with the control, and what follows from the first metric.

    Args:
        sums: Of the trial; an arm is compared on its mature units only.
        measures: The metrics; the first one decides.
        control: The arm that the others are compared with.
        rule: How far is far enough.
        method: The rule's name.
        shares: Planned, by arm, by proportion; empty for an even split.
    Raises:
        BadDefinition: the control is no arm, or there is nothing to compare it with.
    """
    if control not in sums.units or len(sums.units) < 2:
        raise BadDefinition(
            "control", f"the arms are {', '.join(sums.units)}", "Name one of at least two as the control."
        )
    split = judge_split(sums.units, shares, sequential=method != "fixed")
    by_name = {measure.name: measure for measure in measures}
    results = tuple(
        result
        for cell in sorted(sums.cells, key=lambda cell: cell.slice is not None)
        for result in _results(cell, by_name[cell.measure], sums, control, rule, method)
    )
    return Analysis(sums.units, split, results, _conclusion(split, results, measures[0], rule))


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


def _results(cell: Cell, measure: Measure, sums: Sums, control: str, rule: Rule, method: str) -> list[Result]:
    none = Comoments()
    base = cell.arms.get(control, none)
    others = {arm: cell.arms.get(arm, none) for arm in sums.units if arm != control}
    return [
        _result(cell, measure, arm, _compared(measure, base, sample, rule), method, (base.count, sample.count))
        for arm, sample in others.items()
    ]


def _compared(measure: Measure, control: Comoments, arm: Comoments, rule: Rule) -> Comparison:
    if measure.covariate and control.count > 1 and arm.count > 1:
        return compare(*adjusted_estimates(control, arm), rule)
    return compare(_estimate(measure, control), _estimate(measure, arm), rule)


def _estimate(measure: Measure, sample: Comoments) -> Estimate:
    if not sample.count:
        return Estimate(math.nan, math.nan, 0)
    if measure.denominator is not None:
        return ratio_estimate(sample)
    return mean_estimate(sample.along([1.0] + [0.0] * (len(sample.centres) - 1)))


def _result(cell: Cell, measure: Measure, arm: str, found: Comparison, method: str, n: tuple[int, int]) -> Result:
    return Result(
        cell.measure, arm, _known(found.control), _known(found.arm), _known(found.difference),
        (_known(found.low), _known(found.high)), found.relative,
        (_known(found.relative_low), _known(found.relative_high)), found.p_value, _known(found.statistic), method,
        cell.slice, measure.estimator, n, _known(found.standard_error),
    )  # fmt: skip


def _known(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _conclusion(split: Split, results: Sequence[Result], primary: Measure, rule: Rule) -> Conclusion:
    if split.broken:
        return Conclusion(
            "stop",
            f"the split of units over the arms is not the planned one (p = {split.p_value:.2g}): the arms' units differ"
            " in more than the arm, so nothing that is measured on them can be trusted",
        )
    rows = [row for row in results if row.metric == primary.name and row.slice is None]
    better = [row for row in rows if row.p_value < rule.alpha and _gain(row, primary) > 0]
    if better:
        best = max(better, key=lambda row: _gain(row, primary))
        return Conclusion("promote", f"{best.arm} is better: {_said(best)}")
    if rows and all(row.p_value < rule.alpha and _gain(row, primary) < 0 for row in rows):
        return Conclusion("stop", "; ".join(f"{row.arm} is worse: {_said(row)}" for row in rows))
    said = "; ".join(f"{row.arm}: {_said(row)}" for row in rows)
    ahead = _ahead(rule)
    return Conclusion("not enough evidence", said) if ahead is None else Conclusion("continue", f"{said}; {ahead}")


def _ahead(rule: Rule) -> str | None:
    """What is still to come; None at the last look."""
    if isinstance(rule, GroupSequential) and rule.fraction < 1:
        return f"{100 * rule.fraction:.0f} % of the planned units are in"
    if isinstance(rule, ConfidenceSequence):
        return "one may look again at any time"
    return None


def _gain(row: Result, measure: Measure) -> float:
    return (row.difference or 0.0) * (-1 if measure.lower_is_better else 1)


def _said(row: Result) -> str:
    low, high = ("?" if bound is None else f"{bound:+.4g}" for bound in row.ci)
    difference = "unknown" if row.difference is None else f"{row.difference:+.4g}"
    return f"{row.metric} differs by {difference} [{low}, {high}], p = {row.p_value:.2g}"
