"""How is a strategy written as the stages of a rollout?"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

from leaven.stats.unit_curve import UnitCurve
from leaven.values import written

_SHADOWED = {"low": "6h", "medium": "1d", "high": "3d"}
_RAMP = {"low": (0.1,), "medium": (0.01, 0.1), "high": (0.001, 0.01, 0.1)}
_WATCHED = {"low": 1, "medium": 3, "high": 7}  # days
_PATIENCE = 14  # days: what stages have by default
_TEST_PATIENCE = 42  # days: what `ABTest` has
_STEP_DAYS = 7  # within which a step of a ramp should have its units
_STEP_UNITS = 50  # with mature labels: what `Canary` takes by default


class Stages(NamedTuple):
    """The text of a rollout, and what to know of it."""

    text: str
    warnings: tuple[str, ...]


def rollout_for(
    strategy: str,
    *,
    metric: str,
    harm: Literal["low", "medium", "high"],
    window: float,
    units: int | None,
    over: float,
    days: int | None,
    curve: UnitCurve | None,
    labelled: float,
) -> Stages:
    """Return the stages as a loop file has them.

    Args:
        strategy: As `advise` names it.
        metric: That is compared.
        harm: What a bad answer costs: more of it means smaller and longer steps.
        window: Days until a label is mature.
        units: Of an A/B test, both arms; None where nobody knows.
        over: Days for which it measures each unit.
        days: Of the deciding stage; None where nobody knows.
        curve: Of the units that come.
        labelled: Share of the predictions that get a label.
    """
    watch = f'Watch("{max(_WATCHED[harm], math.ceil(window))}d")'
    long = _long(window)
    if strategy == "paired shadow":
        length = max(7, math.ceil(window)) if days is None else days
        patience = f', patience="{2 * length}d"' if 2 * length > _PATIENCE else ""
        return Stages(f'rollout=[Shadow("{length}d", decides=True{patience}), {watch}]', ())
    shadow = f'Shadow("{_SHADOWED[harm]}"{long})'
    if strategy == "shadow":
        return Stages(f"rollout=[{shadow}, {watch}]", ())
    shares, warnings = _ramp(harm, curve, labelled, last=(0.5,) if strategy == "canary" else ())
    ramp = f"Canary({', '.join(written(share) for share in shares)}{long})" if shares else ""
    test = "" if strategy == "canary" else f"ABTest({written(metric)}{_units(units)}{_lasting(over, days)})"
    stages = ", ".join(each for each in (shadow, ramp, test, watch) if each)
    return Stages(f"rollout=[{stages}]", warnings)


def _long(window: float) -> str:
    """What stages must be told where labels take so long that their patience would end first."""
    needed = math.ceil(2 * window) + 7
    return f', patience="{needed}d"' if needed > _PATIENCE else ""


def _lasting(over: float, days: int | None) -> str:
    """What an A/B test must be told of its time, where that is not what it takes by default."""
    measured = f', over="{over:g}d"' if over != 1 else ""
    return measured + (f', patience="{days + _PATIENCE}d"' if days is not None and days > _TEST_PATIENCE else "")


def _units(units: int | None) -> str:
    """As many, rounded up to two digits; 200 are the fewest that `ABTest` takes."""
    if units is None:
        return ""
    units = max(units, 200)
    step = 10 ** max(0, math.floor(math.log10(max(units, 1))) - 1)
    return f", units={math.ceil(units / step) * step:_}"


def _ramp(
    harm: Literal["low", "medium", "high"], curve: UnitCurve | None, labelled: float, *, last: tuple[float, ...]
) -> tuple[tuple[float, ...], tuple[str, ...]]:
    """The shares of a ramp, without steps so small that their units would not come."""
    shares = (*_RAMP[harm], *last)
    if curve is None:
        return shares, ()
    come = labelled * curve.units(_STEP_DAYS)
    kept = tuple(share for share in shares if share * come >= _STEP_UNITS or share in last)
    dropped = [f"{100 * share:g} %" for share in shares if share not in kept]
    if not dropped:
        return kept, ()
    why = (
        f"A step of {' or '.join(dropped)} is left out: of about {come:,.0f} units with labels in {_STEP_DAYS} days it "
        f"would get fewer than the {_STEP_UNITS} it takes."
    )
    return kept, (why,)
