"""Does a unit take part in an experiment, and what does it get there?"""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import accumulate, pairwise
from typing import Literal

import msgspec

from leaven.errors import BadDefinition
from leaven.experiments import growthbook
from leaven.experiments.assignment import POSITIONS, position, threshold

Hash = Literal["leaven", "growthbook-v2"]


class Slot(msgspec.Struct, frozen=True):
    """The units at positions [low, high) get this arm. An arm may have several slots."""

    arm: str
    low: int
    high: int


class Part(msgspec.Struct, frozen=True):
    """The units of a layer at shares [low, high): experiments with disjoint parts of one layer share no unit."""

    layer: str
    low: float = 0.0
    high: float = 1.0


class Holdout(msgspec.Struct, frozen=True):
    """A share of all units that no experiment naming this holdout touches."""

    name: str
    share: float


class Experiment(msgspec.Struct, frozen=True):
    """Everything that decides what a unit gets; equal values assign alike in every process and language."""

    name: str
    slots: tuple[Slot, ...]
    salt: str = ""  # the name, where empty. Another one deals the units anew
    unit: str = "unit"  # whom assignment is consistent for, in words: user, device, request
    part: Part | None = None
    holdout: Holdout | None = None
    segments: dict[str, tuple[str, ...]] = {}  # attribute -> the values that take part; all must fit
    hash: Hash = "leaven"


class Given(msgspec.Struct, frozen=True):
    """What a unit gets, and why."""

    unit: str
    arm: str | None  # None: it takes no part
    reason: Literal[
        "assigned", "as before", "not targeted", "held out", "outside the layer's part", "outside the shares"
    ]
    position: int | None = None  # among the experiment's positions
    propensity: float | None = None  # probability of this arm for a unit that takes part


def assign(
    unit: str, experiment: Experiment, *, attributes: Mapping[str, str] | None = None, before: str | None = None
) -> Given:
    """Return what `unit` gets: a function of the arguments alone.

    Args:
        unit: Whom the experiment assigns.
        experiment: Its definition.
        attributes: Of the unit, for targeting; one that is missing fits no segment.
        before: The arm that this unit is known to have got, which it keeps as long as it exists: for those who change
            an experiment that runs and must not move anybody.
    """
    known = attributes or {}
    if any(known.get(name) not in values for name, values in experiment.segments.items()):
        return Given(unit, None, "not targeted")
    if experiment.holdout is not None and _held_out(unit, experiment.holdout):
        return Given(unit, None, "held out")
    if experiment.part is not None and not _inside(unit, experiment.part, experiment.hash):
        return Given(unit, None, "outside the layer's part")
    place = _place(unit, experiment)
    if before is not None and any(slot.arm == before for slot in experiment.slots):
        return Given(unit, before, "as before", place, propensity(experiment, before))
    for slot in experiment.slots:
        if slot.low <= place < slot.high:
            return Given(unit, slot.arm, "assigned", place, propensity(experiment, slot.arm))
    return Given(unit, None, "outside the shares", place)


def propensity(experiment: Experiment, arm: str) -> float:
    """Return the probability that a unit which takes part gets `arm`."""
    every = POSITIONS if experiment.hash == "leaven" else growthbook.BUCKETS
    return sum(slot.high - slot.low for slot in experiment.slots if slot.arm == arm) / every


def slots(shares: Mapping[str, float], *, coverage: float = 1.0, hash: Hash = "leaven") -> tuple[Slot, ...]:
    """Return slots in the order of the arms, each filled from its low edge up to `coverage`.

    A ramp of the coverage only ever adds units. So does a ramp of one of two arms' shares; to change the shares of
    several arms of a running experiment, use `widened`.

    Args:
        shares: Of each arm, adding up to 1; where they add up to less, that is the coverage.
        coverage: Share of the units that take part, in [0, 1].
        hash: Whose positions.
    Raises:
        BadDefinition: shares or coverage are out of range.
    """
    total = math.fsum(shares.values())
    if not shares or min(shares.values()) < 0 or not 0 < total <= 1 + 1e-9 or not 0 <= coverage <= 1:
        raise BadDefinition(
            "arms", f"shares of {total:g} in all, coverage {coverage:g}", "Give shares that add up to 1, or to less."
        )
    if total < 1 - 1e-9:
        shares, coverage = {arm: share / total for arm, share in shares.items()}, coverage * total
    edges = [0.0, *accumulate(shares.values())]
    if hash == "growthbook-v2":
        return tuple(
            Slot(arm, growthbook.first_bucket(low), growthbook.first_bucket(low + coverage * share))
            for (arm, share), low in zip(shares.items(), edges, strict=False)
        )
    edges[-1] = 1.0
    places = [threshold(edge) for edge in edges]
    return tuple(
        Slot(arm, low, low + round(coverage * (high - low)))
        for arm, (low, high) in zip(shares, pairwise(places), strict=True)
    )


def widened(present: tuple[Slot, ...], arm: str, share: float, *, source: str) -> tuple[Slot, ...]:
    """Return slots in which `arm` has `share`, taken from `source`: nobody else's units move.

    Raises:
        BadDefinition: the arm would shrink, or the source has not enough.
    """
    needed = threshold(share) - sum(slot.high - slot.low for slot in present if slot.arm == arm)
    there = sum(slot.high - slot.low for slot in present if slot.arm == source)
    if arm == source or needed < -1 or needed > there:  # -1: the share it has, rounded
        raise BadDefinition(
            "ramp", f"{arm} cannot grow to {share:g} from {source}", "Name a larger share, and an arm that has it."
        )
    changed: list[Slot] = []
    for slot in present:
        taken = min(needed, slot.high - slot.low) if slot.arm == source else 0
        if taken:
            needed -= taken
            changed.append(Slot(arm, slot.low, slot.low + taken))
        if slot.low + taken < slot.high or not taken:
            changed.append(Slot(slot.arm, slot.low + taken, slot.high))
    return tuple(changed)


def _place(unit: str, experiment: Experiment) -> int:
    salt = experiment.salt or experiment.name
    return position(unit, salt=salt) if experiment.hash == "leaven" else growthbook.bucket(unit, seed=salt)


def _inside(unit: str, part: Part, hash: Hash) -> bool:
    if hash == "growthbook-v2":
        quotient = growthbook.namespace_bucket(unit, namespace=part.layer) / growthbook.NAMESPACE_BUCKETS
        return part.low <= quotient < part.high
    # Names hold no NUL, so a layer is dealt independently of an experiment with its name.
    return threshold(part.low) <= position(unit, salt=f"layer\0{part.layer}") < threshold(part.high)


def _held_out(unit: str, holdout: Holdout) -> bool:
    return position(unit, salt=f"holdout\0{holdout.name}") < threshold(holdout.share)
