"""What follows from the comparisons of a trial?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec

from leaven.experiments.measures import Measure
from leaven.stats.bayesian import Belief
from leaven.stats.comparison import Rule
from leaven.stats.confidence_sequence import ConfidenceSequence
from leaven.stats.group_sequential import GroupSequential


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
    p_value: float  # corrected, where that was asked for
    statistic: float | None
    method: str
    slice: str | None
    estimator: str
    raw_p_value: float
    n: tuple[int, int]  # units measured: control, arm
    standard_error: float | None
    shrunk: float | None = None  # the difference, drawn towards none: for display
    bayesian: Belief | None = None  # for display


class Conclusion(msgspec.Struct, frozen=True):
    """What follows, and why. `hold`: an arm is better, but something else does not allow to promote it."""

    decision: Literal["promote", "stop", "continue", "hold", "not enough evidence"]
    why: str


def conclude(split: Split, results: Sequence[Result], measures: Sequence[Measure], rule: Rule) -> Conclusion:
    """Return what follows from the first metric, unless split, guardrails or slices say otherwise.

    An arm is promoted if the first metric is better by `rule`, every guardrail is shown to stay within its margin, and
    no slice is shown to be worse by that metric.
    """
    if split.broken:
        return Conclusion(
            "stop",
            f"the split of units over the arms is not the planned one (p = {split.p_value:.2g}): the arms' units differ"
            " in more than the arm, so nothing that is measured on them can be trusted",
        )
    primary, guardrails = measures[0], [measure for measure in measures if measure.margin is not None]
    rows = [row for row in results if row.metric == primary.name and row.slice is None]
    harmed = {row.arm: harm for row in rows if (harm := _harm(row.arm, results, primary, guardrails, rule))}
    if len(harmed) == len(rows):
        return Conclusion("stop", "; ".join(f"{arm} is worse: {harm}" for arm, harm in harmed.items()))
    better = [row for row in rows if _gain(row, primary) > 0 and row.p_value < rule.alpha and row.arm not in harmed]
    if not better:
        return _undecided(rows, rule)
    best = max(better, key=lambda row: _gain(row, primary))
    doubt = _doubt(best.arm, results, primary, guardrails, rule)
    if doubt is None:
        return Conclusion("promote", f"{best.arm} is better: {_said(best)}")
    return Conclusion("hold", f"{best.arm} is better ({_said(best)}), but {doubt}")


def _harm(
    arm: str, results: Sequence[Result], primary: Measure, guardrails: Sequence[Measure], rule: Rule
) -> str | None:
    """How an arm is shown to be worse: by the first metric, or by a guardrail, whatever its margin."""
    by_name = {measure.name: measure for measure in (primary, *guardrails)}
    for row in results:
        measure = by_name.get(row.metric)
        if measure is not None and row.arm == arm and row.slice is None and _worse(row, measure, rule):
            return _said(row)
    return None


def _doubt(
    arm: str, results: Sequence[Result], primary: Measure, guardrails: Sequence[Measure], rule: Rule
) -> str | None:
    """Why a better arm is not promoted; None if nothing speaks against it."""
    for measure in guardrails:
        row = next(row for row in results if (row.metric, row.arm, row.slice) == (measure.name, arm, None))
        if not _within(row, measure):
            margin = 100 * (measure.margin or 0)
            return f"{measure.name} is not shown to stay within its margin of {margin:g} %: {_said(row)}"
    for row in results:
        own = row.arm == arm and row.metric == primary.name and row.slice is not None
        if own and _worse(row, primary, rule):
            return f"it is worse where {row.slice}: {_said(row)}"
    return None


def _worse(row: Result, measure: Measure, rule: Rule) -> bool:
    return row.p_value < rule.alpha and _gain(row, measure) < 0


def _within(row: Result, measure: Measure) -> bool:
    """Whether the whole relative interval lies on the good side of the margin."""
    low, high = row.relative_ci
    if measure.lower_is_better:
        return high is not None and high < (measure.margin or 0)
    return low is not None and low > -(measure.margin or 0)


def _undecided(rows: Sequence[Result], rule: Rule) -> Conclusion:
    said = "; ".join(f"{row.arm}: {_said(row)}" for row in rows)
    if isinstance(rule, GroupSequential) and rule.fraction < 1:
        return Conclusion("continue", f"{said}; {100 * rule.fraction:.0f} % of the planned units are in")
    if isinstance(rule, ConfidenceSequence):
        return Conclusion("continue", f"{said}; one may look again at any time")
    return Conclusion("not enough evidence", said)


def _gain(row: Result, measure: Measure) -> float:
    return (row.difference or 0.0) * (-1 if measure.lower_is_better else 1)


def _said(row: Result) -> str:
    low, high = ("?" if bound is None else f"{bound:+.4g}" for bound in row.ci)
    difference = "unknown" if row.difference is None else f"{row.difference:+.4g}"
    return f"{row.metric} differs by {difference} [{low}, {high}], p = {row.p_value:.2g}"
