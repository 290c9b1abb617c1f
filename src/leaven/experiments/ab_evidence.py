"""What has an A/B test seen so far, in as few numbers as its verdict needs?

Units are counted in the bucket of time in which they first met their arm. What a bucket's units did is added to the
sums once, when the bucket has closed: every unit has had its time, and every label rule's window is over.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from leaven.experiments.measures import Cell, Kept, Sums
from leaven.stats.moments import Moments

CHAMPION, CHALLENGER = "champion", "canary"  # the arms' names in the log
ARMS = (CHAMPION, CHALLENGER)


class Bucket(msgspec.Struct, frozen=True):
    """The units that came first in one stretch of time, all of them final."""

    closed_after: int  # microseconds from the step's beginning until everything about them was known
    units: dict[str, int]  # that came in, by arm
    measured: dict[str, int]  # of these, those with a value of the first metric
    primary: dict[str, Kept] = {}  # the first metric, by arm; not of a quantile, whose counts are many


class Labelled(msgspec.Struct, frozen=True):
    """How many units of one arm got a label that should have one, and how many days it took."""

    units: int = 0
    labelled: int = 0
    days: Moments = Moments()  # per unit, from the prediction to the first report about it

    def __add__(self, other: Labelled) -> Labelled:
        return Labelled(self.units + other.units, self.labelled + other.labelled, self.days + other.days)


def _none() -> dict[str, int]:
    return dict.fromkeys(ARMS, 0)


class ABEvidence(msgspec.Struct, frozen=True):
    """All of it: counts of the whole step, and sums over the buckets that have closed."""

    units: dict[str, int] = msgspec.field(default_factory=_none)  # so far, by the arm met last
    failed: dict[str, int] = msgspec.field(default_factory=_none)  # units that met a failure, by the arm that failed
    crossed: int = 0  # units that met both arms
    entered: tuple[int, ...] = ()  # units that came first in each bucket, the open ones included
    buckets: tuple[Bucket, ...] = ()  # closed, in order of time
    sums: Sums = Sums(_none(), _none(), ())
    labelled: dict[str, dict[str, Labelled]] = {}  # by label rule as written, then by arm
    slices: tuple[str, ...] = ()  # fixed with the first bucket that had units: `country=DE`
    imputed: dict[str, tuple[float, ...]] = {}  # what stands for a unit's past where it has none, fixed likewise

    def full(self, units: int, at_least: int) -> bool:
        """Whether so many units are measured, after at least so many microseconds: no bucket is added any more."""
        enough = sum(self.sums.mature.values()) >= units
        return enough and self.buckets[-1].closed_after >= at_least


class Closed(msgspec.Struct, frozen=True):
    """A bucket with everything that it adds to the sums."""

    bucket: Bucket
    cells: tuple[Cell, ...]
    labelled: dict[str, dict[str, Labelled]]
    slices: tuple[str, ...]
    imputed: dict[str, tuple[float, ...]]


def with_bucket(evidence: ABEvidence, closed: Closed) -> ABEvidence:
    """Return the evidence with the next bucket: always in order of time, so that every sum is the same to the bit."""
    sums, bucket = evidence.sums, closed.bucket
    return msgspec.structs.replace(
        evidence,
        buckets=(*evidence.buckets, bucket),
        sums=Sums(
            _added(sums.units, bucket.units), _added(sums.mature, bucket.measured), _joined(sums.cells, closed.cells)
        ),
        labelled={
            rule: {arm: evidence.labelled.get(rule, {}).get(arm, Labelled()) + one for arm, one in arms.items()}
            for rule, arms in closed.labelled.items()
        },
        slices=closed.slices,
        imputed=closed.imputed,
    )


def _added(one: dict[str, int], other: dict[str, int]) -> dict[str, int]:
    return {arm: one[arm] + other[arm] for arm in ARMS}


def _joined(one: Iterable[Cell], other: Iterable[Cell]) -> tuple[Cell, ...]:
    cells = {(cell.measure, cell.slice): cell for cell in one}
    for cell in other:
        key = (cell.measure, cell.slice)
        cells[key] = cells[key] + cell if key in cells else cell
    return tuple(cells.values())
