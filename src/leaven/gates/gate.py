"""What does a gate look at, and what can it answer?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import msgspec

from leaven.events.columns import Column, Examples
from leaven.stats.intervals import Interval
from leaven.stats.moments import Moments

Outcome = Literal["pass", "fail", "undecided"]


@dataclass(frozen=True, slots=True)
class Rows:
    """Examples with what both versions answer to them; `champion` is None before there is one."""

    examples: Examples
    challenger: Column  # float64
    champion: Column | None  # float64


@dataclass(frozen=True, slots=True)
class Check:
    """All that a gate may look at: the freshest rows, which the challenger was not trained on, and older ones."""

    fresh: Rows
    past: Rows


class GateEvidence(msgspec.Struct, frozen=True):
    """What a gate saw, in as few numbers as it takes to judge again."""

    rows: int
    challenger: Moments = Moments()  # loss per unit, or the answers themselves
    champion: Moments | None = None
    difference: Moments = Moments()  # challenger minus champion, per unit
    broken: int = 0  # answers that are no numbers


class GateReport(msgspec.Struct, frozen=True):
    """What a gate answered and why."""

    gate: str  # as written
    outcome: Outcome
    why: str
    evidence: GateEvidence
    interval: Interval | None = None  # of challenger minus champion, where they were compared


class Gate(Protocol):
    """One offline check of a challenger: looks at rows, then judges by what it saw alone."""

    def look(self, check: Check) -> GateEvidence:
        """Return what this gate needs to know of the rows."""
        ...

    def judge(self, evidence: GateEvidence) -> GateReport:
        """Return whether the challenger passes; `undecided` where the evidence cannot tell."""
        ...


def judge_all(gates: Sequence[Gate], check: Check) -> tuple[Outcome, list[GateReport]]:
    """Return the outcome of all gates together, and every report; gates are judged in order, all of them."""
    reports = [gate.judge(gate.look(check)) for gate in gates]
    return joint_outcome(reports), reports


def joint_outcome(reports: Sequence[GateReport]) -> Outcome:
    """Return what several reports say together.

    One that fails decides; otherwise one that is undecided does: missing evidence never passes.
    """
    outcomes: set[Any] = {report.outcome for report in reports}
    return "fail" if "fail" in outcomes else "undecided" if "undecided" in outcomes else "pass"
