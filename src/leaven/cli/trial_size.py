"""How large must a trial be, by numbers that were given and by what a log says?"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil

import msgspec

from leaven.cli.loop_log import Seen
from leaven.experiments.sizing import size_by_log
from leaven.stats.size import Plan, days_for, days_on_curve, units_for_means, units_for_rates

Between = tuple[int | None, int | None]


class Sized(msgspec.Struct, frozen=True):
    """How large a trial must be."""

    per_arm: int
    total: int
    days: int | None  # None where nobody said how many come, or so many never come
    control: int
    arm: int
    mean: float | None  # of the metric, as it was given or read
    sd: float | None
    rate: float | None
    mde: float  # absolute
    label_window: float  # days
    over: float  # days for which a unit of the log is measured
    days_between: Between | None  # soonest and latest, where the observed curve of units tells
    asked: bool  # whether units a day are known
    log: Seen | None  # what was read, where a loop was named


def sized(
    plan: Plan,
    times: float,
    *,
    mean: float | None,
    sd: float | None,
    rate: float | None,
    newcomers: Sequence[float] | None,
    window: float | None,
    over: float,
    seen: Seen | None,
) -> Sized:
    """Return the size of a trial.

    Args:
        plan: What must be found.
        times: How many times the units of one look are needed.
        mean: Of the metric.
        sd: Of the metric; without it and without `rate` it is that of the log.
        rate: Instead of both.
        newcomers: Units that come for the first time, by day; without them the days are those of the log's curve.
        window: Days until a label is mature; without it, the loop's.
        over: Days for which a unit is measured once it has come; of the log's units.
        seen: The log, where a loop was named.
    """
    waits = window if window is not None else seen.window if seen is not None else 0.0
    share = 1.0 if seen is None else seen.labelled or 1.0
    days: int | None = None
    between: Between | None = None
    if seen is not None and rate is None and sd is None:
        by_log = size_by_log(seen.losses, seen.curve, plan, over=over, window=waits, share=share, times=times)
        control, arm, sd, lasts = by_log.control, by_log.arm, by_log.sd, by_log.lasts
        days, between = lasts.days, (lasts.soonest, lasts.latest)
    else:
        units = units_for_rates(rate, plan) if rate is not None else units_for_means(sd or 0.0, plan)
        control, arm = ceil(units * times - 1e-9), ceil(units * times * plan.ratio - 1e-9)
        if seen is not None:
            lasts = days_on_curve(control + arm, seen.curve, window=waits, share=share, over=over)
            days, between = lasts.days, (lasts.soonest, lasts.latest)
    if newcomers is not None:
        days, between = days_for(control + arm, newcomers, window=waits), None
    asked = newcomers is not None or seen is not None
    return Sized(
        control, control + arm, days, control, arm, mean, sd, rate, plan.mde, waits, over, between, asked, seen
    )
