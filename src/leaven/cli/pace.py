"""How long must windows and stages be, at the rate at which this data comes?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from leaven.cli.guess import Guesses
from leaven.cli.sample import Sample, days_between
from leaven.duration import duration
from leaven.storage.tabular import quoted

_DELAYS = ("1min", "5min", "15min", "1h", "3h", "6h", "12h", "1d", "36h", "2d", "3d", "7d", "14d", "28d", "60d", "90d")
# Window to learn from: how often to refresh it.
_WINDOWS = {
    "1d": "6h",
    "3d": "1d",
    "7d": "1d",
    "14d": "3d",
    "28d": "7d",
    "56d": "14d",
    "90d": "28d",
    "180d": "28d",
    "365d": "28d",
}
_STAGES = ("6h", "12h", "1d", "2d", "3d", "7d", "14d")
_HOLDOUTS = ("6h", "12h", "1d", "2d", "3d", "7d", "14d", "28d")
_TRAINING_ROWS, _STAGE_UNITS = 20_000, 150
_HOLDOUT_ROWS, _LEAST_HOLDOUT_ROWS = 1_000, 300
_TIMELY = 0.995  # share of outcomes that the label's window should hold


@dataclass(frozen=True, slots=True)
class Pace:
    """Lengths as a loop file writes them, and the facts that they follow from."""

    rows_a_day: float | None  # None where the sample has no time
    days: float
    within: str
    timely: float | None  # share of outcomes inside `within`; None where no delays are known
    window: str
    every: str
    holdout: str
    gate_rows: int | None  # that the gates must do with, where the data is too slow for their usual number
    shadow: str
    canary: str
    shares: tuple[float, ...]  # of the units in the canary's steps; none where traffic is too slow to prove anything


def pace(sample: Sample, guesses: Guesses) -> Pace:
    """Return lengths that give training, gates and stages enough rows at the sample's rate."""
    within, timely = _within(sample, guesses)
    if guesses.time is None:
        return Pace(None, 0.0, within, timely, "28d", "7d", "2d", None, "1d", "1d", (0.1, 0.5))
    column, outcome = sample.columns[guesses.time.column], sample.columns[guesses.label.column]
    days = days_between(column.low, column.high)
    labelled, units = outcome.known / days, _units_a_day(sample, guesses)
    # A window that is most of the sample leaves nothing to see a change by.
    fitting = [length for length in _WINDOWS if duration(length) <= timedelta(days=days / 3)] or ["1d"]
    window = _shortest(fitting, labelled, _TRAINING_ROWS)
    holdout = _holdout(window, labelled)
    few = labelled * _in_days(holdout) < _LEAST_HOLDOUT_ROWS
    shares = tuple(share for share in (0.1, 0.5) if share * units * 14 >= _STAGE_UNITS)
    return Pace(
        rows_a_day=sample.rows / days,
        days=days,
        within=within,
        timely=timely,
        window=window,
        every=_WINDOWS[window],
        holdout=holdout,
        gate_rows=max(2, int(labelled * _in_days(holdout) / 2)) if few else None,
        shadow=_shortest(_STAGES, units, _STAGE_UNITS),
        canary=_shortest(_STAGES, units * min(shares, default=1.0), _STAGE_UNITS),
        shares=shares,
    )


def _holdout(window: str, labelled: float) -> str:
    """The shortest stretch that judges well and is a small part of the window, else one that judges at all."""
    small = [length for length in _HOLDOUTS if duration(length) <= duration(window) / 3] or [_HOLDOUTS[0]]
    best = _shortest(small, labelled, _HOLDOUT_ROWS)
    if labelled * _in_days(best) >= _LEAST_HOLDOUT_ROWS:
        return best
    return _shortest(_HOLDOUTS, labelled, _LEAST_HOLDOUT_ROWS)


def _shortest(lengths: Sequence[str], a_day: float, enough: float) -> str:
    """The shortest length that holds enough at this rate, or the longest."""
    return next((each for each in lengths if a_day * _in_days(each) >= enough), lengths[-1])


def _in_days(length: str) -> float:
    return duration(length) / timedelta(days=1)


def _within(sample: Sample, guesses: Guesses) -> tuple[str, float | None]:
    if guesses.time is None or guesses.label_time is None:
        return "1d", None
    delay = f"epoch({quoted(guesses.label_time.column)}) - epoch({quoted(guesses.time.column)})"
    longest = float(sample.value(f"quantile_cont({delay}, {_TIMELY})"))
    fitting = (length for length in _DELAYS if duration(length).total_seconds() >= longest)
    within = next(fitting, f"{int(longest // 86_400) + 1}d")
    return within, float(sample.value(f"avg(({delay} <= {duration(within).total_seconds()})::INT)"))


def _units_a_day(sample: Sample, guesses: Guesses) -> float:
    """Different units seen in a day, on average; rows where there is no unit."""
    when = guesses.time
    assert when is not None
    days = int(sample.value(f"count(DISTINCT CAST({quoted(when.column)} AS DATE))"))
    whom = quoted(guesses.unit.column) if guesses.unit else "n"
    numbered = "(SELECT *, row_number() OVER () AS n FROM data)"
    asked = f"SELECT DISTINCT {whom}, CAST({quoted(when.column)} AS DATE) FROM {numbered}"  # noqa: S608
    return sample.count(asked) / max(days, 1)
