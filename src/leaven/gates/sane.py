"""Does the challenger give answers that can be answers at all?"""

from __future__ import annotations

import math

import numpy as np

from leaven.errors import BadDefinition
from leaven.gates.gate import Check, GateEvidence, GateReport, Outcome
from leaven.stats.answers import alike, given, telling
from leaven.stats.moments import moments
from leaven.values import value


@value
class Sane:
    """Passes a challenger whose answers to fresh and past rows are finite and differ from each other.

    `spread` is the least standard deviation of the answers: a model that says the same to everybody learnt nothing.
    """

    spread: float = 1e-6

    def __post_init__(self) -> None:
        if not self.spread >= 0:
            raise BadDefinition("Sane(spread=…)", f"{self.spread!r} is no spread", "Give 0 or more.")

    def look(self, check: Check) -> GateEvidence:
        """Return the challenger's answers, in moments."""
        answers = np.concatenate(alike([check.fresh.challenger, check.past.challenger]))
        finite = answers[given(answers)]
        return GateEvidence(len(answers), moments(telling(finite)), broken=len(answers) - len(finite))

    def judge(self, evidence: GateEvidence) -> GateReport:
        """Return whether all answers make sense."""
        if evidence.rows < 2:
            return GateReport(repr(self), "undecided", "there are no mature rows to answer", evidence)
        if evidence.broken:
            why = f"{evidence.broken} of {evidence.rows} answers are no numbers"
            return GateReport(repr(self), "fail", why, evidence)
        spread = math.sqrt(evidence.challenger.variance)
        outcome: Outcome = "pass" if spread >= self.spread else "fail"
        relation = "at least" if outcome == "pass" else "less than"
        why = f"answers to {evidence.rows} rows spread by {spread:.2g}, {relation} {self.spread:g}"
        return GateReport(repr(self), outcome, why, evidence)
