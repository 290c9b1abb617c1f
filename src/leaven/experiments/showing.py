"""How is the evidence of a step read, as rows of one number each?

A stage may say so itself: `show(step, evidence, look=, metric=)` returns its rows. For one that does not, rows are made
from the fields of its evidence.
"""

from __future__ import annotations

import math
from typing import Any

import msgspec

from leaven.experiments.conclusion import Result
from leaven.experiments.evidence import Evidence
from leaven.experiments.side_by_side import ShadowEvidence, report
from leaven.experiments.stage import Stage, Step
from leaven.stats.intervals import Interval, difference_interval, mean_interval
from leaven.stats.log_counts import LogCounts
from leaven.stats.moments import Moments


class Shown(msgspec.Struct, frozen=True):
    """One row: a number of an arm, where there is one the same of its control, and how far apart they are.

    Where the row has no control, `low` and `high` are the interval of `value` itself, and `difference` is None. Bounds
    that are not known, or that are infinite, are None.
    """

    metric: str
    arm: str
    control: float | None
    value: float | None
    n: tuple[int, int]  # observations: of the control, of the arm
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    level: float | None = None  # of the interval, at this look
    slice: str | None = None


def shown(stage: Stage, step: Step, evidence: Evidence, *, look: int, metric: str) -> tuple[Shown, ...]:
    """Return the rows of what a step has seen.

    Args:
        stage: Whose evidence it is.
        step: Its step.
        evidence: What was seen.
        look: Number of the look, from 1: an interval is as wide as its look makes it.
        metric: The loss that is compared.
    """
    own = getattr(stage, "show", None)
    if own is not None:
        rows: tuple[Shown, ...] = own(step, evidence, look=look, metric=metric)
        return rows
    # What a look may spend so that all looks ever together spend alpha: valid whatever the stage's own rule is.
    alpha = getattr(stage, "alpha", 0.05) / (max(1, look) * (max(1, look) + 1))
    return _rows(evidence, metric, alpha=alpha)


def from_result(result: Result, *, level: float | None = None) -> Shown:
    """Return the row of a comparison of means, as the analysis of a trial gives it."""
    means = (result.control_mean, result.arm_mean)
    return Shown(result.metric, result.arm, *means, result.n, result.difference, *result.ci, level, result.slice)


def failure_row(control: tuple[int, int], arm: tuple[int, int], name: str, metric: str = "failed units") -> Shown:
    """Return the row of two shares: of the control and of the arm, each (failed, of how many)."""
    (failed, seen), (also, of) = control, arm
    shares = _share(failed, seen), _share(also, of)
    apart = None if None in shares else shares[1] - shares[0]  # type: ignore[operator]
    return Shown(metric, name, *shares, (seen, of), apart)


def seconds_rows(control: LogCounts, arm: LogCounts, name: str) -> tuple[Shown, ...]:
    """Return the rows of how long answers took, at three quantiles; none where nothing was timed."""
    if not arm.total:
        return ()
    counts = (control.total, arm.total)
    found = ((q, _known(control.quantile(q)), _known(arm.quantile(q))) for q in (0.5, 0.95, 0.99))
    return tuple(Shown(f"seconds p{100 * q:g}", name, theirs, ours, counts) for q, theirs, ours in found)


def agreement_rows(evidence: ShadowEvidence) -> tuple[Shown, ...]:
    """Return the rows of how far the shadow agrees: over all pairs, and by the segments that change sides most."""
    told, counts = report(evidence), (0, evidence.compared)
    quantiles = zip((5, 50, 95), (told.difference.low, told.difference.middle, told.difference.high), strict=True)
    rows = [Shown("same side of 0.5", "shadow", None, told.agreement, counts)]
    rows += [Shown(f"answer minus champion's p{q}", "shadow", None, apart, counts) for q, apart in quantiles]
    rows += [
        Shown("changes sides", "shadow", None, one.share, (0, one.pairs), slice=f"{one.feature}={one.value}")
        for one in told.flipping
    ]
    return tuple(rows)


def bounded_row(metric: str, name: str, control: Moments, arm: Moments, bounds: Interval) -> Shown:
    """Return the row of two means whose difference lies within `bounds`."""
    apart = (_known(bounds.estimate), _known(bounds.low), _known(bounds.high))
    means = (_known(control.mean), _known(arm.mean))
    return Shown(metric, name, *means, (control.count, arm.count), *apart, bounds.level)


def _rows(evidence: Any, metric: str, *, alpha: float) -> tuple[Shown, ...]:
    fields = {name: getattr(evidence, name) for name in evidence.__struct_fields__}
    arms = {name: kept for name, kept in fields.items() if hasattr(kept, "failed_units") and hasattr(kept, "loss")}
    rows: list[Shown] = []
    if len(arms) > 1:
        (_, control), *others = arms.items()
        for name, arm in others:
            rows.append(_compared(metric, name, control.loss, arm.loss, alpha))
            rows.append(failure_row((control.failed_units, control.units), (arm.failed_units, arm.units), name))
    for name, kept in fields.items():
        if name not in arms:
            rows += _single(name.replace("_", " "), kept, alpha)
    return tuple(rows)


def _compared(metric: str, arm: str, control: Moments, treatment: Moments, alpha: float) -> Shown:
    found = difference_interval(control, treatment, alpha=alpha)
    numbers = (_known(control.mean), _known(treatment.mean))
    bounds = (_known(found.estimate), _known(found.low), _known(found.high))
    return Shown(metric, arm, *numbers, (control.count, treatment.count), *bounds, 1 - alpha)


def _single(name: str, kept: Any, alpha: float) -> list[Shown]:
    """Rows of a field that is no arm: of a number, of moments, of a mapping of these."""
    if isinstance(kept, Moments):
        found = mean_interval(kept, alpha=alpha)
        bounds = (_known(found.low), _known(found.high))
        return [Shown(name, "", None, _known(kept.mean), (0, kept.count), None, *bounds, 1 - alpha)]
    if isinstance(kept, int | float):
        return [Shown(name, "", None, _known(float(kept)), (0, 0))]
    if isinstance(kept, dict):
        rows = [(key, row) for key, one in kept.items() for row in _single(name, one, alpha)]
        return [msgspec.structs.replace(row, slice=str(key)) for key, row in rows]
    if isinstance(kept, msgspec.Struct):
        parts = [(part, getattr(kept, part)) for part in kept.__struct_fields__]
        return [row for part, one in parts for row in _single(f"{name} {part.replace('_', ' ')}", one, alpha)]
    return []


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _known(number: float) -> float | None:
    return number if math.isfinite(number) else None
