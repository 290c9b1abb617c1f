"""Which units have met which arms, and when first?

A trial compares units, each from the moment on at which it first met its arm. That is asked of the whole step, however
long it lasts, so what comes back is counts, or the newcomers of one stretch, never every row.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

import numpy as np

from leaven.events.columns import Column, Predictions, column_time
from leaven.events.source import Span
from leaven.stats.answers import given

Arms = Mapping[str, str]  # the versions that arms stand for: rows of another version are of another trial


@dataclass(frozen=True, slots=True, order=True)
class Crowd:
    """How many units have this in common."""

    bucket: int  # in which they came first, from 0
    arm: str  # that they met last
    crossed: bool  # whether they met another one as well
    failed: tuple[str, ...]  # the arms that failed them, in alphabetical order
    units: int


@dataclass(frozen=True, slots=True)
class Newcomers:
    """Units that came first in some stretch and met one arm only, by name; arrays of one length."""

    unit: Column  # object of str
    arm: Column  # object of str
    first: Column  # datetime64[us]

    def __len__(self) -> int:
        return len(self.unit)


def crowds(served: Predictions, span: Span, arms: Arms, *, every: timedelta) -> tuple[Crowd, ...]:
    """Return how many units of `span` have what in common, in order."""
    met = _Met.of(served, span, arms)
    bucket = (met.first - column_time(span.start)) // np.timedelta64(every)
    facts = zip(bucket.tolist(), met.last_arm.tolist(), met.crossed.tolist(), met.failed, strict=True)
    return tuple(sorted(Crowd(*fact, units) for fact, units in Counter(facts).items()))


def newcomers(served: Predictions, span: Span, arms: Arms, *, first_in: Span) -> Newcomers:
    """Return the units whose first meeting of all `span` lies in `first_in`, without those that met two arms in it."""
    met = _Met.of(served, span, arms)
    came = (met.first >= column_time(first_in.start)) & (met.first < column_time(first_in.end)) & ~met.crossed
    return Newcomers(met.unit[came], met.last_arm[came], met.first[came])


@dataclass(frozen=True, slots=True)
class _Met:
    """One entry per unit, in alphabetical order."""

    unit: Column
    first: Column
    last_arm: Column
    crossed: Column
    failed: list[tuple[str, ...]]

    @classmethod
    def of(cls, served: Predictions, span: Span, arms: Arms) -> _Met:
        names, code = sorted(arms), np.full(len(served), -1, dtype=np.int8)
        for number, name in enumerate(names):
            code[(served.arm == name) & (served.version == arms[name])] = number
        taking = (code >= 0) & (served.at >= column_time(span.start)) & (served.at < column_time(span.end))
        if not taking.any():
            none = np.empty(0, dtype=object)
            return cls(served.unit[:0], served.at[:0], none, np.empty(0, dtype=bool), [])
        rows, code = np.flatnonzero(taking), code[taking]
        unit = served.unit[rows]
        # By unit, then time; of one moment the later arm by name counts as the last, as in the lake.
        order = np.lexsort((code, served.at[rows], unit.astype(str) if unit.dtype == object else unit))
        rows, unit, code = rows[order], unit[order], code[order]
        starts = np.flatnonzero(np.r_[True, unit[1:] != unit[:-1]])
        ends = np.r_[starts[1:], len(unit)]
        crossed = np.maximum.reduceat(code, starts) != np.minimum.reduceat(code, starts)
        arm = np.array(names, dtype=object)[code]
        failing = ~given(served.answer[rows])
        failing[failing] = [error is not None for error in served.error[rows[failing]].tolist()]
        return cls(unit[starts], served.at[rows[starts]], arm[ends - 1], crossed, _by(arm, failing, ends))


def _by(arm: Column, failing: Column, ends: Column) -> list[tuple[str, ...]]:
    """The arms that failed each unit, whose rows end where `ends` says."""
    failed: list[tuple[str, ...]] = [()] * len(ends)
    which = np.searchsorted(ends, np.flatnonzero(failing), side="right")
    for unit, by in zip(which.tolist(), arm[failing].tolist(), strict=True):
        failed[unit] = tuple(sorted({*failed[unit], by}))
    return failed
